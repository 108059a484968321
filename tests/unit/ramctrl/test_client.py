"""The client against servers that answer wrongly, late, or not at all."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramctrl.client import ApiError, Client
from ramctrl.settings import Settings
from ramd.domain.errors import OutcomeUnknown, PeerError, Unavailable
from tests.support.ports import free_port
from tests.unit.ramctrl.cli import ramctrl

OK = {"status": "success", "code": 200, "message": "", "data": {}, "timestamp": ""}


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def server_saying(*answers: bytes | None) -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives one answer per connection (None: reads and hangs up), and what it got."""
    got: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        for answer in answers:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(20)
                got.append(client.recv(65536))
                if answer is not None:
                    client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept, as closing would not
        thread.join(20)
        listener.close()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def client(port: int, **more: object) -> Client:
    return Client(Settings(port=port, **more))  # type: ignore[arg-type]


def test_nobody_there_names_the_address_and_what_to_check() -> None:
    port = free_port()
    with pytest.raises(Unavailable, match=f"http://127.0.0.1:{port}: connection refused") as raised:
        client(port).get("/health")
    assert raised.value.code == "unreachable"
    assert "http_bind_address" in raised.value.hint


def test_nobody_there_for_a_write_either_is_no_unknown_outcome() -> None:
    with pytest.raises(Unavailable):
        client(free_port()).post("/cluster/failover", {})


def test_an_unknown_host() -> None:
    with pytest.raises(Unavailable, match=r"no-such-host\.invalid"):
        Client(Settings(host="no-such-host.invalid")).get("/health")


def test_request_as_it_is_sent() -> None:
    answer = http(json.dumps(OK).encode())
    with server_saying(answer, answer) as (port, got):
        assert client(port, token="tok").post("/cluster/create", {"num_nodes": 3}) == OK
        assert client(port).get("/health") == OK
    assert got[0].startswith(b"POST /api/v1/cluster/create HTTP/1.1\r\n")
    assert b"Authorization: Bearer tok\r\n" in got[0]
    assert got[1].startswith(b"GET /api/v1/health HTTP/1.1\r\n")
    assert b"Authorization" not in got[1]


def test_a_read_without_an_answer_is_tried_again() -> None:
    answer = http(json.dumps(OK).encode())
    with server_saying(None, None, answer) as (port, got):
        assert client(port, retries_max=2, retry_delay_s=0.01).get("/health") == OK
    assert len(got) == 3


def test_a_read_is_not_tried_for_ever() -> None:
    with server_saying(None, None, None) as (port, got):
        with pytest.raises(Unavailable, match="did not answer"):
            client(port, retries_max=1, retry_delay_s=0.01).get("/health")
        assert len(got) == 2


def test_a_write_without_an_answer_is_unknown_and_never_sent_twice() -> None:
    with server_saying(None, None) as (port, got):
        with pytest.raises(OutcomeUnknown) as raised:
            client(port, retries_max=5, retry_delay_s=0.01).post("/cluster/failover", {})
        assert len(got) == 1
    assert "cluster status" in raised.value.hint


def test_an_answer_that_comes_too_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(OutcomeUnknown, match="timed out"):
            client(port, write_timeout_s=0.1).post("/cluster/failover", {})
        with pytest.raises(Unavailable, match="timed out"):
            client(port, read_timeout_s=0.1).get("/health")


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"status": "up"}', b"\xff", b""], ids=repr
)
def test_something_else_answers(body: bytes) -> None:
    with server_saying(http(body)) as (port, _), pytest.raises(PeerError, match="not a RAMD"):
        client(port).get("/health")


def test_not_even_http() -> None:
    with server_saying(b"220 ready\r\n") as (port, _), pytest.raises(Unavailable):
        client(port).get("/health")


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        ({"code": 409, "error": "no_cluster", "message": "none"}, "no_cluster"),
        ({"code": 401, "message": "no"}, "unauthorized"),
        ({"code": 503, "error": "of_a_later_version", "message": "no"}, "no_quorum"),
        ({"code": 599, "message": "no"}, "internal"),
    ],
)
def test_errors_keep_their_code_or_find_one(envelope: dict[str, object], code: str) -> None:
    body = json.dumps({"status": "error", "hint": "do it", **envelope}).encode()
    with server_saying(http(body, "418 Teapot")) as (port, _), pytest.raises(ApiError) as raised:
        client(port).get("/nodes")
    assert (raised.value.code, raised.value.hint) == (code, "do it")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [("no_cluster", 5), ("unauthorized", 3), ("unknown_outcome", 9), ("postgres", 6)],
)
def test_exit_codes_of_errors(error: str, exit_code: int) -> None:
    envelope = {"status": "error", "code": 500, "error": error, "message": "m", "hint": "h"}
    with server_saying(http(json.dumps(envelope).encode())) as (port, _):
        ran = ramctrl("nodes", "list", "--port", str(port))
    assert (ran.code, ran.out, ran.err) == (exit_code, "", "error: m\nhint: h\n")


def test_machines_get_the_error_on_standard_output_too() -> None:
    envelope = {"status": "error", "code": 409, "error": "no_cluster", "message": "m", "hint": ""}
    with server_saying(http(json.dumps(envelope).encode())) as (port, _):
        ran = ramctrl("nodes", "list", "--json", "--port", str(port))
    assert json.loads(ran.out) == envelope
    assert ran.err == "error: m\n"


def test_no_daemon_is_exit_code_10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramctrl.client.time.sleep", lambda _: None)
    port = free_port()
    ran = ramctrl("--port", str(port), "cluster", "status")
    assert ran.code == 10
    assert f"http://127.0.0.1:{port}" in ran.err
    assert "hint: is ramd running there" in ran.err
