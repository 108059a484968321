"""What a Patroni node is told: timing, its servers' settings, where its store is.

The settings of PostgreSQL are those that RAMD writes, so that both run the same server. Start
reading at `configuration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ramd.postgres.conf import DEFAULTS
from tools.local_places import Places

SCOPE: Final = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What decides how fast it notices; seconds. The defaults are Patroni's."""

    ttl: int = 30
    loop_wait: int = 10
    retry_timeout: int = 10
    primary_start_timeout: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What is run: etcd, and the directory of Patroni's environment."""

    etcd: str
    patroni: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of one cluster."""

    programs: Programs
    timing: Timing
    synchronous: bool


def configuration(
    options: Options, places: Places, node: int, *, store: list[str], bin_dir: Path
) -> dict[str, Any]:
    """A node's whole file; what it does not say is Patroni's default."""
    port, rest = places.ports.postgresql + node - 1, places.ports.http + node - 1
    trust = ["local all all trust", "host all all 127.0.0.1/32 trust"]
    return {
        "scope": SCOPE,
        "name": f"node{node}",
        "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
        "etcd3": {"hosts": store, "protocol": "http"},
        "bootstrap": {
            "dcs": _shared(options.timing, options.synchronous),
            "initdb": [{"encoding": "UTF8"}, "data-checksums", "no-sync"],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{port}",
            "connect_address": f"127.0.0.1:{port}",
            "data_dir": str(places.data_dir(node)),
            "bin_dir": str(bin_dir),
            "pgpass": str(places.root / "logs" / f"pgpass{node}"),
            "pg_hba": [*trust, "host replication all 127.0.0.1/32 trust"],
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator"},
            },
            "parameters": {"unix_socket_directories": "", "logging_collector": "off"},
            "basebackup": [{"checkpoint": "fast"}, "no-sync"],
        },
    }


def _shared(timing: Timing, synchronous: bool) -> dict[str, Any]:
    """The configuration that Patroni keeps in its store. PostgreSQL's settings are RAMD's."""
    found: dict[str, Any] = {
        "ttl": timing.ttl,
        "loop_wait": timing.loop_wait,
        "retry_timeout": timing.retry_timeout,
        "primary_start_timeout": timing.primary_start_timeout,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": dict(DEFAULTS),
        },
    }
    if synchronous:
        found |= {"synchronous_mode": "quorum", "synchronous_node_count": 1}
    return found
