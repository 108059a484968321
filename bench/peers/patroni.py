"""Three Patroni nodes on this host: their files, processes and REST requests.

The servers are those of RAMD's clusters: same programs, same user, same settings, same `initdb`
options. Names and faults are `tools.local_places` and `tools.local_processes`, so that both kinds
are found, harmed and ended by the same code. Start reading at `PatroniCluster`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.peers.etcd import Store
from bench.peers.patroni_conf import Options, configuration
from ramd.postgres.account import choose_account
from ramd.postgres.binaries import find_postgres
from tools.local_cluster import ClusterError, free_ports, wait_until
from tools.local_places import Places
from tools.local_processes import Processes, send

NODES: Final = (1, 2, 3)
FORM_S: Final = 180.0
ASK_S: Final = 2.0
LEADING: Final = "leader"


class PatroniCluster:
    """Its directory is removed by `close`; nothing of it is left."""

    def __init__(self, options: Options) -> None:
        self.options = options
        root = Path(tempfile.mkdtemp(prefix="ramd-patroni-"))
        root.chmod(0o711)
        self.places = Places(root=root, ports=free_ports())
        self.processes = Processes(self.places)
        self._store = Store(root / "etcd", options.programs.etcd)
        self._account = choose_account(self.places.data_dir(1))
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}

    def form(self) -> None:
        """One primary, two replicas that stream. Raises ClusterError, GroupError."""
        for folder in (self.places.root / "logs", *map(self.places.data_dir, NODES)):
            folder.mkdir()
            folder.chmod(0o755 if folder.name == "logs" else 0o700)
            self._account.give(folder)
        self._store.__enter__()
        self.spawn(NODES[0])
        wait_until("Patroni has a primary", lambda: self.leader() is not None, FORM_S)
        for node in NODES[1:]:
            self.spawn(node)
        wait_until("Patroni's replicas stream", self.settled, FORM_S)

    def spawn(self, node: int) -> None:
        """Start a node's daemon with the same command line as ever."""
        self._reap(node)
        path = self.conf_path(node)
        hosts, bin_dir = self._store.hosts(), find_postgres(None).bin_dir
        conf = configuration(self.options, self.places, node, store=hosts, bin_dir=bin_dir)
        path.write_text(json.dumps(conf, indent=1))  # JSON is YAML, too
        path.chmod(0o644)
        account, tools = self._account, self.options.programs.patroni
        identity = (account.uid, account.gid) if account.drops else (None, None)
        with (self.places.root / "logs" / f"patroni{node}.log").open("ab") as sink:
            self._daemons[node] = subprocess.Popen(
                [str(tools / "python"), str(tools / "patroni"), str(path)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={"PATH": "/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8"},
                start_new_session=True,
                user=identity[0],
                group=identity[1],
                extra_groups=list(account.groups) if account.drops else None,
            )

    def conf_path(self, node: int) -> Path:
        return self.places.root / f"node{node}.yml"

    def daemon_pid(self, node: int) -> int:
        """Raises ClusterError if it has ended."""
        daemon = self._daemons[node]
        if daemon.poll() is not None:
            raise ClusterError(f"Patroni {node} has ended with {daemon.returncode}")
        return daemon.pid

    def request(
        self,
        node: int,
        method: str,
        path: str,
        body: object | None = None,
        timeout_s: float = ASK_S,
    ) -> tuple[int, str]:
        """(HTTP status, text) of one request to a node's daemon. Raises OSError."""
        port = self.places.ports.http + node - 1
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        try:
            payload = None if body is None else json.dumps(body)
            link.request(method, path, payload, {"Content-Type": "application/json"})
            answer = link.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            link.close()

    def members(self) -> list[dict[str, Any]]:
        """As the first daemon that answers shows them; empty if none does."""
        for node in NODES:
            with contextlib.suppress(OSError, ValueError, KeyError):
                status, text = self.request(node, "GET", "/cluster")
                if status == 200:
                    found: list[dict[str, Any]] = json.loads(text)["members"]
                    return found
        return []

    def leader(self) -> str | None:
        """The name of the primary that holds the lock and runs."""
        for member in self.members():
            if member["role"] == LEADING and member["state"] == "running":
                return str(member["name"])
        return None

    def settled(self) -> bool:
        """A running primary and streaming replicas, all on one timeline, by its own account; in
        synchronous mode at least one of them may be promoted without loss."""
        members = self.members()
        states = sorted(str(member["state"]) for member in members)
        roles = {str(member["role"]) for member in members}
        return (
            states == ["running", "streaming", "streaming"]
            and len({member.get("timeline") for member in members}) == 1
            and (not self.options.synchronous or bool(roles & {"sync_standby", "quorum_standby"}))
        )

    def switch(self, old: int, new: int, timeout_s: float) -> None:
        """A planned switchover, as `patronictl switchover` asks for it. Raises ClusterError."""
        body = {"leader": f"node{old}", "candidate": f"node{new}"}
        status, text = self.request(old, "POST", "/switchover", body, timeout_s)
        if status != 200:
            raise ClusterError(f"Patroni answered {status} to a switchover: {text}")

    def close(self) -> None:
        """End every process and remove the directory."""
        for daemon in self._daemons.values():
            if daemon.poll() is None:  # or it would start its server again
                send(daemon.pid, signal.SIGKILL)
        self.processes.end_all()
        for node in list(self._daemons):
            self._reap(node)
        self._store.close()
        shutil.rmtree(self.places.root, ignore_errors=True)

    def _reap(self, node: int) -> None:
        daemon = self._daemons.pop(node, None)
        if daemon is not None:
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired as error:
                raise ClusterError(f"Patroni {node} does not end") from error
