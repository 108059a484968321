"""HTTPS: what a client sees, what ramctrl says, and a certificate renewed under way."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramd.api.serve import ApiServer, MetricsPlace
from ramd.api.tls import ServerTls
from ramd.config.tls import TlsPaths
from tests.api.harness import FakeService, control_loop, serving
from tests.support.tls_files import Authority, in_days
from tests.support.wait import wait_for
from tests.unit.ramctrl.cli import ramctrl


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@contextmanager
def secured(files: TlsPaths) -> Iterator[ApiServer]:
    """The API and the metrics' own port, by HTTPS."""
    with control_loop() as loop:
        server = ApiServer(
            FakeService(),
            control_loop=loop,
            bind="127.0.0.1",
            port=0,
            metrics=MetricsPlace(bind="127.0.0.1", port=0, path="/metrics"),
            tls=ServerTls(files.cert, files.key),
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


def get(port: int, path: str, ca_file: Path) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(ca_file))
    link = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def serial_shown(port: int, ca_file: Path) -> str:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(ca_file))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = secure.getpeercert()
    assert shown
    return str(shown["serialNumber"])


def test_rest_checks_and_metrics_are_served_by_https_alone(authority: Authority) -> None:
    with secured(authority.issue("node1")) as server:
        assert get(server.port, "/api/v1/health", authority.file)[0] == 200
        assert get(server.port, "/primary", authority.file)[0] == 200
        assert b"ramd_primary" in get(server.metrics_port or 0, "/metrics", authority.file)[1]
        plain = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        plain.request("GET", "/primary")
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()
        plain.close()


def test_ramctrl_asks_by_https(authority: Authority) -> None:
    with secured(authority.issue("node1")) as server:
        port = str(server.port)
        assert (
            ramctrl("cluster", "status", "--port", port, "--ca-file", str(authority.file)).code == 0
        )
        url = f"https://localhost:{port}"
        Path("ramctrl.conf").write_text(f"ssl_ca_file = {authority.file}\nmax_retries = 0\n")
        assert ramctrl("nodes", "list", "-u", url).code == 0
        Path("ramctrl.conf").write_text("ssl_enabled = on\nverify_ssl = off\nmax_retries = 0\n")
        unchecked = ramctrl("status", "--port", port)
        assert unchecked.code == 0
        assert "whoever answers is taken for the daemon" in unchecked.err


def test_ramctrl_says_why_there_is_no_tls(authority: Authority, tmp_path: Path) -> None:
    Path("ramctrl.conf").write_text("max_retries = 0\n")
    other = Authority(tmp_path / "other")
    with secured(authority.issue("node1")) as server:
        port = str(server.port)
        stranger = ramctrl("status", "--port", port, "--ca-file", str(other.file))
        assert stranger.code == 7
        assert "is not accepted: unable to get local issuer certificate" in stranger.err
        assert "ssl_ca_file names the authority" in stranger.err
        plain = ramctrl("status", "--port", port)
        assert plain.code in (7, 10)
    with secured(authority.issue("elsewhere", "db9.example.org")) as server:
        named = ramctrl("status", "--port", str(server.port), "--ca-file", str(authority.file))
        assert "IP address mismatch" in named.err
    with serving() as api:
        silent = ramctrl("status", "--port", str(api.port), "--ca-file", str(authority.file))
        assert silent.code == 10
        assert "does the daemon there have ssl_enabled" in silent.err
    missing = ramctrl("status", "--ca-file", str(tmp_path / "none"))
    assert missing.code == 2
    assert "ssl_ca_file" in missing.err


def test_a_renewed_certificate_is_shown_to_new_connections(authority: Authority) -> None:
    first = authority.issue("node1")
    with secured(first) as server:
        before = serial_shown(server.port, authority.file)
        kept = http.client.HTTPSConnection(
            "127.0.0.1",
            server.port,
            timeout=30,
            context=ssl.create_default_context(cafile=str(authority.file)),
        )
        kept.request("GET", "/primary")
        kept.getresponse().read()
        renewed = authority.issue("node1", not_after=in_days(50))
        assert server.renew_certificate(renewed.cert, renewed.key)
        wait_for(
            lambda: serial_shown(server.port, authority.file) != before, 30, "another certificate"
        )
        assert serial_shown(server.metrics_port or 0, authority.file) != before
        kept.request("GET", "/primary")  # on the connection of before
        assert kept.getresponse().status == 200
        kept.close()


def test_who_never_shakes_hands_is_let_go(authority: Authority) -> None:
    with (
        secured(authority.issue("node1")) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent,
    ):
        assert silent.recv(1) == b"", "closed by the server, in less than asyncio's minute"


def test_without_tls_there_is_nothing_to_renew() -> None:
    with serving() as api:
        assert not api.server.renew_certificate(Path("/x"), Path("/y"))
