"""What is refused before any route: strangers, bad bodies, too much of anything."""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from ramd.api.limits import Auth, Limits
from ramd.domain.errors import CODES, ConfigError
from tests.api.harness import Api, serving

TOKEN = "correct-horse-battery"
LIMITS = Limits(body_bytes_max=2_000, request_timeout_s=0.5)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving(limits=LIMITS) as served:
        yield served


@pytest.fixture(scope="module")
def locked() -> Iterator[Api]:
    with serving(token=TOKEN) as served:
        yield served


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN} {TOKEN}",
        "Bearer é",
    ],
)
def test_strangers_get_nothing(locked: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("GET", "/health"), ("POST", "/cluster/destroy"), ("GET", "/nothing")):
        answer = locked.ask(method, f"/api/v1{path}", headers=headers)
        assert (answer.status, answer.body["error"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.service.asked == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_opens(locked: Api, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    assert locked.get("/health", headers=headers).status == 200
    assert locked.get("/openapi.json", headers=headers).status == 200


@pytest.mark.parametrize("token", ["", " "])
def test_an_empty_token_is_no_open_door(token: str) -> None:
    with pytest.raises(ConfigError, match="needs a token"):
        Auth(token=token)


def test_a_stranger_is_refused_before_the_body_is_read(locked: Api) -> None:
    with socket.create_connection(("127.0.0.1", locked.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/cluster/create HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"
        )
        answer = end_of(client)
    assert b" 401 " in answer
    assert b"connection: close" in answer


BAD_BODIES = [
    (b"{", "bad_request", None),
    (b"[]", "bad_request", None),
    (b'"text"', "bad_request", None),
    (b"null", "bad_request", None),
    (b"\xff\xfe", "bad_request", None),
    (b"num_nodes=3", "bad_request", None),
    (b"", "invalid_field", "num_nodes"),
    (b"{}", "invalid_field", "num_nodes"),
    (b'{"num_nodes": 0}', "invalid_field", "num_nodes"),
    (b'{"num_nodes": 10}', "invalid_field", "num_nodes"),
    (b'{"num_nodes": "3"}', "invalid_field", "num_nodes"),
    (b'{"num_nodes": 3.5}', "invalid_field", "num_nodes"),
    (b'{"num_nodes": true}', "invalid_field", "num_nodes"),
    (b'{"num_nodes": 3, "node_count": 3}', "invalid_field", "node_count"),
    (b'{"num_nodes": 2, "replica_ports": [99999]}', "invalid_field", "replica_ports[0]"),
    (b'{"num_nodes": 3, "replica_ports": [6001]}', "invalid_field", "replica_ports"),
    (b'{"num_nodes": 1, "data_dir": "relative"}', "invalid_field", "data_dir"),
]


@pytest.mark.parametrize(("body", "code", "field"), BAD_BODIES)
def test_bad_bodies_name_the_culprit(api: Api, body: bytes, code: str, field: str | None) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.post("/cluster/create", raw=body, headers=headers)
    assert (answer.status, answer.body["error"]) == (400, code)
    details = answer.body["details"] or {}
    assert details.get("field") == field
    assert api.service.asked == []


def test_deep_json_is_refused_not_fatal(api: Api) -> None:
    answer = api.post("/cluster/create", raw=b'{"num_nodes":' + b"[" * 900 + b"]" * 900 + b"}")
    assert answer.status == 400
    assert api.get("/health").status == 200


def test_a_body_at_the_limit_is_read(api: Api) -> None:
    body = json.dumps({"num_nodes": 99}).encode().ljust(LIMITS.body_bytes_max)
    assert api.post("/cluster/create", raw=body).body["error"] == "invalid_field"


def test_a_large_body_is_refused(api: Api) -> None:
    answer = api.post("/cluster/create", raw=b"x" * (LIMITS.body_bytes_max + 1))
    assert (answer.status, answer.body["error"]) == (413, "too_large")
    assert "http_max_request_size" in answer.body["hint"]


def test_a_large_body_in_chunks_is_refused(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/cluster/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(3):
            client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert b" 413 " in client.recv(4096)


def test_an_enormous_body_is_not_read_to_its_end(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/cluster/create HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n"
        )
        sent = 0
        client.settimeout(10)
        try:
            while sent < 64 << 20:
                sent += client.send(b"x" * 65536)
        except ConnectionError:
            pass
        assert sent < 64 << 20
    assert api.get("/health").status == 200


def test_a_body_that_does_not_arrive_ends_in_time(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(
            b"POST /api/v1/cluster/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        )
        answer = end_of(client)
    assert b" 400 " in answer
    assert b"did not arrive" in answer


def test_a_head_that_does_not_arrive_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ramd.api.connection.HEAD_TIMEOUT_S", 0.2)
    with serving() as api:
        for sent in (b"", b"GET /health HTTP/1.1\r\nHost:"):
            with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
                began = time.monotonic()
                client.sendall(sent)
                assert end_of(client) == b""
                assert time.monotonic() - began < 5
        assert api.get("/health").status == 200


def test_a_head_without_end_is_refused(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        received = b""
        try:
            for number in range(200):
                client.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
            received = end_of(client)
        except ConnectionError:
            pass
        assert received == b"" or b" 400 " in received
    assert api.get("/health").status == 200


def test_newcomers_beyond_the_limit_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramd.api.connection.CONNECTIONS_MAX", 2)
    with serving() as api:
        idle = [socket.create_connection(("127.0.0.1", api.port), timeout=10) for _ in range(2)]
        try:
            idle[1].sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in idle[1].recv(4096)
            with socket.create_connection(("127.0.0.1", api.port), timeout=10) as third:
                assert end_of(third) == b""
        finally:
            for client in idle:
                client.close()


def end_of(client: socket.socket) -> bytes:
    """What comes until the server ends the connection, however it does."""
    received = b""
    try:
        while part := client.recv(4096):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/v1/nodes/", 404, "not_found"),
        ("GET", "/api/v1", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
        ("GET", "/api/v1/../health", 404, "not_found"),
        ("GET", "/api/v1/cluster/create", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/nodes/1", 405, "method_not_allowed"),
        ("PUT", "/api/v1/cluster/destroy", 405, "method_not_allowed"),
    ],
)
def test_unknown_routes_and_methods(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    answer = api.ask(method, path)
    assert (answer.status, answer.body["error"]) == (status, code)
    assert set(answer.body) == {
        "status", "code", "error", "message", "hint", "data", "details", "obstacles",
        "timestamp"
    }  # fmt: skip
    assert answer.body["status"] == "error"
    if status == 405:
        assert answer.headers["allow"]


def test_garbage_is_not_http(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert b" 400 " in client.recv(4096)
    assert api.get("/health").status == 200


def test_every_code_has_an_http_status_for_its_kind() -> None:
    assert all(400 <= code.http_status <= 599 for code in CODES.values())
