"""`Config`: every key with its effective value, and what follows from the keys.

Lives here: the one model and its derived values. Attribute = name of the key. Reading is in `load`,
rules across keys in `checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, model_validator
from pydantic.fields import FieldInfo

from ramd.config.keys import Key, Topic, is_loopback
from ramd.config.nodes import OWN_KEYS, NodeEntry
from ramd.config.tls import TlsPaths
from ramd.config.topics.failover import PROFILES, FenceKeys, MonitoringKeys, TimingKeys
from ramd.config.topics.identity import IdentityKeys
from ramd.config.topics.postgresql import (
    BackupKeys,
    MaintenanceKeys,
    PostgresqlKeys,
    SynchronousKeys,
)
from ramd.config.topics.security import SecurityKeys
from ramd.config.topics.service import HttpKeys, LogKeys, LogLevel, MetricsKeys, ProcessKeys
from ramd.domain.model import Member, Settings
from ramd.domain.sync import SyncMode

NS_PER_MS = 1_000_000
PATIENCE_MIN_NS = 2_000_000_000

TOPICS: tuple[type[Topic], ...] = (
    IdentityKeys,
    PostgresqlKeys,
    HttpKeys,
    MonitoringKeys,
    TimingKeys,
    FenceKeys,
    LogKeys,
    ProcessKeys,
    SynchronousKeys,
    BackupKeys,
    MaintenanceKeys,
    MetricsKeys,
    SecurityKeys,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingValues:
    """Times of the group in nanoseconds, as the consensus takes them.

    Election timeouts are drawn from (election_ns, 2·election_ns]; `drift` is a fraction.
    """

    heartbeat_ns: int
    election_ns: int
    lease_ttl_ns: int
    drift: float

    @property
    def patience_ns(self) -> int:
        """For how long a daemon may be silent and still count as there: four beats of the control
        loop; on slow networks, as long as Raft itself waits."""
        return max(PATIENCE_MIN_NS, self.election_ns)


class Config(
    IdentityKeys,
    PostgresqlKeys,
    HttpKeys,
    MonitoringKeys,
    TimingKeys,
    FenceKeys,
    LogKeys,
    ProcessKeys,
    SynchronousKeys,
    BackupKeys,
    MaintenanceKeys,
    MetricsKeys,
    SecurityKeys,
):
    """The configuration of one daemon: immutable, complete, in effective values.

    Where a key was left out and its default depends on others, the attribute holds the derived
    value. `nodes` is the node list by number, empty if the file has none.
    """

    model_config = ConfigDict(title="ramd.conf")

    nodes: tuple[NodeEntry, ...] = ()
    given: frozenset[str] = frozenset()
    """Keys that the file or the environment really set (without the node list's)."""
    warnings: tuple[str, ...] = ()
    """One line each, to be logged once at start."""

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        return with_derived(values) if isinstance(values, dict) else values

    @property
    def forms_cluster(self) -> bool:
        """The file lists the nodes: the daemon forms that cluster, or expects to be in it."""
        return bool(self.nodes)

    @property
    def effective_log_level(self) -> LogLevel:
        return "debug" if self.debug_mode else self.log_level

    @property
    def one_host(self) -> bool:
        """Every node is on this host, as far as the file says."""
        return all(is_loopback(member.hostname) for member in self.members())

    @property
    def scram_required(self) -> bool:
        """Clients by TCP must prove a password to PostgreSQL."""
        return self.auth_method == "scram-sha-256"

    @property
    def state_pid_file(self) -> Path:
        """Locked by the running daemon, whatever `pid_file` says: state has one daemon."""
        return self.state_dir / "ramd.pid"

    @property
    def tls(self) -> TlsPaths | None:
        """The files of TLS; None: it is off."""
        cert, key = self.ssl_cert_file, self.ssl_key_file
        if not self.ssl_enabled or cert is None or key is None:
            return None
        return TlsPaths(cert=cert, key=key, ca=self.ssl_ca_file or cert)

    def own_member(self) -> Member:
        """This node as a member of its cluster."""
        return Member(
            node_id=self.node_id,
            name=self.node_name,
            hostname=self.hostname,
            postgresql_port=self.postgresql_port,
            raft_port=self.raft_port,
            http_port=self.http_port,
            priority=self.node_priority,
            nofailover=self.nofailover,
            nosync=self.nosync,
        )

    def members(self) -> tuple[Member, ...]:
        """The node list by number; this node alone if the file has none.

        Name, priority and `nofailover` of other nodes stand in their own files: here defaults.
        """
        if not self.nodes:
            return (self.own_member(),)
        return tuple(
            self.own_member() if entry.node_id == self.node_id else _member(entry)
            for entry in self.nodes
        )

    def timing(self) -> TimingValues:
        """Times of the group, from the profile and the keys set beside it."""
        return TimingValues(
            heartbeat_ns=self.raft_heartbeat_ms * NS_PER_MS,
            election_ns=self.raft_election_timeout_ms * NS_PER_MS,
            lease_ttl_ns=self.primary_lease_ttl_ms * NS_PER_MS,
            drift=self.clock_drift_percent / 100,
        )

    def settings(self) -> Settings:
        """Initial cluster-wide settings: they count when this node founds the cluster."""
        return Settings(
            auto_failover_enabled=self.auto_failover_enabled,
            maximum_lag_on_failover=self.maximum_lag_on_failover,
            startup_grace_ms=self.startup_grace_ms,
            synchronous_replication=SyncMode(self.synchronous_replication),
            num_sync_standbys=self.num_sync_standbys,
            sync_standby_names=self.sync_standby_names,
            enforce_sync_standbys=self.enforce_sync_standbys,
            sync_replication_timeout_ms=self.sync_replication_timeout_ms,
        )


def _member(entry: NodeEntry) -> Member:
    return Member(
        node_id=entry.node_id,
        name=f"node{entry.node_id}",
        hostname=entry.hostname,
        postgresql_port=entry.port,
        raft_port=entry.raft_port,
        http_port=entry.http_port,
    )


def key_of(field: FieldInfo) -> Key:
    """The description that stands beside a field."""
    return next(item for item in field.metadata if isinstance(item, Key))


def fields(topic: type[Topic]) -> Iterator[tuple[str, FieldInfo, Key]]:
    """Every key of a topic in the order it was written."""
    for name, field in topic.model_fields.items():
        yield name, field, key_of(field)


def all_fields() -> Iterator[tuple[str, FieldInfo, Key]]:
    """Every key of the file except the node list's."""
    for topic in TOPICS:
        yield from fields(topic)


KEYS: Mapping[str, FieldInfo] = {name: field for name, field, _ in all_fields()}


# --- defaults that depend on other keys -------------------------------------------------------


def with_derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` (still as they were given) plus every default that follows from them.

    Never judges: a faulty value is left for its own validation to report.
    """
    derived = dict(values)
    _share_own_entry(derived)
    nodes = derived.get("nodes") or ()
    derived.setdefault("node_name", f"node{derived.get('node_id', 1)}")
    if nodes:
        derived.setdefault("cluster_size", len(nodes))
    data_dir = derived.get("postgresql_data_dir")
    if "state_dir" not in derived and data_dir:
        derived["state_dir"] = Path(f"{str(data_dir).rstrip('/')}.ramd")
    if "postgresql_log_dir" not in derived and derived.get("state_dir"):
        derived["postgresql_log_dir"] = Path(str(derived["state_dir"])) / "log"
    profile = PROFILES.get(str(derived.get("timing_profile", "default")).lower())
    if profile:
        derived.setdefault("raft_heartbeat_ms", profile.raft_heartbeat_ms)
        derived.setdefault("raft_election_timeout_ms", profile.raft_election_timeout_ms)
        derived.setdefault("primary_lease_ttl_ms", profile.primary_lease_ttl_ms)
    hosts = [str(_get(node, "hostname")) for node in nodes] or [
        str(derived.get("hostname", "localhost"))
    ]
    local = all(is_loopback(host) for host in hosts)
    derived.setdefault("raft_bind_address", "127.0.0.1" if local else "")
    derived.setdefault("prometheus_bind_address", derived.get("http_bind_address", "127.0.0.1"))
    trusted = local and not derived.get("postgresql_password")
    derived.setdefault("auth_method", "trust" if trusted else "scram-sha-256")
    return derived


def _share_own_entry(derived: dict[str, Any]) -> None:
    """What one of this node's key and its entry in the list says, the other says too; other
    nodes' ports default to this node's."""
    nodes = tuple(derived.get("nodes") or ())
    if not nodes:
        return
    own = next((node for node in nodes if str(_get(node, "node_id")) == _own_id(derived)), None)
    for field, key in OWN_KEYS.items():
        said = _get(own, field)
        if said is not None:
            derived.setdefault(key, said)
    filled = []
    for node in nodes:
        entry = dict(node) if isinstance(node, Mapping) else node.model_dump(exclude_unset=True)
        for field, key in OWN_KEYS.items():
            if field != "hostname" and key in derived:
                entry.setdefault(field, derived[key])
        filled.append(entry)
    derived["nodes"] = tuple(filled)


def _own_id(derived: Mapping[str, Any]) -> str:
    return str(derived.get("node_id", 1)).strip()


def _get(node: object, field: str) -> object:
    """A field that was really given, of an entry or of a mapping that will become one."""
    if isinstance(node, NodeEntry):
        return getattr(node, field) if field in node.model_fields_set else None
    return node.get(field) if isinstance(node, Mapping) else None
