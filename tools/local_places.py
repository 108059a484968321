"""Where everything of a cluster on this host lies: directories, files and ports, by node id.

Lives here: names only. Must not live here: processes (`local_processes`), the REST API
(`local_cluster`). The names are those that a local `cluster create` gives.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port_block

MEMORY = Path("/dev/shm")
NODES_MAX = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """First port of each block; node i has each plus i-1."""

    postgresql: int
    raft: int
    http: int
    prometheus: int


def free_ports(nodes: int = NODES_MAX) -> Ports:
    """Four blocks of `nodes` free consecutive ports, which no other process of this user gets until
    this one ends. Raises RuntimeError if there are none."""
    return ports_of([free_port_block(nodes)[0] for _ in range(4)])


def ports_of(blocks: list[int]) -> Ports:
    """The four first ports by name."""
    postgresql, raft, http, prometheus = blocks
    return Ports(postgresql=postgresql, raft=raft, http=http, prometheus=prometheus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Names below one root directory."""

    root: Path
    ports: Ports
    own_confs: bool = False
    """Every node's file was written by hand, as on several hosts; else create made all but one."""

    def data_dir(self, node: int) -> Path:
        return self.root / f"node{node}"

    def state_dir(self, node: int) -> Path:
        return self.root / f"node{node}.ramd"

    def conf(self, node: int) -> Path:
        if self.own_confs:
            return self.root / f"ramd{node}.conf"
        return self.root / "ramd.conf" if node == 1 else self.state_dir(node) / "ramd.conf"

    def log(self, node: int) -> Path:
        return self.root / "logs" / f"node{node}" / "ramd.log"

    def output(self, node: int) -> Path:
        """What a daemon that was started here prints."""
        return self.root / f"ramd-{node}.out"

    def dsn(self, node: int) -> str:
        port = self.ports.postgresql + node - 1
        return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"

    def page_dir(self) -> Path:
        """In memory, this cluster's alone; made by the first daemon, removed with the rest."""
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return MEMORY / f"ramd-local-{digest}"

    def settings(self, node: int) -> dict[str, object]:
        """What a node's own file has to say to lie in these places."""
        step = node - 1
        return {
            "node_id": node,
            "cluster_name": "demo",
            "hostname": "127.0.0.1",
            "postgresql_data_dir": self.data_dir(node),
            "postgresql_port": self.ports.postgresql + step,
            "raft_port": self.ports.raft + step,
            "http_port": self.ports.http + step,
            "prometheus_port": self.ports.prometheus + step,
            "initdb_options": "--no-sync",
            "log_file": self.log(node),
            "postgresql_log_dir": self.log(node).parent,
            "page_dir": self.page_dir(),
        }

    def write_conf(self, node: int, more: dict[str, object]) -> None:
        """A node's file, as a user would write it; `more` adds or replaces keys."""
        directory = self.log(node).parent
        directory.mkdir(parents=True, exist_ok=True)
        for one in (directory.parent, directory):
            one.chmod(0o711)
        lines = self.settings(node) | more
        self.conf(node).write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
