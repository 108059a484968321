"""The fast profile on a real cluster: a lease of one second, kept on every node."""

from __future__ import annotations

import http.client

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    Clusters,
    epoch_of,
    primary_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tools.local_cluster import LocalCluster


def metric(cluster: LocalCluster, node: int, name: str) -> float:
    """One unlabelled value of a node's metrics."""
    link = http.client.HTTPConnection("127.0.0.1", cluster.ports.http + node - 1, timeout=30)
    try:
        link.request("GET", "/metrics")
        lines = link.getresponse().read().decode().splitlines()
    finally:
        link.close()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_the_fast_profile_is_kept_everywhere(clusters: Clusters) -> None:
    cluster = clusters.three_nodes(timing_profile="fast")
    for node in NODES:
        assert metric(cluster, node, "ramd_lease_ttl_seconds") == 1.0
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    assert 0 < metric(cluster, primary, "ramd_lease_left_seconds") <= 1.0
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    cluster.kill_node(primary)
    after = write(cluster, range(11, 21), within_s=HEAL_S)
    cluster.spawn(primary)
    assert wait_new_epoch(cluster, epoch) != primary
    same_everywhere(cluster, before | after)
    assert 0 < metric(cluster, primary_of(cluster), "ramd_lease_left_seconds") <= 1.0
