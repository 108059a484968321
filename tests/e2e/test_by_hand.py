"""Hands and accidents around a running cluster: directories cleaned away, a server started by hand
from an old directory, two primaries lost within a moment."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

import psycopg
import pytest

from tests.support.by_hand import refuses, started_by_hand
from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    ask,
    epoch_of,
    one_lineage,
    primary_of,
    replicas_of,
    rows_on,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.sync_stories import until_settled
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.local_processes import alive
from tools.writers import Writers, create_table, present


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    return clusters.three_nodes(pgraft_extension="required")


def test_the_directories_in_memory_and_of_the_socket_are_removed(cluster: LocalCluster) -> None:
    """Nothing is acknowledged without a lease, nothing stops; after the next start all is there."""
    until_settled(cluster)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(primary)
    sockets = cluster.places.state_dir(primary) / "run"
    shutil.rmtree(cluster.places.page_dir())
    shutil.rmtree(sockets)
    rows = write(cluster, range(1, 11))
    rows |= write(cluster, range(11, 21))
    assert (primary_of(cluster), epoch_of(cluster)) == (primary, epoch)
    assert cluster.processes.postmaster_pid(primary) == serving
    cluster.kill_server(primary)
    wait_new_epoch(cluster, epoch, SOON_S)
    until_settled(cluster)
    assert list(sockets.glob(".s.PGSQL.*")), "made again"
    assert list(cluster.places.page_dir().glob("*.page")), "made again"
    same_everywhere(cluster, rows)


def test_the_former_primary_started_by_hand_beside_the_present_one(cluster: LocalCluster) -> None:
    """Its host was lost, another node holds the lease. It reads, and acknowledges nothing; its
    daemon, when it is back, makes a replica of it and says how."""
    until_settled(cluster)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    cluster.kill_node(old)
    wait_for(lambda: epoch_of(cluster) > epoch, HEAL_S, "another primary")
    rows = write(cluster, range(101, 111))
    with started_by_hand(cluster, old) as by_hand:
        wait_for(lambda: rows_on(cluster, old) is not None, SOON_S, "it answers reads")
        assert ask(cluster, old, "SELECT pg_is_in_recovery()") == [(False,)], "a primary, it thinks"
        assert refuses(cluster, old)
        rows |= write(cluster, range(111, 121))
        assert refuses(cluster, old)
        cluster.spawn(old)
        wait_for(lambda: not alive(by_hand), HEAL_S, "its daemon ends it")
    until_settled(cluster)
    assert old in replicas_of(cluster)
    log = cluster.places.log(old).read_text()
    assert "event=rejoin_judged" in log[log.rindex("event=daemon_started") :]
    same_everywhere(cluster, rows)
    one_lineage(cluster)


def test_two_primaries_lost_within_a_moment_have_two_timelines(cluster: LocalCluster) -> None:
    """Attacks C8: the second is killed as soon as its server is promoted, before anybody may have
    received its history. The numbers are the group's; nothing that was acknowledged is lost."""
    until_settled(cluster)
    dsns = {node: cluster.dsn(node) for node in NODES}
    create_table(dsns)
    first, epoch = primary_of(cluster), epoch_of(cluster)
    timeline, others = one_lineage(cluster), replicas_of(cluster)

    def promoted() -> int | None:
        for node in others:
            with contextlib.suppress(psycopg.Error):
                if ask(cluster, node, "SELECT pg_is_in_recovery()") == [(False,)]:
                    return node
        return None

    with Writers(dsns) as writers:
        wait_for(lambda: writers.acked() > 50, SOON_S, "writers write")
        cluster.kill_server(first)
        second = wait_for(promoted, HEAL_S, "the second primary")
        assert second is not None
        pid = cluster.processes.postmaster_pid(second)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: epoch_of(cluster) > epoch + 1, HEAL_S, "an epoch after that")
        flowing = writers.acked() + 50
        wait_for(lambda: writers.acked() > flowing, HEAL_S, "writes go on")
    until_settled(cluster)
    acknowledged = {ack.row for ack in writers.recorded.acks}
    node, rows = present(dsns)
    assert node == primary_of(cluster)
    assert acknowledged <= rows, sorted(acknowledged - rows)
    assert one_lineage(cluster) >= timeline + 2, "a number is never given twice"
    status, answer = cluster.api(node, "GET", "/cluster/decisions?limit=100&changes=true")
    assert status == 200, answer
    grants = [one for one in answer["data"]["decisions"] if one["action"] == "GrantTo"]
    last, before = grants[:2]
    assert last["epoch"] == before["epoch"] + 1 == epoch_of(cluster)
    assert f"node {second}" in before["reason"]
