"""A server that lost files of its WAL comes up again: with the primary's, or as a new copy.

Without it a replica would wait in recovery for ever and answer nobody; a primary that crashed would
take the hole for the end of its WAL.
"""

from __future__ import annotations

import re

import pytest

from ramd.postgres.wal import SEGMENT
from tests.support.cluster_stories import (
    HEAL_S,
    Clusters,
    ask,
    epoch_of,
    event,
    event_lines,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    return clusters.three_nodes()


def drop_wal(cluster: LocalCluster, node: int) -> list[str]:
    """Every file of WAL of this node but the newest is removed; returns their names."""
    wal = cluster.places.data_dir(node) / "pg_wal"
    names = sorted(path.name for path in wal.iterdir() if SEGMENT.match(path.name))
    for name in names[:-1]:
        (wal / name).unlink()
    return names[:-1]


def behind_its_pages(cluster: LocalCluster, node: int, first: int) -> set[int]:
    """A dead replica that is some files of WAL past its last restart point; what it shows."""
    primary = primary_of(cluster)
    ask(cluster, node, "CHECKPOINT")
    rows = set()
    for at in (first, first + 10):
        rows |= write(cluster, range(at, at + 10))
        ask(cluster, primary, "SELECT pg_switch_wal()")
    rows |= write(cluster, range(first + 20, first + 30))
    same_everywhere(cluster, rows)
    cluster.kill_node(node)
    return rows


def back_from(cluster: LocalCluster, node: int, hunger: str) -> None:
    """The node, started, has starved like this since, and is whole again."""
    known = len(event_lines(cluster, node, "starved"))

    def starved() -> bool:
        return any(hunger in line for line in event_lines(cluster, node, "starved")[known:])

    cluster.spawn(node)
    # Not its health first: that is what was last heard of it before it was killed.
    wait_for(starved, HEAL_S, f"node {node} lacks WAL ({hunger})")
    cluster.wait_healthy(HEAL_S)


def test_it_gets_from_the_primary_what_it_lost(cluster: LocalCluster) -> None:
    node = replicas_of(cluster)[0]
    clones = len(event_lines(cluster, node, "clone_finished"))
    rows = behind_its_pages(cluster, node, 1)
    assert drop_wal(cluster, node)
    back_from(cluster, node, "fed=False")
    same_everywhere(cluster, rows)
    one_lineage(cluster)
    assert "plain: " in event_lines(cluster, node, "rejoin_judged")[-1]
    assert len(event_lines(cluster, node, "clone_finished")) == clones


def test_where_the_primary_has_it_no_more_a_clone_follows(cluster: LocalCluster) -> None:
    node = replicas_of(cluster)[0]
    clones = len(event_lines(cluster, node, "clone_finished"))
    rows = behind_its_pages(cluster, node, 101)
    drop_wal(cluster, node)
    assert drop_wal(cluster, primary_of(cluster))
    back_from(cluster, node, "fed=True")
    same_everywhere(cluster, rows)
    one_lineage(cluster)
    assert len(event_lines(cluster, node, "clone_finished")) == clones + 1
    listed = (cluster.places.state_dir(node) / "aside.json").read_text()
    assert re.search("it needs WAL [0-9A-F]{24}, which node . does not give", listed)


def test_a_former_primary_with_a_hole_in_its_wal_is_a_new_copy(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    ask(cluster, old, "CHECKPOINT")
    rows: set[int] = set()
    files: list[str] = []
    for at in range(201, 241, 10):
        rows |= write(cluster, range(at, at + 10))
        files += ask(cluster, old, "SELECT pg_walfile_name(pg_current_wal_lsn())")[0]
        ask(cluster, old, "SELECT pg_switch_wal()")
    rows |= write(cluster, range(241, 251))
    cluster.kill_node(old)
    (cluster.places.data_dir(old) / "pg_wal" / files[2]).unlink()
    cluster.spawn(old)
    wait_new_epoch(cluster, epoch)
    wait_for(lambda: event(cluster, old, "clone_finished"), HEAL_S, f"node {old} is a new copy")
    cluster.wait_healthy(HEAL_S)
    same_everywhere(cluster, rows)
    one_lineage(cluster)
    listed = (cluster.places.state_dir(old) / "aside.json").read_text()
    assert f"its WAL file {files[2]} is missing" in listed
