"""The one interface between RAMD and a PostgreSQL server on this host.

`ramd.postgres` implements it for real; tests bring a fake. Every call is bounded in time and raises
`PostgresError` with the tool's own words when it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from ramd.domain.fence import Fence
from ramd.domain.lsn import Lsn
from ramd.domain.observation import DataKind, Position, ServerRole
from ramd.domain.sync import SyncConf, SyncFacts


class StopMode(StrEnum):
    FAST = "fast"
    """Sessions ended, shutdown checkpoint written and sent to replicas (SIGINT)."""
    IMMEDIATE = "immediate"
    """Nothing more is written (SIGQUIT)."""


class ControlState(StrEnum):
    """pg_controldata's "Database cluster state", shortened."""

    SHUT_DOWN = "shut_down"
    SHUT_DOWN_IN_RECOVERY = "shut_down_in_recovery"
    IN_PRODUCTION = "in_production"
    IN_RECOVERY = "in_recovery"
    OTHER = "other"


CLEAN = (ControlState.SHUT_DOWN, ControlState.SHUT_DOWN_IN_RECOVERY)
"""The server ended in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirectory:
    """What `inspect` found, without starting anything. Timeline is of the last checkpoint."""

    kind: DataKind
    why: str = ""
    major: int | None = None
    system_id: str = ""
    control_state: ControlState | None = None
    checkpoint_timeline: int | None = None
    checkpoint_lsn: Lsn | None = None
    standby_signal: bool = False
    wal_missing: str = ""
    """A file of WAL that a crashed primary lacks, though it wrote later ones: its own recovery
    would end before it, take that for the end, and its pages may hold what came after."""


@dataclass(frozen=True, slots=True)
class WalWait:
    """What the startup process said last: that it looks for a file of WAL, or nothing of it."""

    file: str = ""
    """'' if it replays one, does not run, or that cannot be told."""
    asleep: bool = False
    """Right now. It wakes to look again, so awake is no sign of progress; but one that is held up
    by its disk while it looks is not asleep, either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Whom a replica streams from."""

    node_id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What a promotion really did, read from the server's own history file."""

    timeline: int
    parent_timeline: int
    fork_lsn: Lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One probe of a running server."""

    accepting: bool
    role: ServerRole | None = None
    position: Position | None = None
    replayed_lsn: Lsn | None = None
    upstream: int | None = None
    fed_ns: int | None = None
    """When the WAL receiver last got anything from the upstream, CLOCK_BOOTTIME."""
    streaming_replicas: tuple[int, ...] = ()
    lag_seconds: float | None = None
    system_id: str = ""
    version: str = ""
    started_unix_ms: int = 0
    refused: str = ""
    """Why it does not accept: 'starting up', 'timeout', …"""


class ServerData(Protocol):
    """A data directory while no server runs on it (except where said)."""

    @property
    def path(self) -> Path: ...

    async def inspect(self) -> DataDirectory:
        """What is there. Also allowed while the server runs; starts nothing, changes nothing."""

    def tie(self) -> str:
        """Names this very directory: another one that is put in its place has another tie. '' if
        there is none."""

    async def initdb(self) -> None:
        """A fresh cluster in an absent or empty data directory; on failure nothing is left."""

    async def kill_remains(self, *, timeout_ms: int) -> None:
        """After the postmaster's death: kill every process whose working directory is the data
        directory and wait until none is attached to its shared memory (attacks H1)."""

    async def end_of_wal(self, *, timeout_ms: int) -> Position | None:
        """End of valid WAL on disk by scanning (pg_waldump), None if not found, or if that is not
        all that was written (`DataDirectory.wal_missing`)."""

    async def extent(self, *, timeout_ms: int) -> Position | None:
        """How far a stopped replica goes at most: the end of valid WAL on disk, or what its pages
        may show (minimum recovery point), whichever is further. None if the latter is not known,
        as of a primary."""

    async def clone(self, upstream: Upstream) -> None:
        """pg_basebackup into an absent data directory; a failed one is marked PARTIAL."""

    async def rewind(self, upstream: Upstream) -> None:
        """pg_rewind from a running primary; keeps divergent WAL aside first."""

    async def set_aside(self, reason: str) -> Path:
        """Rename the data directory aside and list it; returns the new path."""

    async def remove_data(self) -> None:
        """Delete the data directory: only when a person asked for it by name."""


class WalExchange(Protocol):
    """WAL that one node hands to another under a seal, in whole segments. The calls of the source
    look at files alone; only `replay` needs a running replica, and the others harm none."""

    async def read(self, at: Position, size: int) -> bytes:
        """What this node's own WAL of that timeline says from `at` on: at least one byte, at most
        `size`, and none past the end of a segment. Where valid WAL ends is for the caller to know.
        Raises PostgresError if it is not there any more."""

    async def begin(self, at: Position) -> Lsn:
        """Forget what was kept before. The LSN from which on bytes are needed: the beginning of the
        segment that `at` lies in."""

    async def keep(self, at: Position, data: bytes) -> None:
        """Keep bytes of another node's WAL, apart from the own one. In a segment's file, whatever
        is never kept is zero."""

    async def replay(self, upto: Lsn, *, timeout_ms: int) -> None:
        """The running replica is given what was kept, nothing else, until it has replayed to
        `upto`. Raises PostgresError if it has not in time; `end` is due in any case."""

    async def end(self) -> None:
        """The running replica is given nothing any more, and what was kept is forgotten."""

    async def doubt(self) -> str:
        """Why the WAL of the server that ended last may not be what it had acknowledged: it could
        not write or flush it, or that cannot be told. '' if nothing speaks against it."""


class Server(Protocol):
    """One PostgreSQL server. What concerns its stopped data directory is under `data`."""

    @property
    def data(self) -> ServerData: ...

    @property
    def wal(self) -> WalExchange: ...

    @property
    def fence(self) -> Fence:
        """What keeps the running server from acknowledging without a lease, if it does so itself;
        bound anew at each start and adoption."""

    @property
    def running(self) -> bool:
        """The postmaster that we started or adopted lives (no system call guesses: pidfd)."""

    async def wait_exit(self) -> None:
        """Returns when the running postmaster has exited; at once if none runs."""

    async def adopt(self) -> bool:
        """Find a postmaster already running on the data directory and watch it. False if none."""

    async def start(self, *, replica: bool, upstream: Upstream | None, timeout_ms: int) -> None:
        """Write configuration, set or remove standby.signal, start, return once the postmaster
        lives (not: once it accepts connections)."""

    async def stop(self, mode: StopMode, *, timeout_ms: int) -> None:
        """Stop and wait; on timeout escalates to IMMEDIATE, then SIGKILL of every process of the
        data directory. Afterwards no process of this server lives. No-op if nothing runs."""

    async def probe(self, *, timeout_ms: int) -> ServerFacts: ...

    async def follow(self, upstream: Upstream | None) -> None:
        """Running replica: set primary_conninfo (None: empty, no WAL intake) and reload."""

    def waits_for(self) -> WalWait:
        """For which file of WAL the running replica waits, having replayed all it has. It may get
        it at the next moment."""

    async def sealed_position(self) -> Position | None:
        """Position if no WAL receiver is left and local WAL is replayed to its end; else None."""

    async def promote(self, timeline: int, *, timeout_ms: int) -> Promotion:
        """Promote a replica so that its new timeline is exactly `timeline` (placeholders for lower
        unseen numbers). Raises PostgresError if the result differs."""

    async def ensure_slots(self, members: tuple[int, ...], *, primary: bool) -> None:
        """Slots `ramd_node_<id>` for `members` and none other of that name pattern."""

    async def tell_sync(self, conf: SyncConf) -> None:
        """From now on its configuration says this, at each start as well; a running server is told,
        which is no proof that it goes by it. Costs nothing if it was told before."""

    def tell_again(self) -> None:
        """A running server reads its configuration once more, unchanged."""

    async def sync_facts(self, *, timeout_ms: int) -> SyncFacts:
        """Whom a running primary waits for and who streams from it. Raises PostgresError."""

    async def ensure_roles(self) -> None:
        """On a primary open for writing: the roles RAMD and its replicas log in with exist, with
        the configured passwords. Repeating it costs nothing once it succeeded."""
