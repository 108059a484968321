"""POST under /api/v1: what reaches the service, on which thread, and what comes of deadlines."""

import http.client
import logging
import socket
from collections.abc import Iterator

import pytest

from ramd.api.limits import Limits
from ramd.domain.errors import OutcomeUnknown, PostgresError, Refused, Unavailable
from ramd.domain.service import CreateRequest, DestroyRequest, FailoverRequest
from tests.api import stories
from tests.api.harness import Api, serving
from tests.api.stories import healthy
from tests.support.wait import wait_for


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    service = served.service
    service.story = healthy()
    service.fails = service.hold = None
    service.asked.clear()
    service.threads.clear()
    service.begun.clear()
    service.ended.clear()
    return served


def test_create(api: Api) -> None:
    body = {
        "num_nodes": 3,
        "primary_port": 6000,
        "replica_ports": [6001, 6002],
        "data_dir": "/srv/pg",
        "log_dir": "/var/log/pg",
    }
    answer = api.post("/cluster/create", body)
    assert answer.status == 201
    assert answer.data == {
        "cluster_id": "c0ffee",
        "cluster_name": "demo",
        "nodes_created": 3,
        "primary_node": 1,
        "replica_nodes": [2, 3],
        "primary_address": "127.0.0.1:5432",
        "replica_addresses": ["127.0.0.1:5433", "127.0.0.1:5434"],
    }
    assert api.service.asked == [
        CreateRequest(
            num_nodes=3,
            primary_port=6000,
            replica_ports=(6001, 6002),
            data_dir="/srv/pg",
            log_dir="/var/log/pg",
            actor="api 127.0.0.1",
        )
    ]


def test_create_needs_no_cluster_and_no_content_type(api: Api) -> None:
    api.service.story = stories.clusterless()
    answer = api.post("/cluster/create", raw=b'{"num_nodes": 1}')
    assert answer.status == 201
    assert answer.data["replica_nodes"] == []


def test_writes_run_on_the_control_loop(api: Api) -> None:
    api.post("/cluster/failover")
    assert api.service.threads == {"control"}


def test_failover_without_a_body_leaves_the_choice(api: Api) -> None:
    answer = api.post("/cluster/failover")
    assert answer.status == 200
    assert answer.data == {
        "failover_triggered": True,
        "old_primary": 1,
        "new_primary": 2,
        "failover_time_ms": 412,
        "epoch": 2,
        "outage_ms": None,
        "phases": [],
    }
    assert api.service.asked == [FailoverRequest(target=None, actor="api 127.0.0.1")]


@pytest.mark.parametrize(("target", "node_id"), [(3, 3), ("node3", 3), ("replica1", 2)])
def test_failover_to_a_node(api: Api, target: object, node_id: int) -> None:
    assert api.post("/cluster/failover", {"target_node": target}).data["new_primary"] == node_id
    assert api.service.asked == [FailoverRequest(target=node_id, actor="api 127.0.0.1")]


def test_failover_to_nobody(api: Api) -> None:
    answer = api.post("/cluster/failover", {"target_node": 7})
    assert (answer.status, answer.body["details"]["field"]) == (404, "target_node")
    assert api.service.asked == []


@pytest.mark.parametrize(
    ("path", "target"),
    [("/failover", None), ("/cluster/switchover", None), ("/cluster/failover/3", 3)],
)
def test_other_spellings_of_failover(api: Api, path: str, target: int | None) -> None:
    assert api.post(path).status == 200
    assert api.service.asked == [FailoverRequest(target=target, actor="api 127.0.0.1")]


def test_destroy(api: Api) -> None:
    answer = api.post("/cluster/destroy")
    assert answer.data == {
        "cluster_destroyed": True,
        "nodes_stopped": 2,
        "data_removed": False,
        "cluster_name": "demo",
        "nodes_silent": [3],
        "kept_aside": ["/data/node1.aside"],
    }
    assert api.service.asked == [DestroyRequest(actor="api 127.0.0.1")]


def test_destroy_with_the_data(api: Api) -> None:
    body = {"remove_data": True, "cluster_name": "demo"}
    assert api.post("/cluster/destroy", body).data["data_removed"] is True
    wanted = DestroyRequest(remove_data=True, cluster_name="demo", actor="api 127.0.0.1")
    assert api.service.asked == [wanted]


