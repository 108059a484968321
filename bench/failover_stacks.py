"""What is compared: RAMD and Patroni, each at its defaults and at its fastest, with one interface.

Lives here: starting each of them, asking it, and which processes a node of it consists of. Must not
live here: the faults and what clients see (`failover_rounds`). Start reading at `Stack`.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg

from bench.peers.patroni import PatroniCluster
from bench.peers.patroni_conf import Options, Programs, Timing
from ramd.config.keys import Availability
from ramd.config.load import load
from ramd.config.model import KEYS, key_of
from tools.local_cluster import ClusterError, LocalCluster
from tools.local_processes import Processes, names_any, working_directories

NODES: Final = (1, 2, 3)
SWITCH_S: Final = 60.0
SYNCHRONOUS: Final = "synchronous_replication"
RAMD: Final = "RAMD"
RAMD_FAST: Final = "RAMD fast"
PATRONI: Final = "Patroni"
PATRONI_FASTEST: Final = "Patroni fastest"
SHOWN: Final = (
    "server_version",
    "wal_segment_size",
    "fsync",
    "full_page_writes",
    "data_checksums",
    "synchronous_commit",
    "synchronous_standby_names",
    "shared_buffers",
    "wal_retrieve_retry_interval",
    "shared_preload_libraries",
)


class Stack(Protocol):
    """A cluster of three servers under one manager. Everything may raise ClusterError."""

    name: str
    beat_s: float
    """How often it looks; faults come at a random moment of this."""
    dsns: dict[int, str]
    processes: Processes

    def start(self) -> None:
        """Form it; every replica streams."""
        ...

    def about(self) -> dict[str, Any]:
        """Its timing."""
        ...

    def settled(self) -> bool:
        """By its own account nothing is under way."""
        ...

    def agent(self, node: int) -> int:
        """The manager's process on a node."""
        ...

    def node(self, node: int) -> set[int]:
        """All processes of a node: manager, helpers, server."""
        ...

    def revive(self, node: int) -> None:
        """The host of a killed node is back."""
        ...

    def switch(self, old: int, new: int) -> None:
        """A planned move of the primary, until it is answered."""
        ...

    def keep_logs(self, into: Path) -> None:
        """Copy what its nodes logged."""
        ...

    def close(self) -> None:
        """Leave nothing."""
        ...


def ramd_knows_synchronous() -> bool:
    """Whether this RAMD acts on `synchronous_replication`."""
    found = KEYS.get(SYNCHRONOUS)
    return found is not None and key_of(found).availability is Availability.AVAILABLE


def settings_of(dsn: str) -> dict[str, str]:
    """The settings of a server that decide how fast commits and promotions are."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)",
            [list(SHOWN)],
        ).fetchall()
    return {str(name): str(value) for name, value in rows}


class RamdStack:
    """Daemons of this working tree."""

    beat_s = 1.0

    def __init__(self, name: str, settings: Mapping[str, object], *, synchronous: bool) -> None:
        self.name = name
        chosen = dict(settings)
        if ramd_knows_synchronous():
            chosen[SYNCHRONOUS] = "on" if synchronous else "off"
        self._cluster = LocalCluster(settings=chosen)
        self.processes = self._cluster.processes
        self.dsns = {node: self._cluster.dsn(node) for node in NODES}

    def start(self) -> None:
        self._cluster.start()
        self._cluster.create(len(NODES))
        self._cluster.wait_healthy()

    def about(self) -> dict[str, Any]:
        keys = ("raft_heartbeat_ms", "raft_election_timeout_ms", "primary_lease_ttl_ms")
        found = [load(self._cluster.places.conf(node), {}) for node in NODES]
        for key in keys:
            if len({getattr(conf, key) for conf in found}) != 1:
                raise ClusterError(f"{key} is not the same on every node")
        return {key: getattr(found[0], key) for key in keys}

    def settled(self) -> bool:
        status = self._cluster.status()
        return status is not None and status["cluster_status"] == "healthy"

    def agent(self, node: int) -> int:
        pid = self.processes.daemon_pid(node)
        if pid is None:
            raise ClusterError(f"node {node} has no daemon")
        return pid

    def node(self, node: int) -> set[int]:
        return self.processes.node_pids(node)

    def revive(self, node: int) -> None:
        self._cluster.spawn(node)

    def switch(self, old: int, new: int) -> None:
        body = {"target_node": str(new)}
        try:
            status, answer = self._cluster.api(
                old, "POST", "/cluster/failover", body, timeout_s=SWITCH_S
            )
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"no answer to a switchover: {error}") from error
        if status not in (200, 201, 202):
            raise ClusterError(f"RAMD answered {status} to a switchover: {answer}")

    def keep_logs(self, into: Path) -> None:
        _copy(self._cluster.root / "logs", into)

    def close(self) -> None:
        self._cluster.close()


class PatroniStack:
    """Patroni with etcd on hosts of its own."""

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.beat_s = float(options.timing.loop_wait)
        self._cluster = PatroniCluster(options)
        self.processes = self._cluster.processes
        self.dsns = {node: self._cluster.places.dsn(node) for node in NODES}

    def start(self) -> None:
        self._cluster.form()

    def about(self) -> dict[str, Any]:
        timing = self._cluster.options.timing
        keys = ("ttl", "loop_wait", "retry_timeout", "primary_start_timeout")
        return {key: getattr(timing, key) for key in keys}

    def settled(self) -> bool:
        return self._cluster.settled()

    def agent(self, node: int) -> int:
        return self._cluster.daemon_pid(node)

    def node(self, node: int) -> set[int]:
        places = self._cluster.places
        names = (str(self._cluster.conf_path(node)), str(places.data_dir(node)))
        helpers = {pid for pid, _ in working_directories() if names_any(pid, names)}
        return {self.agent(node), *helpers, *self.processes.server_pids(node)}

    def revive(self, node: int) -> None:
        self._cluster.spawn(node)

    def switch(self, old: int, new: int) -> None:
        try:
            self._cluster.switch(old, new, SWITCH_S)
        except OSError as error:
            raise ClusterError(f"no answer to a switchover: {error}") from error

    def keep_logs(self, into: Path) -> None:
        _copy(self._cluster.places.root / "logs", into)

    def close(self) -> None:
        self._cluster.close()


STACKS: Final = (RAMD, RAMD_FAST, PATRONI, PATRONI_FASTEST)
FASTEST: Final = Timing(ttl=20, loop_wait=1, retry_timeout=3, primary_start_timeout=0)


def make_stack(name: str, programs: Programs | None, *, synchronous: bool) -> Stack:
    """Not started. `programs` are needed for Patroni."""
    if name in (RAMD, RAMD_FAST):
        settings = {"timing_profile": "fast"} if name == RAMD_FAST else {}
        return RamdStack(name, settings, synchronous=synchronous)
    assert programs is not None
    timing = FASTEST if name == PATRONI_FASTEST else Timing()
    options = Options(programs=programs, timing=timing, synchronous=synchronous)
    return PatroniStack(name, options)


def _copy(logs: Path, into: Path) -> None:
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(logs, into, dirs_exist_ok=True)
