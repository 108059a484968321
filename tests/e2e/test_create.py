"""`cluster create` on one host: what it refuses untouched, what it makes, what it undoes."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.cluster_stories import (
    NODES,
    Clusters,
    ask,
    envelope,
    listing,
    make_table,
    one_lineage,
    processes_of,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def lone(clusters: Clusters) -> LocalCluster:
    """One daemon without a cluster, whose file says where create may put the others."""
    cluster = clusters.make()
    cluster.start()
    return cluster


def create(cluster: LocalCluster, **body: object) -> tuple[int, dict[str, Any]]:
    """The raw answer to `cluster create`."""
    return cluster.api(1, "POST", "/cluster/create", {"num_nodes": 3, **body}, timeout_s=180)


def test_before_create_only_health_answers(lone: LocalCluster) -> None:
    status, health = lone.api(1, "GET", "/health")
    assert (status, health["data"]["stage"]) == (200, "clusterless")
    for path in ("/cluster/health", "/cluster/status", "/nodes", "/nodes/1"):
        status, answer = lone.api(1, "GET", path)
        assert (status, answer["error"]) == (409, "no_cluster"), path


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"num_nodes": "three"}, "num_nodes"),
        ({"num_nodes": 0}, "num_nodes"),
        ({"num_nodes": 10}, "num_nodes"),
        ({"nodes": 3}, "nodes"),
        ({"replica_ports": [15000]}, "replica_ports"),
        ({"data_dir": "somewhere"}, "data_dir"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_made(
    lone: LocalCluster, body: dict[str, object], field: str
) -> None:
    before = listing(lone.root)
    status, answer = create(lone, **body)
    assert (status, answer["error"]) == (400, "invalid_field")
    assert answer["details"]["field"].startswith(field)
    assert listing(lone.root) == before


def test_another_base_directory_than_node_1s_own_is_a_conflict(lone: LocalCluster) -> None:
    before = listing(lone.root)
    status, answer = create(lone, data_dir=str(lone.root / "elsewhere"))
    assert (status, answer["error"]) == (409, "conflict")
    assert str(lone.places.data_dir(1)) in answer["message"]
    assert listing(lone.root) == before


@pytest.mark.parametrize("what", ["postgresql", "raft", "http"])
def test_a_port_in_use_is_named_before_anything_is_touched(lone: LocalCluster, what: str) -> None:
    port = getattr(lone.ports, what) + 2
    before = listing(lone.root)
    with socket.create_server(("127.0.0.1", port)):
        status, answer = create(lone)
    assert (status, answer["error"]) == (409, "port_in_use")
    assert str(port) in answer["message"]
    assert "node3" in answer["message"]
    assert listing(lone.root) == before


@pytest.mark.parametrize("name", ["node2", "node3.ramd"])
def test_a_foreign_directory_is_named_and_left_alone(lone: LocalCluster, name: str) -> None:
    foreign = lone.root / name
    foreign.mkdir()
    (foreign / "photo.jpg").write_text("dear")
    before = listing(lone.root)
    status, answer = create(lone)
    assert (status, answer["error"]) == (409, "foreign_directory")
    assert str(foreign) in answer["message"]
    assert listing(lone.root) == before
    (foreign / "photo.jpg").unlink()
    foreign.rmdir()


def test_foreign_files_in_node_1s_data_directory_are_left_alone(lone: LocalCluster) -> None:
    foreign = lone.places.data_dir(1)
    foreign.mkdir()
    (foreign / "photo.jpg").write_text("dear")
    before = listing(lone.root)
    status, answer = create(lone)
    assert (status, answer["error"]) == (409, "foreign_directory")
    assert listing(lone.root) == before
    (foreign / "photo.jpg").unlink()
    foreign.rmdir()


def test_a_create_that_fails_half_way_undoes_what_it_made(lone: LocalCluster) -> None:
    """Node 3's daemon dies while the cluster is being made."""
    before, alive = listing(lone.root), processes_of(lone)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(create, lone)
        pid = wait_for(lambda: lone.processes.daemon_pid(3), 60, "node 3's daemon")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        status, code, message = envelope(answer.result())
    assert status == 503, (code, message)
    assert "node3" in message
    assert "removed again" in message
    wait_for(lambda: processes_of(lone) == alive, 30, "only node 1's daemon is left")
    assert listing(lone.root) == before
    assert lone.api(1, "GET", "/health")[1]["data"]["stage"] == "clusterless"


def test_create_makes_a_primary_and_streaming_replicas(lone: LocalCluster) -> None:
    """After everything above: nothing of it is in the way."""
    answer = lone.create(3)
    assert answer["nodes_created"] == 3
    assert answer["primary_node"] == 1
    assert sorted(answer["replica_nodes"]) == [2, 3]
    assert len(answer["cluster_id"]) >= 16
    assert answer["primary_address"] == f"127.0.0.1:{lone.ports.postgresql}"
    slots = "SELECT slot_name, active FROM pg_replication_slots ORDER BY 1"
    assert ask(lone, 1, slots) == [("ramd_node_2", True), ("ramd_node_3", True)]
    streams = (
        "SELECT left(application_name, 11), state FROM pg_stat_replication"
        " WHERE application_name LIKE 'ramd_node_%' ORDER BY 1"
    )
    # A replica says that it streams an instant before the primary has left "catchup" behind.
    wanted = [("ramd_node_2", "streaming"), ("ramd_node_3", "streaming")]
    wait_for(lambda: ask(lone, 1, streams) == wanted, 5, "both stream, as the primary sees it")
    for replica in (2, 3):
        assert ask(lone, replica, "SELECT pg_is_in_recovery()") == [(True,)]
        assert ask(lone, replica, "SHOW fsync") == [("on",)]
        assert lone.places.log(replica).stat().st_size > 0
    make_table(lone)
    same_everywhere(lone, write(lone, range(1, 11)))
    assert one_lineage(lone) == 1


def test_the_other_daemons_live_on_their_own(lone: LocalCluster) -> None:
    """Their own session, a pid file in their state directory, not children of node 1's daemon."""
    pids = {node: lone.processes.daemon_pid(node) for node in NODES}
    assert None not in pids.values()
    first = pids[1]
    for node in (2, 3):
        pid = pids[node]
        assert pid is not None
        assert os.getsid(pid) != os.getsid(first or 0)
    lone.processes.stop_daemon(1)
    assert [lone.processes.daemon_pid(node) for node in (2, 3)] == [pids[2], pids[3]]
    lone.start(1)
    lone.wait_healthy()


def test_a_second_create_is_refused_on_every_node(lone: LocalCluster) -> None:
    before = set(lone.root.iterdir())
    for node in NODES:
        body = {"num_nodes": 3}
        status, answer = lone.api(node, "POST", "/cluster/create", body)
        assert (status, answer["error"]) == (409, "cluster_exists"), node
    assert set(lone.root.iterdir()) == before