@pytest.mark.parametrize("path", ["/cluster/destroy", "/cluster/failover", "/failover"])
def test_without_a_cluster_nothing_is_asked(api: Api, path: str) -> None:
    api.service.story = stories.clusterless()
    answer = api.post(path)
    assert (answer.status, answer.body["error"]) == (409, "no_cluster")
    assert api.service.asked == []


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (Refused("there is one", code="cluster_exists", hint="destroy it"), 409, {}),
        (Unavailable("no majority", code="no_quorum"), 503, {"retry-after": "1"}),
        (OutcomeUnknown("who knows"), 503, {}),
        (PostgresError("initdb: no space"), 500, {}),
    ],
)
def test_errors_of_the_service_keep_their_code(
    api: Api, error: Exception, status: int, headers: dict[str, str]
) -> None:
    api.service.fails = error
    answer = api.post("/cluster/create", {"num_nodes": 3})
    assert (answer.status, answer.body["code"]) == (status, status)
    assert answer.body["error"] == getattr(error, "code", None)
    assert answer.body["message"] == str(error)
    assert answer.body["hint"] == getattr(error, "hint", None)
    assert headers.items() <= answer.headers.items()


def test_a_bug_gets_an_id_that_the_log_has_too(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.service.fails = ZeroDivisionError("secret detail")
    with caplog.at_level(logging.ERROR):
        answer = api.post("/cluster/create", {"num_nodes": 3})
    assert (answer.status, answer.body["error"]) == (500, "internal")
    assert "secret" not in str(answer.body)
    error_id = answer.body["message"].removeprefix("internal error ")
    assert error_id in caplog.text
    assert "secret detail" in caplog.text


def test_a_slow_write_blocks_no_read(api: Api) -> None:
    release = api.hold_writes()
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    try:
        connection.request("POST", "/api/v1/cluster/failover")
        assert api.service.begun.wait(10)
        for _ in range(20):
            assert api.get("/cluster/status").status == 200
            assert api.ask("GET", "/primary").status == 200
        assert not api.service.ended.is_set()
        release()
        assert connection.getresponse().status == 200
    finally:
        release()
        connection.close()


def test_a_client_that_goes_away_stops_nothing(api: Api) -> None:
    release = api.hold_writes()
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(b"POST /api/v1/cluster/failover HTTP/1.1\r\nHost: x\r\n\r\n")
        assert api.service.begun.wait(10)
    assert api.get("/health").status == 200  # the server has seen the connection end by then
    release()
    assert api.service.ended.wait(10)


def test_a_deadline_that_passes_is_an_unknown_outcome(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ramd.api.dispatch.GRACE_S", 0.1)
    with serving(limits=Limits(failover_timeout_s=0.2)) as api, caplog.at_level(logging.INFO):
        release = api.hold_writes()
        answer = api.post("/cluster/failover")
        assert (answer.status, answer.body["error"]) == (503, "unknown_outcome")
        assert not api.service.ended.is_set()
        release()
        assert api.service.ended.wait(10), "it went on after the deadline"
        wait_for(
            lambda: "failover succeeded after its deadline" in caplog.text,
            10,
            "the log says what became of it",
        )


def test_too_many_writes_at_once(api: Api) -> None:
    with serving(limits=Limits(writes_max=1)) as small:
        release = small.hold_writes()
        connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=30)
        try:
            connection.request("POST", "/api/v1/cluster/failover")
            assert small.service.begun.wait(10)
            answer = small.post("/cluster/failover")
            assert (answer.status, answer.body["error"]) == (409, "busy")
            release()
            assert connection.getresponse().status == 200
            assert small.post("/cluster/failover").status == 200
        finally:
            release()
            connection.close()


def test_after_the_control_loop_has_gone_writes_are_refused_and_reads_go_on() -> None:
    with serving() as api:
        loop = api.loop
        loop.call_soon_threadsafe(loop.stop)
        wait_for(lambda: not loop.is_running(), 10, "the control loop stops")
        loop.close()
        answer = api.post("/cluster/failover")
        assert (answer.status, answer.body["error"]) == (503, "unavailable")
        assert api.get("/nodes").status == 200
