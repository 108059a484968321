"""A cluster of three that speaks TLS everywhere: formed, asked, renewed, closed to strangers."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ramd.config.tls import TlsPaths
from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    event,
    make_table,
    primary_of,
    same_everywhere,
    write,
)
from tests.support.tls_files import Authority, in_days
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    place = tmp_path_factory.mktemp("tls")
    place.chmod(0o711)
    return Authority(place)


@pytest.fixture(scope="module")
def files(authority: Authority) -> TlsPaths:
    """One certificate for every node of this host."""
    return authority.issue("nodes")


@pytest.fixture(scope="module")
def cluster(clusters: Clusters, authority: Authority, files: TlsPaths) -> Iterator[LocalCluster]:
    """Three nodes with TLS, whose API is asked by HTTPS."""
    context = ssl.create_default_context(cafile=str(authority.file))

    class Https(http.client.HTTPSConnection):
        def __init__(self, *where: Any, **more: Any) -> None:
            super().__init__(*where, context=context, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http.client, "HTTPConnection", Https)
        settings: dict[str, object] = {
            "ssl_enabled": True,
            "ssl_cert_file": files.cert,
            "ssl_key_file": files.key,
            "ssl_ca_file": files.ca,
        }
        made = clusters.make(settings=settings)
        made.start()
        made.create(len(NODES))
        made.wait_healthy(HEAL_S)
        make_table(made)
        yield made


def metrics(cluster: LocalCluster, node: int, ca_file: Path) -> str:
    """What Prometheus gets from a node's own port."""
    context = ssl.create_default_context(cafile=str(ca_file))
    port = cluster.ports.prometheus + node - 1
    link = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        link.request("GET", "/metrics")
        return link.getresponse().read().decode()
    finally:
        link.close()


def refusals(cluster: LocalCluster, node: int) -> dict[str, int]:
    code, answer = cluster.api(node, "GET", "/quorum/status")
    return dict(answer["data"]["connections_refused"]) if code == 200 else {}


def serial_of(port: int, ca_file: Path) -> str:
    context = ssl.create_default_context(cafile=str(ca_file))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        shown = secure.getpeercert()
    assert shown
    return str(shown["serialNumber"])


def shows_another(port: int, ca_file: Path, serial: str) -> bool:
    """New connections are shown another certificate than that one."""
    return serial_of(port, ca_file) != serial


def says(cluster: LocalCluster, node: int, words: str) -> bool:
    """A node's daemon has said so."""
    places = (cluster.places.log(node), cluster.places.output(node))
    return any(words in p.read_text(errors="replace") for p in places if p.exists())


def reload(cluster: LocalCluster, node: int) -> None:
    pid = cluster.processes.daemon_pid(node)
    assert pid is not None
    os.kill(pid, signal.SIGHUP)


def test_it_works_as_any_cluster_does(cluster: LocalCluster, authority: Authority) -> None:
    rows = write(cluster, range(1, 11))
    same_everywhere(cluster, rows)
    url = f"https://127.0.0.1:{cluster.ports.http}"
    command = [sys.executable, "-m", "ramctrl", "quorum", "status", "-u", url]
    ran = subprocess.run(
        [*command, "--ca-file", str(authority.file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert "3/3 voters in touch" in ran.stdout


def test_every_node_has_metrics_on_a_port_of_its_own(
    cluster: LocalCluster, authority: Authority
) -> None:
    primary = primary_of(cluster)
    for node in NODES:
        text = metrics(cluster, node, authority.file)
        assert "\nramd_cluster_nodes_total 3.0\n" in text
        assert f"\nramd_primary {1.0 if node == primary else 0.0}\n" in text
        assert "\nramd_tls_certificate_expiry_timestamp_seconds" in text


def heard(cluster: LocalCluster, context: ssl.SSLContext) -> bytes:
    """What node 1's peer port says to a TLS client that has proven nothing."""
    with (
        socket.create_connection(("127.0.0.1", cluster.ports.raft), timeout=30) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(b"x")
        return secure.recv(100)


@pytest.mark.parametrize("shown", ["nothing", "another authority's"])
def test_a_stranger_at_the_peer_port_is_refused_and_counted(
    cluster: LocalCluster, authority: Authority, tmp_path: Path, shown: str
) -> None:
    before = sum(refusals(cluster, 1).values())
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    if shown != "nothing":
        other = Authority(tmp_path / "other").issue("stranger")
        context.load_cert_chain(other.cert, other.key)
    with pytest.raises(OSError, match=r"alert|reset|EOF|closed"):
        heard(cluster, context)
    wait_for(lambda: sum(refusals(cluster, 1).values()) > before, SOON_S, "it is counted")
    cluster.wait_healthy(HEAL_S)


def test_a_peer_without_tls_is_told_so(cluster: LocalCluster) -> None:
    with socket.create_connection(("127.0.0.1", cluster.ports.raft), timeout=30) as plain:
        plain.settimeout(30)
        plain.sendall(b"\x00\x00\x00\x10" + bytes(16))
        assert b"this node speaks TLS only" in plain.recv(1000)
    wait_for(lambda: refusals(cluster, 1).get("tls", 0) > 0, SOON_S, "it is counted")


def test_certificates_are_renewed_without_a_restart(
    cluster: LocalCluster, authority: Authority, files: TlsPaths
) -> None:
    ports = [cluster.ports.http + node - 1 for node in NODES]
    servers = [cluster.processes.postmaster_pid(node) for node in NODES]
    before = serial_of(ports[0], authority.file)
    good = files.key.read_bytes()
    files.key.write_bytes(Authority(files.ca.parent / "odd").issue("x").key.read_bytes())
    for node in NODES:
        reload(cluster, node)
        wait_for(partial(says, cluster, node, "reload refused"), SOON_S, "it is said")
    assert says(cluster, 1, "does not belong to the certificate")
    assert serial_of(ports[0], authority.file) == before, "the old one is in force"
    files.key.write_bytes(good)
    authority.issue("nodes", not_after=in_days(90))
    for node, port in zip(NODES, ports, strict=True):
        reload(cluster, node)
        wait_for(partial(event, cluster, node, "certificate_loaded"), SOON_S, "it is taken")
        wait_for(partial(shows_another, port, authority.file, before), SOON_S, "another is shown")
    cluster.wait_healthy(HEAL_S)
    assert [cluster.processes.postmaster_pid(node) for node in NODES] == servers
    # A daemon that comes back is met with the renewed certificates.
    cluster.processes.stop_daemon(3)
    cluster.spawn(3)
    cluster.wait_healthy(HEAL_S)
    same_everywhere(cluster, write(cluster, range(11, 21)))
