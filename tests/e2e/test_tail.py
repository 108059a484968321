"""WAL that only one host has left: fetched before a promotion, so that no acknowledged row is lost
although commits wait for nobody; and what is said if it cannot be had."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.test_formation import listed
from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    TABLE,
    Clusters,
    ask,
    epoch_of,
    event,
    make_table,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api

SENDERS = "SELECT pid FROM pg_stat_replication WHERE application_name LIKE 'ramd_node_{node}%'"
BULK = f"INSERT INTO {TABLE} SELECT generate_series(100001, 500000)"


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    """Three nodes whose commits wait for nobody."""
    return clusters.three_nodes(synchronous_replication="off")


@contextmanager
def cut_off(cluster: LocalCluster, *nodes: int) -> Iterator[None]:
    """These replicas get no WAL any more: what sends it to them is stopped."""
    primary = primary_of(cluster)
    senders = [row[0] for n in nodes for row in ask(cluster, primary, SENDERS.format(node=n))]
    assert len(senders) == len(nodes)
    for pid in senders:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in senders:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue


def moved(cluster: LocalCluster, epoch: int) -> int:
    """The primary of a later epoch, also if not everybody is there to follow it."""

    def found() -> int | None:
        status = cluster.status()
        later = status is not None and status["epoch"] > epoch
        return cluster.primary() if later else None

    node = wait_for(found, SOON_S, f"a primary after epoch {epoch}")
    assert node is not None
    return node


def coordinated_elsewhere(cluster: LocalCluster) -> bool:
    """Whoever coordinates is not on the primary's host: it goes on if that is lost."""
    status = cluster.status()
    led = status is not None and status["leader_node_id"] is not None
    return led and status is not None and status["leader_node_id"] != status["primary_node_id"]


def decision(cluster: LocalCluster, epoch: int) -> dict[str, Any]:
    """The decision that made the primary of that epoch, with its phases."""

    def found() -> dict[str, Any] | None:
        status = cluster.status()
        last = status["last_decision"] if status else None
        return last if last and last["epoch"] == epoch and last["phases"] else None

    told = wait_for(found, SOON_S, f"how epoch {epoch} began is told")
    assert told is not None
    return dict(told)


def test_a_tail_that_only_the_crashed_primary_has_survives(cluster: LocalCluster) -> None:
    old, epoch = primary_of(cluster), epoch_of(cluster)
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    with cut_off(cluster, *replicas_of(cluster)):
        tail = write(cluster, range(11, 500))
        cluster.kill_server(old)
        new = wait_new_epoch(cluster, epoch)
    assert new != old
    after = write(cluster, range(501, 511))
    same_everywhere(cluster, before | tail | after)
    said = decision(cluster, epoch + 1)
    assert "loses nothing" in said["reason"], said
    assert f"bytes from node {old} first" in said["reason"]
    assert "fetch" in {phase["name"] for phase in said["phases"]}
    assert one_lineage(cluster) == 2


def test_a_source_that_dies_midway_costs_what_the_decision_says(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    wait_for(lambda: coordinated_elsewhere(cluster), SOON_S, "another host coordinates")
    old, epoch = primary_of(cluster), epoch_of(cluster)
    kept = write(cluster, range(601, 611))
    same_everywhere(cluster, kept)
    with cut_off(cluster, *replicas_of(cluster)):
        ask(cluster, old, BULK)
        cluster.kill_server(old)
        wait_for(lambda: event(cluster, old, "wal_lent"), SOON_S, "the fetch begins")
        cluster.kill_node(old)
        new = moved(cluster, epoch)
    assert new != old
    after = write(cluster, range(701, 711))
    said = decision(cluster, epoch + 1)
    assert f"fetching from node {old} failed" in said["reason"], said
    assert "; loses " in said["reason"]
    assert "loses nothing" not in said["reason"]
    cluster.spawn(old)
    await_api(cluster, old)
    same_everywhere(cluster, after)
    rows = ask(cluster, new, f"SELECT count(*) FROM {TABLE} WHERE row > 100000")
    assert rows == [(0,)]


def test_what_only_a_tagged_replica_has_survives_on_the_one_that_is_promoted(
    clusters: Clusters,
) -> None:
    off: dict[int, object] = dict.fromkeys(NODES, "off")
    cluster = listed(clusters, nofailover={3: "true"}, synchronous_replication=off)
    for node in NODES:
        cluster.spawn(node)
    cluster.wait_healthy(HEAL_S)
    make_table(cluster)
    assert (primary_of(cluster), epoch_of(cluster)) == (1, 1)
    wait_for(lambda: coordinated_elsewhere(cluster), SOON_S, "another host coordinates")
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    with cut_off(cluster, 2):
        tail = write(cluster, range(11, 200))
        same_everywhere(cluster, tail, nodes=(3,))
        cluster.kill_node(1)
        assert moved(cluster, 1) == 2
    after = write(cluster, range(201, 211))
    same_everywhere(cluster, before | tail | after, nodes=(2, 3))
    assert "bytes from node 3 first" in decision(cluster, 2)["reason"]
