"""What stories about synchronous replication have in common: whom commits wait for, and replicas
that take nothing.

Must not live here: what a story expects. Start reading at `until_settled`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from tests.support.cluster_stories import HEAL_S, ask, primary_of, replicas_of
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.local_processes import send

NAMES = "SHOW synchronous_standby_names"
PROVEN = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def names(cluster: LocalCluster) -> str:
    with suppress(psycopg.Error):
        return str(ask(cluster, primary_of(cluster), NAMES)[0][0])
    return ""


def waited_for(cluster: LocalCluster) -> set[int]:
    """Nodes that may confirm a commit, as the primary's server says."""
    return {node for node in (1, 2, 3) if f"ramd_node_{node}_" in names(cluster)}


def until_settled(cluster: LocalCluster) -> None:
    """Every replica is in the set, and no change is under way."""
    cluster.wait_healthy(HEAL_S)
    wait_for(
        lambda: waited_for(cluster) == set(replicas_of(cluster)), HEAL_S, "every replica confirms"
    )
    wait_for(lambda: settled(cluster), HEAL_S, "the set is settled")


def settled(cluster: LocalCluster) -> bool:
    status = cluster.status()
    return status is not None and status["sync"]["changing_to"] is None


def nobody_for_the_set(cluster: LocalCluster) -> bool:
    status = cluster.status()
    return status is not None and "acknowledged commits alone" in status["reason"]


@contextmanager
def stopped_server(cluster: LocalCluster, *nodes: int) -> Iterator[None]:
    """Every process of these nodes' servers is stopped (SIGSTOP) inside; their daemons go on."""
    pids = [pid for node in nodes for pid in cluster.processes.server_pids(node)]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)
