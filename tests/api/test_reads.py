"""GET under /api/v1: fields, words, and what is said before there is a cluster."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ramd.domain.model import ClusterState
from ramd.domain.service import DaemonStatus, Stage
from tests.api import stories
from tests.api.harness import Api, serving
from tests.api.stories import NOW_NS, SECOND_NS, healthy

CLUSTER_PATHS = ["/cluster/health", "/cluster/status", "/nodes", "/nodes/1", "/node/info"]


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    served.service.story = healthy()
    served.service.now = NOW_NS
    return served


def test_envelope_of_success(api: Api) -> None:
    answer = api.get("/health")
    assert set(answer.body) == {"status", "code", "message", "data", "timestamp"}
    assert (answer.status, answer.body["code"], answer.body["status"]) == (200, 200, "success")
    assert answer.body["message"] == "daemon running, formed"
    assert answer.headers["content-type"] == "application/json"
    assert answer.body["timestamp"].endswith("Z")


def test_health(api: Api) -> None:
    api.service.now = NOW_NS + 2 * SECOND_NS
    data = api.get("/health").data
    assert data == {
        "daemon_status": "running",
        "uptime_seconds": 62,
        "version": "0.1.0",
        "node_id": 1,
        "name": "node1",
        "stage": "formed",
        "forming": "",
        "removed": "",
    }


def test_health_of_a_stopping_daemon(api: Api) -> None:
    story = healthy()
    daemon = replace(story.daemon, status=DaemonStatus.STOPPING)
    api.service.story = replace(story, daemon=daemon)
    assert api.get("/health").data["daemon_status"] == "stopping"


@pytest.mark.parametrize("path", CLUSTER_PATHS)
def test_before_a_cluster_only_health_answers(api: Api, path: str) -> None:
    api.service.story = stories.clusterless()
    assert api.get("/health").data["stage"] == "clusterless"
    answer = api.get(path)
    assert (answer.status, answer.body["error"]) == (409, "no_cluster")
    assert "create" in answer.body["hint"]


def test_while_forming_it_says_what_it_waits_for(api: Api) -> None:
    api.service.story = stories.clusterless(Stage.FORMING, "waiting for node3")
    assert api.get("/health").data["forming"] == "waiting for node3"
    answer = api.get("/nodes")
    assert (answer.body["error"], answer.body["hint"]) == ("no_cluster", "waiting for node3")


@pytest.mark.parametrize("path", CLUSTER_PATHS)
def test_a_removed_node_says_what_brings_it_back(api: Api, path: str) -> None:
    api.service.story = stories.clusterless(Stage.REMOVED, "add it again")
    data = api.get("/health").data
    assert (data["stage"], data["removed"], data["forming"]) == ("removed", "add it again", "")
    answer = api.get(path)
    assert (answer.status, answer.body["error"]) == (409, "no_cluster")
    assert answer.body["hint"] == "add it again"


@pytest.mark.parametrize("path", CLUSTER_PATHS)
def test_before_the_state_is_known_it_asks_to_come_back(api: Api, path: str) -> None:
    api.service.story = replace(healthy(), state=ClusterState())
    answer = api.get(path)
    assert (answer.status, answer.body["error"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


def test_cluster_health(api: Api) -> None:
    assert api.get("/cluster/health").data == {
        "cluster_status": "healthy",
        "healthy_nodes": 3,
        "total_nodes": 3,
        "primary_node_id": 1,
        "replication_lag_ms": 250,
        "reason": "primary node1 accepts writes, 2 of 2 replicas stream",
    }


def test_unknown_lag_is_null(api: Api) -> None:
    api.service.story = stories.without_heard(stories.without_heard(healthy(), 2), 3)
    assert api.get("/cluster/health").data["replication_lag_ms"] is None
    node = api.get("/nodes/2").data
    unknown = ("replication_lag_ms", "replication_lag_bytes", "last_seen", "timeline", "lsn")
    assert [node[name] for name in unknown] == [None] * len(unknown)
    assert (node["state"], node["role"], node["trouble"]) == ("unknown", "replica", "never heard")


def test_cluster_status(api: Api) -> None:
    data = api.get("/cluster/status").data
    nodes = data.pop("nodes")
    assert [node["id"] for node in nodes] == [1, 2, 3]
    assert data == {
        "cluster_id": "c0ffee",
        "cluster_name": "demo",
        "node_count": 3,
        "healthy_nodes": 3,
        "primary_node_id": 1,
        "leader_node_id": 2,
        "has_quorum": True,
        "auto_failover_enabled": True,
        "synchronous_replication": False,
        "last_topology_change": "2023-11-14T22:13:20.000Z",
        "epoch": 1,
        "timeline": 1,
        "term": 3,
        "failover_count": 0,
        "authentication": "trust",
        "cluster_status": "healthy",
        "reason": "primary node1 accepts writes, 2 of 2 replicas stream",
        "system_id": "7400",
        "sync": {
            "mode": "auto",
            "synchronous": False,
            "waits_for": "nobody",
            "required": 0,
            "generation": 0,
            "changing_to": None,
            "proven": True,
            "obstacle": "",
        },
        "last_decision": {
            "epoch": 1,
            "rule": "first_primary",
            "action": "grant",
            "reason": "first primary: node1",
            "details": ["node1: lowest id"],
            "actor": "policy",
            "at": "2023-11-14T22:13:20.000Z",
            "phases": [],
        },
    }


def test_the_last_decision_is_the_last_that_changed_something(api: Api) -> None:
    story = healthy()
    acted = story.state.decisions[-1]
    held = replace(acted, rule="primary_opening", action="Hold")
    state = replace(story.state, decisions=(acted, held))
    api.service.story = replace(story, state=state)
    assert api.get("/cluster/status").data["last_decision"]["rule"] == "first_primary"
    api.service.story = replace(story, state=replace(story.state, decisions=(held,)))
    assert api.get("/cluster/status").data["last_decision"]["rule"] == "primary_opening"


def test_status_without_quorum_names_no_coordinator(api: Api) -> None:
    api.service.story = stories.without_quorum(healthy())
    data = api.get("/cluster/status").data
    assert (data["cluster_status"], data["has_quorum"]) == ("critical", False)
    assert data["leader_node_id"] is None


def test_node(api: Api) -> None:
    data = api.get("/nodes/3").data
    moving = {data.pop("last_seen"), data.pop("uptime_seconds")}
    assert None not in moving
    assert data == {
        "id": 3,
        "name": "node3",
        "hostname": "127.0.0.1",
        "port": 5434,
        "role": "replica",
        "state": "running",
        "priority": 50,
        "replication_lag_ms": 250,
        "postgresql_version": "18.0",
        "replication_lag_bytes": 4096,
        "timeline": 1,
        "lsn": "0/2FFFF000",
        "http_port": 8010,
        "raft_port": 7402,
        "is_leader": False,
        "nofailover": False,
        "activity": "",
        "healthy": True,
        "trouble": "",
        "last_seen_age_ms": 100,
        "upstream_node_id": 1,
        "vote": None,
        "leaving": False,
        "reinit": False,
        "fence": "extension",
        "fenced": True,
    }


@pytest.mark.parametrize(("selector", "node_id"), [("primary", 1), ("replica2", 3), ("node2", 2)])
def test_node_by_selector(api: Api, selector: str, node_id: int) -> None:
    assert api.get(f"/nodes/{selector}").data["id"] == node_id


def test_own_node(api: Api) -> None:
    api.service.story = healthy(me=2)
    assert api.get("/node/info").data["id"] == 2


@pytest.mark.parametrize("selector", ["9", "nobody", "replica3", "%00", "node1%20", "-1"])
def test_unknown_node(api: Api, selector: str) -> None:
    answer = api.get(f"/nodes/{selector}")
    assert (answer.status, answer.body["error"]) == (404, "not_found")
    assert answer.body["details"]["field"] == "node_id"


def test_openapi_describes_what_is_served(api: Api) -> None:
    document = api.get("/openapi.json").body
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described == {
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/cluster/health"),
        ("GET", "/api/v1/cluster/status"),
        ("GET", "/api/v1/replication/sync"),
        ("POST", "/api/v1/replication/sync"),
        ("GET", "/api/v1/sync-standbys/status"),
        ("POST", "/api/v1/sync-standbys/add"),
        ("POST", "/api/v1/sync-standbys/remove"),
        ("GET", "/api/v1/nodes"),
        ("GET", "/api/v1/nodes/{node_id}"),
        ("POST", "/api/v1/cluster/create"),
        ("POST", "/api/v1/cluster/destroy"),
        ("POST", "/api/v1/cluster/failover"),
        ("POST", "/api/v1/cluster/promote"),
        ("POST", "/api/v1/cluster/demote"),
        ("GET", "/api/v1/cluster/decisions"),
        ("GET", "/api/v1/cluster/explain"),
        ("POST", "/api/v1/cluster/add-node"),
        ("POST", "/api/v1/cluster/remove-node"),
        ("POST", "/api/v1/cluster/add-voter"),
        ("POST", "/api/v1/nodes/{node_id}/reinit"),
        ("GET", "/api/v1/quorum/status"),
        ("POST", "/api/v1/quorum/recover"),
    }
    create = document["paths"]["/api/v1/cluster/create"]["post"]
    body = create["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"num_nodes", "primary_port", "replica_ports"}
    assert set(create["responses"]) == {"201", "default"}
    assert "422" not in str(document["paths"])
