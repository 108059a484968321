"""A server dies: the primary's, a replica's, and two primaries in a row."""

from __future__ import annotations

import os
import signal

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    epoch_of,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_new_epoch,
    wait_server_back,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster


def test_a_crash_of_the_primarys_server_moves_the_primary(cluster: LocalCluster) -> None:
    old, epoch = primary_of(cluster), epoch_of(cluster)
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    cluster.kill_server(old)
    after = write(cluster, range(11, 21))
    new = wait_new_epoch(cluster, epoch)
    assert new != old
    same_everywhere(cluster, before | after)
    assert one_lineage(cluster) == 2
    status = cluster.status()
    assert status is not None
    assert status["failover_count"] == 1
    assert status["last_decision"]["reason"]


def test_a_replicas_server_crash_costs_the_primary_nothing(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    replica = replicas_of(cluster)[0]
    serving = cluster.processes.postmaster_pid(primary)
    dead = cluster.processes.postmaster_pid(replica)
    cluster.kill_server(replica)
    wait_server_back(cluster, replica, dead)
    rows = write(cluster, range(101, 111))
    same_everywhere(cluster, rows)
    assert (epoch_of(cluster), primary_of(cluster)) == (epoch, primary)
    assert cluster.processes.postmaster_pid(primary) == serving


def test_two_failovers_in_a_row_end_with_one_lineage(cluster: LocalCluster) -> None:
    """The second primary is killed as soon as it is promoted, before anybody has settled."""
    cluster.wait_healthy(HEAL_S)
    first, epoch = primary_of(cluster), epoch_of(cluster)
    before = write(cluster, range(201, 211))
    same_everywhere(cluster, before)
    cluster.kill_server(first)

    def promoted() -> int | None:
        status = cluster.status()
        if status is None or status["epoch"] <= epoch:
            return None
        node = int(status["primary_node_id"])
        role = next(n["role"] for n in status["nodes"] if n["id"] == node)
        return node if role == "primary" and node != first else None

    second = wait_for(promoted, HEAL_S, "a new primary")
    assert second is not None
    pid = cluster.processes.postmaster_pid(second)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    after = write(cluster, range(211, 221), within_s=HEAL_S)
    wait_new_epoch(cluster, epoch + 1)
    same_everywhere(cluster, before | after)
    assert one_lineage(cluster) > 3
    assert set(replicas_of(cluster)) == set(NODES) - {primary_of(cluster)}
