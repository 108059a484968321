"""The values that transitions work with: situations, collaborators, bounds, knowledge.

Must not live here: anything that acts. Start reading at `Situation` and `Ports`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from ramd.domain.consensus import Consensus
from ramd.domain.model import ClusterState
from ramd.domain.observation import Attempt, Fetched, Position, SealReport
from ramd.domain.server import Server, Upstream
from ramd.execute.local import LocalStore


class Situation(StrEnum):
    """Where a server and its data directory stand when a transition begins."""

    ABSENT = "absent"
    PARTIAL = "partial"
    """Not to be started: an unfinished clone, or the result of a rewind that was not proven."""
    FOREIGN = "foreign"
    """Not ours to touch, or of another system id than the cluster's."""
    STOPPED = "stopped"
    CRASHED = "crashed"
    STARTING = "starting"
    """Lives as a replica and does not accept connections."""
    REPLICA = "replica"
    PRIMARY = "primary"
    """Lives and may write: accepting or not."""


class Step(StrEnum):
    """What a transition says at its end."""

    AGAIN = "again"
    """One bounded step is done; look again and take the next."""
    DONE = "done"


class NotYet(Exception):
    """Nothing failed, but the goal needs something that has not happened yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Bounds of the executor, in milliseconds unless named otherwise."""

    start_ms: int = 30_000
    recover_ms: int = 60_000
    """How long one wait for a server to accept connections, or to replay its WAL, lasts."""
    stop_ms: int = 30_000
    yield_stop_ms: int = 10_000
    near_ms: int = 5_000
    """How long a switchover waits, before it fences, for a target that is behind."""
    drain_ms: int = 200
    """How long open transactions may still end by themselves in a switchover."""
    yield_ms: int = 2_000
    """How long the rest of it may take until the release; then it is undone."""
    kill_ms: int = 5_000
    promote_ms: int = 15_000
    probe_ms: int = 1_000
    wal_scan_ms: int = 250
    """Reading the end of WAL must not hold up a release (crash)."""
    yield_scan_ms: int = 3_000
    propose_s: float = 3.0
    poll_max_ms: int = 100
    not_yet_ms: int = 200
    synced_ms: int = 2_000
    """How long one wait for synchronous replicas lasts; then it is begun again."""
    refresh_ms: int = 5_000
    """How often a reached goal is looked at again."""
    stream_silent_ms: int = 30_000
    """A replica attached for so long without streaming has its lineage judged again."""
    starved_ms: int = 5_000
    """A replica that has no upstream and waits so long for one file of WAL cannot come up."""
    fetch_ms: int = 4_500
    """Getting WAL from another node, with its replay; the coordinator waits a little longer."""
    rejudge_max: int = 2
    """After so many judgements without any streaming the needed WAL is taken to be gone."""
    starts_max: int = 8
    """After so many failed starts the directory is taken to be unusable."""
    retry_first_ms: int = 200
    retry_max_ms: int = 30_000
    steps_max: int = 12
    """Steps of one attempt; more would mean that transitions go in a circle."""


@dataclass(slots=True)
class Ended:
    """The server of `epoch`, opened here, has ended for good, and `end` is where its WAL ends, as
    far as that was found. Blank in a daemon that has not seen it."""

    epoch: int = 0
    end: Position | None = None


async def reachable(upstream: Upstream) -> bool:
    """Something accepts TCP connections there; bounded to two seconds."""
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection(upstream.host, upstream.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The collaborators of the executor and the guard."""

    me: int
    server: Server
    consensus: Consensus
    store: LocalStore
    clock: Callable[[], int]
    """CLOCK_BOOTTIME now, ns."""
    changed: Callable[[], None]
    """The server or its directory may have changed: probe and plan again soon."""
    timing: Timing = field(default_factory=Timing)
    ended: Ended = field(default_factory=Ended)
    reachable: Callable[[Upstream], Awaitable[bool]] = reachable
    unix_ms: Callable[[], int] = lambda: 0
    """Wall clock for people only."""
    unsynced: Callable[[int], str] = lambda epoch: ""
    """Why no lease of the epoch may be published yet because of synchronous replicas; '' if it
    may. See `ramd.execute.syncing`."""
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever `unsynced` may have become ''."""

    @property
    def state(self) -> ClusterState:
        return self.consensus.state()

    @property
    def others(self) -> tuple[int, ...]:
        """Ids of the other members."""
        return tuple(m.node_id for m in self.state.members if m.node_id != self.me)


@dataclass(slots=True)
class Yielding:
    """A switchover whose fence has fallen: the server of `epoch`, in this very start of it, runs on
    without ever acknowledging anything more in that epoch."""

    epoch: int
    begun_ns: int
    start_number: int
    shut_ns: int = 0
    """The lease word is 0 since before this."""
    released: bool = False


@dataclass(slots=True)
class Intake:
    """What the running replica got of another node's WAL, under a seal."""

    given: bool = False
    """It was given some, and that has not been taken away again."""
    fetched: tuple[Attempt, Fetched] | None = None
    """How the last fetch ended, and under which attempt."""
    reach: int = 0
    """It has been given all WAL to here; an incomplete record at its end it does not count."""


@dataclass(slots=True)
class Tried:
    """What was tried for the present goal; it outlives the server."""

    rejudged: int = 0
    """Judgements in a row without streaming afterwards."""
    rewinds: int = 0
    """A second one would only repeat the first."""
    starts: int = 0
    """Starts in a row that did not end in a replica that answers."""
    made_room: bool = False
    """The directory was kept aside: once is enough."""


@dataclass(slots=True)
class Knowledge:
    """What this process did to the server that runs now; blank again whenever it stops."""

    attached: Upstream | None = None
    detached: bool = False
    """Its WAL intake was emptied by us and nothing was attached since."""
    report: SealReport | None = None
    answered: int = 0
    """Which start of it was found to be a replica that accepts connections; 0: none."""
    slots: tuple[bool, tuple[int, ...]] | None = None
    silent_since_ns: int | None = None
    tried: Tried = field(default_factory=Tried)
    completing: Upstream | None = None
    """Whose WAL makes this server consistent: it was rewound, or lacks WAL of its own."""
    intake: Intake = field(default_factory=Intake)
    yielding: Yielding | None = None
    """Outlives the server: its end in a switchover must be told, too."""

    def forget_server(self) -> None:
        """The server that all this was about has ended."""
        self.attached = None
        self.detached = False
        self.report = None
        self.answered = 0
        self.slots = None
        self.silent_since_ns = None
        self.completing = None
        self.intake = Intake()

    def forget_goal(self) -> None:
        """Another goal: what was tried for the last one is open again."""
        self.tried = Tried()


@dataclass(slots=True)
class Progress:
    """What is under way, for people and for the executor's own decision to interrupt."""

    activity: str = ""
    rejoining: bool = False
    interruptible: bool = False
    superseded: bool = False
