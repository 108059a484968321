"""A whole host is lost: daemon and server die at once, and come back by starting the daemon."""

from __future__ import annotations

from tests.support.cluster_stories import (
    HEAL_S,
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


def test_losing_the_primarys_host_moves_the_primary_and_it_rejoins(cluster: LocalCluster) -> None:
    old, epoch = primary_of(cluster), epoch_of(cluster)
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    cluster.kill_node(old)
    after = write(cluster, range(11, 21))
    wait_for(lambda: epoch_of(cluster) > epoch, HEAL_S, "the next epoch")
    status = cluster.status()
    assert status is not None
    assert status["primary_node_id"] != old
    assert status["cluster_status"] == "degraded"
    cluster.spawn(old)
    assert wait_new_epoch(cluster, epoch) != old
    same_everywhere(cluster, before | after)
    one_lineage(cluster)


def test_losing_a_replicas_host_costs_the_primary_nothing(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(primary)
    for lost in replicas_of(cluster):
        # One of the two is the coordinator: that costs an election, not the lease.
        cluster.kill_node(lost)
        rows = write(cluster, range(lost * 100, lost * 100 + 10))
        cluster.spawn(lost)
        wait_server_back(cluster, lost, None)
        same_everywhere(cluster, rows)
    assert (epoch_of(cluster), primary_of(cluster)) == (epoch, primary)
    assert cluster.processes.postmaster_pid(primary) == serving
