"""The end of a cluster, and the next one: directories kept aside, or deleted when named."""

from __future__ import annotations

import json

from tests.support.cluster_stories import (
    SOON_S,
    Clusters,
    ask,
    make_table,
    primary_of,
    processes_of,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster


def test_destroy_keeps_every_data_directory_aside(cluster: LocalCluster) -> None:
    write(cluster, range(1, 11))
    data_dirs = [cluster.places.data_dir(node) for node in (1, 2, 3)]
    status, answer = cluster.api(1, "POST", "/cluster/destroy", {}, timeout_s=90)
    assert status == 200, answer
    assert answer["data"]["cluster_destroyed"] is True
    assert answer["data"]["data_removed"] is False
    assert answer["data"]["nodes_stopped"] == 3
    for data_dir in data_dirs:
        assert not data_dir.exists()
        (aside,) = data_dir.parent.glob(f"{data_dir.name}.aside-*")
        assert (aside / "PG_VERSION").exists()
        assert not (aside / "postmaster.pid").exists()

    def only_node_1() -> bool:
        return processes_of(cluster) == {cluster.processes.daemon_pid(1)}

    wait_for(only_node_1, SOON_S, "the daemons that create started have ended")
    assert cluster.api(1, "GET", "/health")[1]["data"]["stage"] == "clusterless"
    assert cluster.api(1, "GET", "/nodes")[1]["error"] == "no_cluster"


def test_the_daemon_that_was_asked_forms_nothing_by_itself(cluster: LocalCluster) -> None:
    cluster.processes.stop_daemon(1)
    cluster.start(1)
    assert cluster.api(1, "GET", "/health")[1]["data"]["stage"] == "clusterless"


def test_it_can_create_again_with_other_ports(cluster: LocalCluster) -> None:
    """What the destroyed cluster left aside is in nobody's way once the state is moved."""
    for node in (2, 3):
        state_dir = cluster.places.state_dir(node)
        if state_dir.exists():
            state_dir.rename(state_dir.with_suffix(".old"))
    replica_port = cluster.ports.postgresql + 3
    answer = cluster.create(2, replica_ports=[replica_port])
    assert answer["replica_addresses"] == [f"127.0.0.1:{replica_port}"]
    make_table(cluster)
    rows = write(cluster, range(1, 4))
    assert ask(cluster, 4, "SELECT pg_is_in_recovery()") == [(True,)]  # node 2, on port 4's place
    same_everywhere(cluster, rows, nodes=(1, 4))


def test_data_is_deleted_only_by_name(cluster: LocalCluster) -> None:
    before = cluster.processes.postmaster_pid(primary_of(cluster))
    for body in (
        {"remove_data": True},
        {"remove_data": True, "cluster_name": "other"},
        {"cluster_name": "other"},
    ):
        status, answer = cluster.api(2, "POST", "/cluster/destroy", body)
        assert (status, answer["error"]) == (400, "invalid_field"), body
        assert answer["details"]["field"] == "cluster_name"
    assert cluster.processes.postmaster_pid(primary_of(cluster)) == before
    aside = set(cluster.root.glob("node*.aside-*"))
    body = {"remove_data": True, "cluster_name": "demo"}
    status, answer = cluster.api(1, "POST", "/cluster/destroy", body, timeout_s=90)
    assert status == 200, answer
    assert answer["data"]["data_removed"] is True
    assert not cluster.places.data_dir(1).exists()
    assert not cluster.places.data_dir(2).exists()
    assert set(cluster.root.glob("node*.aside-*")) == aside, "kept is kept"


def test_one_node_is_a_cluster_too(clusters: Clusters) -> None:
    cluster = clusters.make()
    cluster.start()
    answer = cluster.create(1)
    assert (answer["nodes_created"], answer["replica_nodes"]) == (1, [])
    make_table(cluster)
    write(cluster, range(1, 4))
    status = cluster.status()
    assert status is not None
    assert status["cluster_status"] == "healthy", json.dumps(status)
    cluster.kill_server(1)
    write(cluster, range(4, 7), within_s=60)
