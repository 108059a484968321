"""Watching the server, the timing of the group, and what a failover may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ramd.config.keys import Availability, Decimal, Key, OptionalPath, Switch, Topic, Whole, Word


class MonitoringKeys(Topic):
    """Monitoring and failover."""

    monitor_interval_ms: Annotated[
        Whole,
        Field(ge=100, le=3_600_000),
        Key(
            "Pause between two rounds of the slow checks (slots, roles, lineage); a crash is"
            " noticed at once without them.",
            unit="milliseconds",
        ),
    ] = 5000
    health_check_timeout_ms: Annotated[
        Whole,
        Field(ge=100, le=60_000),
        Key("How long one probe of the server may take.", unit="milliseconds"),
    ] = 3000
    auto_failover_enabled: Annotated[
        Switch,
        Key(
            "Promote a replica when the primary is lost, without asking a person.",
            cluster_wide=True,
        ),
    ] = True
    maximum_lag_on_failover: Annotated[
        Whole,
        Field(ge=0, le=1 << 50),
        Key(
            "How far behind the primary's last known position a replica may be and still be "
            "promoted automatically; 0 is no bound.",
            unit="bytes",
            cluster_wide=True,
        ),
    ] = 0
    failover_timeout_ms: Annotated[
        Whole,
        Field(ge=1000, le=3_600_000),
        Key(
            "How long a failover that a person asked for may take.",
            unit="milliseconds",
        ),
    ] = 60_000
    recovery_timeout_ms: Annotated[
        Whole,
        Field(ge=1000, le=86_400_000),
        Key(
            "How long a node may take to come back.",
            unit="milliseconds",
            availability=Availability.PLANNED,
        ),
    ] = 300_000
    startup_grace_ms: Annotated[
        Whole,
        Field(ge=0, le=3_600_000),
        Key(
            "How long a coordinator that has just started waits for the recorded primary.",
            unit="milliseconds",
            cluster_wide=True,
            danger="Too short, and restarting all hosts at once costs a failover.",
        ),
    ] = 30_000


class TimingKeys(Topic):
    """Timing of the group."""

    timing_profile: Annotated[
        Literal["fast", "default", "wan"],
        Word,
        Key(
            "Sets heartbeat, election timeout and lease together; each may be set alone as well.",
            danger="The same on every node, as are the keys below.",
        ),
    ] = "default"
    raft_heartbeat_ms: Annotated[
        Whole,
        Field(ge=10, le=10_000),
        Key(
            "Pause between two heartbeats of the coordinator.",
            unit="milliseconds",
            default_text="30 (fast), 100 (default), 500 (wan)",
        ),
    ] = 100
    raft_election_timeout_ms: Annotated[
        Whole,
        Field(ge=50, le=12_000),
        Key(
            "E: a node that heard no coordinator for E to 2·E begins an election; at least three "
            "heartbeats.",
            unit="milliseconds",
            default_text="150 (fast), 600 (default), 3000 (wan)",
            danger="Too short, and a busy network costs elections.",
        ),
    ] = 600
    primary_lease_ttl_ms: Annotated[
        Whole,
        Field(ge=500, le=60_000),
        Key(
            "How long a primary may acknowledge writes without hearing from the group; at least "
            "5 × raft_election_timeout_ms.",
            unit="milliseconds",
            default_text="1000 (fast), 3000 (default), 15000 (wan)",
            danger="Long leases delay failover when a host is lost; short ones cost writes when "
            "the network stumbles.",
        ),
    ] = 3000
    clock_drift_percent: Annotated[
        Decimal,
        Field(ge=0.1, le=20),
        Key(
            "How much faster or slower than true time any node's clock may run.",
            unit="percent",
            danger="A clock that drifts more than this can end in two primaries.",
        ),
    ] = 1.0


class FenceKeys(Topic):
    """The fence inside PostgreSQL."""

    pgraft_extension: Annotated[
        Literal["auto", "required", "off"],
        Key(
            "Whether the server itself refuses to acknowledge writes without a lease.",
            accepts="auto (built when a compiler and the server's headers are there, else the "
            "daemon stops the server in time), required (no start without it) or off",
            danger="`off`, or `auto` without a compiler: a daemon that is frozen or killed alone "
            "cannot stop its server, and two nodes may acknowledge writes.",
        ),
    ] = "auto"
    page_dir: Annotated[
        OptionalPath,
        Key(
            "Directory of the page that daemon and server share.",
            default_text="/run/ramd if /run is in memory and the daemon may make it, else /dev/shm",
            accepts="an absolute path of a directory in memory (tmpfs)",
            danger="It must outlive the daemon: with systemd, RuntimeDirectoryPreserve=yes.",
            example="/run/ramd",
        ),
    ] = None
    fence_grace_ms: Annotated[
        Whole,
        Field(ge=0, le=600_000),  # as pgraft.c bounds it: the server would refuse to start
        Key(
            "How long sessions of a fenced primary may go on reading before they are ended, so "
            "that pools connect elsewhere.",
            unit="milliseconds",
        ),
    ] = 5000
    switchover_drain_ms: Annotated[
        Whole,
        Field(ge=0, le=60_000),
        Key(
            "How long transactions that have written something may still end by themselves in a "
            "switchover before their sessions are ended. They cannot commit any more: the time "
            "is for those whose commit is on its way.",
            unit="milliseconds",
        ),
    ] = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One word for three times, in milliseconds."""

    raft_heartbeat_ms: int
    raft_election_timeout_ms: int
    primary_lease_ttl_ms: int


PROFILES: dict[str, Profile] = {
    "fast": Profile(raft_heartbeat_ms=30, raft_election_timeout_ms=150, primary_lease_ttl_ms=1000),
    "default": Profile(
        raft_heartbeat_ms=100, raft_election_timeout_ms=600, primary_lease_ttl_ms=3000
    ),
    "wan": Profile(
        raft_heartbeat_ms=500, raft_election_timeout_ms=3000, primary_lease_ttl_ms=15_000
    ),
}
