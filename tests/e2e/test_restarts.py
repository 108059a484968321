"""A whole site loses power; a primary loses its quorum."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    ask,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api


@pytest.mark.parametrize("order", [(3, 2, 1), (2, 1, 3)])
def test_all_hosts_lose_power_and_come_back_in_any_order(
    cluster: LocalCluster, order: tuple[int, ...]
) -> None:
    cluster.wait_healthy(HEAL_S)
    first = order[0] * 1000
    rows = write(cluster, range(first, first + 10))
    same_everywhere(cluster, rows)
    system_id = ask(cluster, 1, "SELECT system_identifier FROM pg_control_system()")
    for node in NODES:
        cluster.kill_node(node)
    cluster.spawn(order[0])
    await_api(cluster, order[0])
    for node in order[1:]:
        cluster.spawn(node)
    for node in order:
        await_api(cluster, node)
    wait_for(lambda: cluster.primary() is not None, HEAL_S, "somebody leads")
    cluster.wait_healthy(HEAL_S)
    same_everywhere(cluster, rows | write(cluster, range(first + 10, first + 20)))
    one_lineage(cluster)
    assert ask(cluster, 1, "SELECT system_identifier FROM pg_control_system()") == system_id
    assert not list(cluster.root.glob("node*.aside-*"))


def test_a_primary_without_quorum_stops_and_comes_back_with_it(cluster: LocalCluster) -> None:
    """Both other daemons die, their servers live on: the primary's daemon must fence its own."""
    cluster.wait_healthy(HEAL_S)
    primary, others = primary_of(cluster), replicas_of(cluster)
    rows = write(cluster, range(5001, 5011))
    same_everywhere(cluster, rows)
    for node in others:
        cluster.processes.kill_daemon(node)

    def refuses_writes() -> bool:
        try:
            ask(cluster, primary, "CREATE TEMP TABLE probe(x int)")
        except psycopg.Error:
            return True
        return False

    # ttl 3 s, and never later than that; the deadline is for a slow machine.
    wait_for(refuses_writes, 10, "the server takes no writes any more")
    for node in others:
        # Reads go on where servers live.
        with contextlib.suppress(psycopg.Error):
            assert ask(cluster, node, "SELECT pg_is_in_recovery()") == [(True,)]
    for node in others:
        cluster.start(node)
    wait_for(lambda: cluster.primary() is not None, SOON_S, "a coordinator is heard")
    rows |= write(cluster, range(5011, 5021), within_s=HEAL_S)
    cluster.wait_healthy(HEAL_S)
    same_everywhere(cluster, rows)
    one_lineage(cluster)
