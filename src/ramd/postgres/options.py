"""What the operator decided about one server: values only, handed in by whoever builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

AuthMethod = Literal["trust", "scram-sha-256"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """One server. All paths are absolute; `data_dir`, `state_dir` and `log_dir` are three different
    directories, and the last two lie outside the first."""

    node_id: int
    data_dir: Path
    state_dir: Path
    log_dir: Path
    port: int
    listen_addresses: tuple[str, ...] = ("127.0.0.1",)
    superuser: str = "postgres"
    database: str = "postgres"
    replication_user: str = "replicator"
    replication_password: str | None = field(default=None, repr=False)
    superuser_password: str | None = field(default=None, repr=False)
    auth_method: AuthMethod = "trust"
    """How clients by TCP prove themselves. `trust` is written for loopback addresses only."""
    initdb_options: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further settings of PostgreSQL; those that RAMD must own are refused (conf.OWNED)."""

    @property
    def sync(self) -> bool:
        """Whether what the tools write is flushed to disk (`--no-sync` in initdb_options)."""
        return not {"--no-sync", "-N"} & set(self.initdb_options)
