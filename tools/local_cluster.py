"""A real cluster of daemons on this host, for the demo, the benchmarks and the tests.

Everything goes through what a user has: `ramd --config`, the REST API, signals to processes. Names
are in `local_places`, processes and faults in `local_processes`. Start reading at `LocalCluster`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tools.local_places import NODES_MAX, Places, Ports, free_ports
from tools.local_processes import ClusterError, Processes, wait_until

__all__ = ["ClusterError", "LocalCluster", "Ports", "free_ports", "wait_until"]


class LocalCluster:
    """Node 1's daemon is started by `start`, the others by its own `create`."""

    def __init__(
        self,
        *,
        ports: Ports | None = None,
        settings: dict[str, object] | None = None,
        parent: Path | None = None,
        own_confs: bool = False,
        prefix: tuple[str, ...] = (),
    ) -> None:
        root = Path(tempfile.mkdtemp(prefix="ramd-", dir=parent))
        root.chmod(0o711)
        self.places = Places(root=root, ports=ports or free_ports(), own_confs=own_confs)
        self.root, self.ports = root, self.places.ports
        self.processes = Processes(self.places, prefix)
        self.settings = settings or {}

    def dsn(self, node: int) -> str:
        return self.places.dsn(node)

    def start(self, node: int = 1, deadline_s: float = 60) -> None:
        """Start a node's daemon and wait for /health. Node 1's file is written if it is missing:
        no node list, create makes the rest."""
        if not self.places.conf(node).exists():
            self.places.write_conf(node, self.settings)
        self.processes.spawn(node)
        await_api(self, node, deadline_s)

    def spawn(self, node: int) -> None:
        """Start a node's daemon and do not wait."""
        self.processes.spawn(node)

    def kill_server(self, node: int) -> None:
        """SIGKILL of the postmaster alone."""
        self.processes.kill_server(node)

    def kill_node(self, node: int) -> None:
        """SIGKILL of everything of a node at once: the host is gone."""
        self.processes.kill_node(node)

    def last_words(self, node: int) -> str:
        """The end of what a node's daemon printed and logged."""
        texts = []
        for path in (self.places.output(node), self.places.log(node)):
            with contextlib.suppress(OSError):
                texts.append(path.read_text(errors="replace")[-1500:])
        return "\n".join(texts)

    def create(self, nodes: int = 3, deadline_s: float = 180, **more: object) -> dict[str, Any]:
        """What `cluster create` answers; `more` are further fields. Raises ClusterError."""
        body = {
            "num_nodes": nodes,
            "data_dir": str(self.root),
            "log_dir": str(self.root / "logs"),
            **more,
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
        timeout_s: float = 10,
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
        """The cluster as the first daemon that answers shows it."""
        for node in range(1, NODES_MAX + 1):
            if not self.places.conf(node).exists():
                continue
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                code, status = self.api(node, "GET", "/cluster/status", timeout_s=timeout_s)
                if code == 200:
                    data: dict[str, Any] = status["data"]
                    return data
        return None

    def primary(self) -> int | None:
        status = self.status()
        found = status.get("primary_node_id") if status else None
        return int(found) if found else None

    def wait_healthy(self, deadline_s: float = 60) -> float:
        """Seconds until one primary serves and every other member streams from it."""
        try:
            return wait_until("the cluster is healthy", lambda: _healthy(self), deadline_s)
        except ClusterError as error:
            raise ClusterError(f"{error}; last seen: {json.dumps(self.status())}") from error

    def close(self, keep: bool = False) -> None:
        """End every process of this cluster and remove its directory."""
        if keep:
            return
        self.processes.end_all()
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.places.page_dir(), ignore_errors=True)


def await_api(cluster: LocalCluster, node: int, deadline_s: float = 60) -> None:
    """Wait until a node's daemon answers /health. Raises ClusterError, at once if it has ended."""

    def answers() -> bool:
        ended = cluster.processes.exit_status(node)
        if ended is not None:
            raise ClusterError(
                f"node {node}'s daemon exited with {ended}: {cluster.last_words(node)}"
            )
        with contextlib.suppress(OSError, http.client.HTTPException):
            return cluster.api(node, "GET", "/health")[0] == 200
        return False

    wait_until(f"node {node}'s daemon answers", answers, deadline_s)


def _healthy(cluster: LocalCluster) -> bool:
    status = cluster.status()
    return status is not None and status["cluster_status"] == "healthy"
