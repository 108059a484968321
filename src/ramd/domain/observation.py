"""Facts with a time, never opinions: what a node says of itself, and what was heard of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ramd.domain.lsn import Lsn
from ramd.domain.sync import SyncSeen


class ServerState(StrEnum):
    """State of a node's PostgreSQL server, in the words of the REST API."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    CRASHED = "crashed"
    HUNG = "hung"
    REJOINING = "rejoining"
    UNKNOWN = "unknown"


class ServerRole(StrEnum):
    PRIMARY = "primary"
    REPLICA = "replica"


class DataKind(StrEnum):
    """What the data directory is."""

    ABSENT = "absent"
    """Does not exist, or is an empty directory."""
    CLUSTER = "cluster"
    """A PostgreSQL data directory of a supported version."""
    PARTIAL = "partial"
    """Our own unfinished clone or initdb (marked so), never started."""
    FOREIGN = "foreign"
    """Not empty and not a data directory that could be used; never touched."""


class FenceKind(StrEnum):
    """Who keeps a server from acknowledging without a lease."""

    NONE = "none"
    """Not known: no server runs, or it was not looked at yet."""
    EXTENSION = "extension"
    """The server itself, whatever happens to its daemon."""
    STAND_IN = "stand_in"
    """Its daemon, which stops it in time; a daemon frozen alone leaves a gap."""
    OFF = "off"
    """Nobody: the operator has set pgraft.enforce to off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """End of the WAL a server holds, on which timeline."""

    timeline: int
    lsn: Lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Number of one failover attempt: (term of the coordinator, counter). Ordered; rule H2."""

    term: int
    number: int

    def key(self) -> tuple[int, int]:
        return (self.term, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealReport:
    """No WAL was taken from anybody since `attempt` began; the position is final until Follow."""

    epoch: int
    attempt: Attempt
    position: Position
    copy: str = ""
    """Which copy of the data this is the position of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftMark:
    """Where a node's member of the Raft group stood when it spoke; for people only."""

    role: str
    term: int
    commit_index: int
    applied_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One node's facts, sent to the coordinator. `taken_ns` is the sender's own BOOTTIME and only
    orders observations of one `boot`; None always means "not known", never zero."""

    node_id: int
    boot: int
    taken_ns: int
    data: DataKind = DataKind.ABSENT
    state: ServerState = ServerState.UNKNOWN
    role: ServerRole | None = None
    accepting: bool = False
    """The server answers SQL."""
    system_id: str = ""
    position: Position | None = None
    """Primary: insert position. Replica: the greater of received and replayed."""
    replayed_lsn: Lsn | None = None
    upstream: int | None = None
    """Node id the WAL receiver streams from, when it is streaming."""
    fed_ms: int | None = None
    """How long ago the WAL receiver got anything from the upstream, signs of life included."""
    streaming_replicas: tuple[int, ...] = ()
    """On a primary: ids of members that stream from it."""
    lag_seconds: float | None = None
    sealed: SealReport | None = None
    epoch_opened: int = 0
    """Last epoch for which this node's server was opened for writing."""
    lease_left_ms: int = 0
    fenced: bool = True
    """This server cannot acknowledge a write (no lease, or not a primary)."""
    fence: FenceKind = FenceKind.NONE
    flush_stuck_ms: int = 0
    """For how long a flush of WAL has been under way on a primary; it should be near 0."""
    activity: str = ""
    """What the executor is doing, or why it cannot: one line for people."""
    failures: int = 0
    """Failed attempts in a row at the present goal."""
    version: str = ""
    started_unix_ms: int = 0
    loop_lag_ms: int = 0
    daemon_version: str = ""
    copy: str = ""
    """Which copy of the data this node holds (rule S4), '' if not known yet."""
    sync: SyncSeen | None = None
    """On a primary."""
    raft: RaftMark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An observation and when this daemon received it, by its own clock (ns)."""

    observation: Observation
    received_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a node's executor says of its own part; with the server's facts it makes an Observation.

    `opened_epoch` leaves out an opening that is under way: until it has succeeded or failed the
    node has not been opened for that epoch.
    """

    opened_epoch: int = 0
    released_epoch: int = 0
    sealed: SealReport | None = None
    rejoining: bool = False
    """A clone, rewind or lineage check is under way."""
    activity: str = ""
    failures: int = 0
    sealed_attempt: Attempt | None = None
    """The seal in force, reported or not (durable)."""
    settled: bool = False
    """The present goal is reached and nothing is under way."""
    yielding_epoch: int = 0
    """See LocalFacts."""
    copy: str = ""
