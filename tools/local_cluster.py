"""A real cluster of daemons on this host, for the demo, the benchmarks, the soak and the tests.

Everything goes through what a user has: `ramd --config`, the REST API, signals to processes. It only
ends processes that belong to its own temporary directory, found by pid file and working directory.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.05
NODES_MAX = 9


class ClusterError(Exception):
    """The cluster did not do what was asked within the deadline; the message says what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """First port of each block; node i has each plus i-1."""

    postgresql: int
    raft: int
    http: int
    prometheus: int


def free_ports(nodes: int = NODES_MAX) -> Ports:
    """Four blocks of `nodes` free consecutive ports below the ephemeral range."""
    blocks: list[int] = []
    start = 10_000 + (os.getpid() * 37) % 15_000
    for base in range(start, start + 7_000, nodes):
        if all(_bindable(base + offset) for offset in range(nodes)):
            blocks.append(base)
        if len(blocks) == 4:
            return Ports(
                postgresql=blocks[0], raft=blocks[1], http=blocks[2], prometheus=blocks[3]
            )
    raise ClusterError("no free ports found")


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(what: str, condition: Callable[[], bool], deadline_s: float) -> float:
    """Seconds until `condition` held. Raises ClusterError naming `what` after `deadline_s`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > deadline_s:
            raise ClusterError(f"not within {deadline_s:g} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - begun


class LocalCluster:
    """Node 1's daemon is started by `start`, the others by its own `create`."""

    def __init__(
        self,
        *,
        ports: Ports | None = None,
        settings: dict[str, object] | None = None,
        parent: Path | None = None,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="ramd-", dir=parent))
        self.root.chmod(0o711)
        self.ports = ports or free_ports()
        self.settings = settings or {}
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}

    # --- places ----------------------------------------------------------------------------

    def data_dir(self, node: int) -> Path:
        return self.root / f"node{node}"

    def state_dir(self, node: int) -> Path:
        return self.root / f"node{node}.ramd"

    def conf(self, node: int) -> Path:
        return self.root / "ramd.conf" if node == 1 else self.state_dir(node) / "ramd.conf"

    def log(self, node: int) -> Path:
        return self.root / "logs" / f"node{node}" / "ramd.log"

    def dsn(self, node: int) -> str:
        port = self.ports.postgresql + node - 1
        return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"

    # --- daemons ---------------------------------------------------------------------------

    def write_first_conf(self) -> None:
        """Node 1's file, as a user would write it: no node list, create makes the rest."""
        lines: dict[str, object] = {
            "node_id": 1,
            "cluster_name": "demo",
            "hostname": "127.0.0.1",
            "postgresql_data_dir": self.data_dir(1),
            "postgresql_port": self.ports.postgresql,
            "raft_port": self.ports.raft,
            "http_port": self.ports.http,
            "prometheus_port": self.ports.prometheus,
            "initdb_options": "--no-sync",
            "log_file": self.log(1),
            "postgresql_log_dir": self.log(1).parent,
        }
        lines.update(self.settings)
        self.log(1).parent.mkdir(parents=True, exist_ok=True)
        for directory in (self.root / "logs", self.log(1).parent):
            directory.chmod(0o711)
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        self.conf(1).write_text(text)

    def spawn(self, node: int) -> None:
        """Start a node's daemon with the same command line as ever."""
        out = self.root / f"ramd-{node}.out"
        with out.open("ab") as sink:
            self._daemons[node] = subprocess.Popen(
                [sys.executable, "-m", "ramd", "--config", str(self.conf(node))],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def start(self, deadline_s: float = 30) -> None:
        """Node 1's daemon answers /health."""
        self.write_first_conf()
        self.spawn(1)
        self.wait_api(1, deadline_s)

    def wait_api(self, node: int, deadline_s: float = 30) -> None:
        def answers() -> bool:
            daemon = self._daemons.get(node)
            if daemon is not None and daemon.poll() is not None:
                raise ClusterError(f"node {node}'s daemon exited with {daemon.returncode}:"
                                   f" {self.last_words(node)}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.api(node, "GET", "/health")[0] == 200
            return False

        wait_until(f"node {node}'s daemon answers", answers, deadline_s)

    def last_words(self, node: int) -> str:
        texts = []
        for path in (self.root / f"ramd-{node}.out", self.log(node)):
            with contextlib.suppress(OSError):
                texts.append(path.read_text(errors="replace")[-1500:])
        return "\n".join(texts)

    def create(self, nodes: int = 3, deadline_s: float = 60) -> dict[str, Any]:
        body = {
            "num_nodes": nodes,
            "data_dir": str(self.root),
            "log_dir": str(self.root / "logs"),
        }
        status, answer = self.api(1, "POST", "/cluster/create", body, timeout_s=deadline_s)
        if status not in (200, 201):
            raise ClusterError(f"create answered {status}: {answer}")
        data: dict[str, Any] = answer["data"]
        return data

    def api(
        self,
        node: int,
        method: str,
        path: str,
        body: object | None = None,
        timeout_s: float = 5,
    ) -> tuple[int, dict[str, Any]]:
        """(HTTP status, envelope) of one request to a node's daemon."""
        link = http.client.HTTPConnection(
            "127.0.0.1", self.ports.http + node - 1, timeout=timeout_s
        )
        try:
            payload = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"} if payload else {}
            link.request(method, f"/api/v1{path}", payload, headers)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            link.close()

    def status(self, timeout_s: float = 2) -> dict[str, Any] | None:
        """The cluster as the first daemon that answers shows it: status, health and nodes."""
        for node in range(1, NODES_MAX + 1):
            if not self.conf(node).exists():
                continue
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                code, nodes = self.api(node, "GET", "/nodes", timeout_s=timeout_s)
                if code != 200:
                    continue
                _, status = self.api(node, "GET", "/cluster/status", timeout_s=timeout_s)
                _, health = self.api(node, "GET", "/cluster/health", timeout_s=timeout_s)
                merged: dict[str, Any] = {**status["data"], **health["data"]}
                merged["nodes"] = nodes["data"]["nodes"]
                return merged
        return None

    def primary(self) -> int | None:
        status = self.status()
        found = status.get("primary_node_id") if status else None
        return int(found) if found else None

    def healthy(self) -> bool:
        status = self.status()
        return bool(status) and status is not None and status["cluster_status"] == "healthy"

    def wait_healthy(self, deadline_s: float = 60) -> float:
        """Seconds until one primary serves and every other member streams from it."""
        try:
            return wait_until("the cluster is healthy", self.healthy, deadline_s)
        except ClusterError as error:
            raise ClusterError(f"{error}; last seen: {json.dumps(self.status())}") from error

    # --- faults ----------------------------------------------------------------------------

    def daemon_pid(self, node: int) -> int | None:
        return _pid_of(self.state_dir(node) / "ramd.pid")

    def postmaster_pid(self, node: int) -> int | None:
        return _pid_of(self.data_dir(node) / "postmaster.pid")

    def server_pids(self, node: int) -> list[int]:
        """Every process whose working directory is the node's data directory."""
        return [pid for pid, cwd in _working_directories() if cwd == str(self.data_dir(node))]

    def kill_server(self, node: int) -> None:
        """SIGKILL of the postmaster alone."""
        pid = self.postmaster_pid(node)
        if pid is None:
            raise ClusterError(f"node {node} has no postmaster")
        os.kill(pid, signal.SIGKILL)

    def kill_node(self, node: int) -> None:
        """SIGKILL of daemon, postmaster and backends at once: the host is gone."""
        pids = [pid for pid in (self.daemon_pid(node),) if pid]
        for pid in pids + self.server_pids(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap(node)

    def stop_daemon(self, node: int, deadline_s: float = 20) -> None:
        """SIGTERM of the daemon; its server stays."""
        pid = self.daemon_pid(node)
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)

        def gone() -> bool:
            self._reap(node)
            return not _alive(pid)

        wait_until(f"node {node}'s daemon ended", gone, deadline_s)

    def _reap(self, node: int) -> None:
        daemon = self._daemons.get(node)
        if daemon is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=0.01)

    # --- the end ---------------------------------------------------------------------------

    def processes(self) -> Iterator[int]:
        """Every process of this cluster: by working directory or by its own files on argv."""
        root = str(self.root)
        for pid, cwd in _working_directories():
            if cwd.startswith(root + "/") or _argv_under(pid, root):
                yield pid

    def close(self, keep: bool = False) -> None:
        """End every process of this cluster and remove its directory."""
        if keep:
            return
        for _ in range(100):
            pids = [pid for pid in self.processes() if pid != os.getpid()]
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for node in self._daemons:
                self._reap(node)
            time.sleep(POLL_S)
        shutil.rmtree(self.root, ignore_errors=True)


def _pid_of(path: Path) -> int | None:
    try:
        pid = int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if _alive(pid) else None


def _alive(pid: int) -> bool:
    """Exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _working_directories() -> Iterator[tuple[int, str]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                cwd = os.readlink(f"/proc/{entry.name}/cwd").removesuffix(" (deleted)")
                if _alive(int(entry.name)):
                    yield int(entry.name), cwd


def _argv_under(pid: int, root: str) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(argument.startswith(root.encode() + b"/") for argument in argv)
