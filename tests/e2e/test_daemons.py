"""Daemons are stopped and started again in time: PostgreSQL serves on and is taken over."""

from __future__ import annotations

import socket

import psycopg
import pytest

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    epoch_of,
    make_table,
    one_lineage,
    primary_of,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api
from tools.local_processes import alive

TTL_MS = 30_000
"""So long that a daemon is back within its lease on a slow machine too."""


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    """Three nodes with a long lease."""
    return clusters.three_nodes(primary_lease_ttl_ms=TTL_MS)


def test_restarting_the_primarys_daemon_is_no_failover(cluster: LocalCluster) -> None:
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(primary)
    with psycopg.connect(cluster.dsn(primary), autocommit=True) as connection:
        cluster.processes.stop_daemon(primary)
        connection.execute("INSERT INTO story VALUES (1)")
        cluster.start(primary)
        connection.execute("INSERT INTO story VALUES (2)")
        wait_for(lambda: epoch_of(cluster) > 0, HEAL_S, "the cluster is known again")
        cluster.wait_healthy(HEAL_S)
        connection.execute("INSERT INTO story VALUES (3)")
    assert (epoch_of(cluster), primary_of(cluster)) == (epoch, primary)
    assert cluster.processes.postmaster_pid(primary) == serving
    same_everywhere(cluster, {1, 2, 3})


def test_restarting_every_daemon_at_once_changes_nothing(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    before = cluster.status()
    assert before is not None
    servers = [cluster.processes.postmaster_pid(node) for node in NODES]
    rows = write(cluster, range(11, 21))
    for node in NODES:
        cluster.processes.stop_daemon(node)
    rows |= write(cluster, range(21, 31))
    for node in NODES:
        cluster.spawn(node)
    for node in NODES:
        await_api(cluster, node)
    wait_for(lambda: epoch_of(cluster) > 0, HEAL_S, "the cluster is known again")
    cluster.wait_healthy(HEAL_S)
    after = cluster.status()
    assert after is not None
    assert after["cluster_id"] == before["cluster_id"]
    assert (epoch_of(cluster), primary_of(cluster)) == (epoch, primary)
    assert [cluster.processes.postmaster_pid(node) for node in NODES] == servers
    same_everywhere(cluster, rows | write(cluster, range(31, 41)))
    assert one_lineage(cluster) == 1


def taken(listener: socket.socket, port: int) -> bool:
    """The port is ours now. A dying process gives its own back a moment after it counts as dead."""
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    listener.listen()
    return True


def test_a_daemon_that_fails_to_start_leaves_no_server_open_for_ever(clusters: Clusters) -> None:
    """The one before was killed and left no watch; the next one cannot have its port. A server that
    checks the lease itself would be left alone."""
    cluster = clusters.make(settings={"pgraft_extension": "off"})
    cluster.start()
    cluster.create(1)
    make_table(cluster)
    serving = cluster.processes.postmaster_pid(1)
    assert serving is not None
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        cluster.processes.kill_daemon(1)
        wait_for(lambda: taken(thief, cluster.places.ports.raft), SOON_S, "the port is free")
        cluster.spawn(1)
        wait_for(lambda: cluster.processes.exit_status(1) is not None, SOON_S, "the daemon failed")
        wait_for(lambda: not alive(serving), SOON_S, "its server is stopped at the lease's end")
    cluster.start()
    cluster.wait_healthy(HEAL_S)
    write(cluster, [1])
