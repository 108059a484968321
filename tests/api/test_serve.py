"""The server itself: ports, threads, starting and stopping."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from ramd.api.serve import ApiServer
from ramd.domain.errors import ConfigError, RamdError, Refused
from tests.api.harness import FakeService, control_loop, serving
from tests.support.ports import free_port
from tests.support.wait import wait_for

RSS_MB_MAX = 90


def test_a_port_in_use_names_port_and_owner() -> None:
    with serving() as api, control_loop() as loop:
        server = ApiServer(FakeService(), control_loop=loop, bind="127.0.0.1", port=api.port)
        with pytest.raises(
            Refused, match=rf"http_port {api.port} on 127.0.0.1 is in use"
        ) as raised:
            server.start()
        assert raised.value.code == "port_in_use"
        assert f"(pid {os.getpid()})" in raised.value.message
        assert raised.value.field == "http_port"
        assert not server.alive
        assert api.get("/health").status == 200


@pytest.mark.parametrize("bind", ["192.0.2.7", "no such host"])
def test_an_address_of_another_host_is_a_fault_of_the_configuration(bind: str) -> None:
    with control_loop() as loop:
        server = ApiServer(FakeService(), control_loop=loop, bind=bind, port=free_port())
        with pytest.raises(ConfigError) as raised:
            server.start()
    assert raised.value.field == "http_bind_address"
    assert bind in raised.value.message


def test_port_zero_takes_a_free_one() -> None:
    with control_loop() as loop:
        server = ApiServer(FakeService(), control_loop=loop, bind="127.0.0.1", port=0)
        server.start()
        try:
            assert server.port > 0
            socket.create_connection(("127.0.0.1", server.port), timeout=10).close()
        finally:
            server.stop()


def test_who_asks_before_it_is_served_is_answered_then() -> None:
    with control_loop() as loop:
        server = ApiServer(FakeService(), control_loop=loop, bind="127.0.0.1", port=0)
        server.bind()
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                client.sendall(b"GET /liveness HTTP/1.0\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            server.await_served()
        finally:
            server.stop()


def test_stop_before_it_is_served_ends_the_thread() -> None:
    with control_loop() as loop:
        server = ApiServer(FakeService(), control_loop=loop, bind="127.0.0.1", port=0)
        server.bind()
        server.stop()
        assert not server.alive
        wait_for(lambda: not http_threads(), 60, "the thread has ended")
        with pytest.raises(RamdError, match="did not start"):
            server.await_served()


def http_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ramd-http"]


def test_ipv6() -> None:
    with control_loop() as loop:
        server = ApiServer(FakeService(), control_loop=loop, bind="::1", port=0)
        server.start()
        try:
            socket.create_connection(("::1", server.port), timeout=10).close()
        finally:
            server.stop()


def test_stop_frees_port_and_thread_and_may_be_repeated() -> None:
    before = threading.active_count()
    with serving() as api:
        port = api.port
        assert lives(api.server)
        api.server.stop()
        assert not lives(api.server)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        api.server.stop()
    assert threading.active_count() == before
    with serving(port=port) as again:
        assert again.get("/health").status == 200


def lives(server: ApiServer) -> bool:
    return server.alive


def test_stop_waits_no_longer_than_it_says_for_a_write_under_way() -> None:
    with serving() as api:
        release = api.hold_writes()
        client = socket.create_connection(("127.0.0.1", api.port), timeout=10)
        try:
            client.sendall(b"POST /api/v1/cluster/failover HTTP/1.1\r\nHost: x\r\n\r\n")
            assert api.service.begun.wait(10)
            began = time.monotonic()
            api.server.stop()
            assert time.monotonic() - began < 15
            assert not api.server.alive
            assert not api.service.ended.is_set()
            release()
            assert api.service.ended.wait(10), "the write itself was not stopped"
        finally:
            client.close()


def test_a_busy_api_delays_the_control_loop_little() -> None:
    """Reads run on the other thread: while they are served, the control loop keeps turning."""
    with serving() as api:
        turns: list[float] = []

        def turn() -> None:
            turns.append(time.monotonic())
            api.loop.call_later(0.01, turn)

        api.loop.call_soon_threadsafe(turn)
        began = time.monotonic()
        for _ in range(150):
            assert api.get("/cluster/status").status == 200
        took_s = time.monotonic() - began
        assert len(turns) > took_s / 0.01 / 10


def test_requests_are_logged_at_debug_only(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as api:
        with caplog.at_level(logging.INFO):
            api.get("/nodes/primary")
        assert "/nodes/primary" not in caplog.text
        with caplog.at_level(logging.DEBUG, logger="ramd.api.access"):
            api.get("/nodes/nobody")
            # The line is written after the answer has left.
            wanted = "GET /api/v1/nodes/nobody 404"
            wait_for(lambda: wanted in caplog.text, 10, "the request is logged")


def test_memory_of_the_api_alone() -> None:
    """The whole daemon has 100 MB; the API with everything it imports stays well below."""
    code = (
        "from tests.api.harness import serving\n"
        "with serving() as api:\n"
        "    for _ in range(50): api.get('/cluster/status')\n"
        "    print(open('/proc/self/statm').read().split()[1])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(run.stdout) * os.sysconf("SC_PAGE_SIZE") / 2**20 < RSS_MB_MAX
