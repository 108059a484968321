"""Keeps the newest facts about this node's server and makes an `Observation` of them on demand.

Lives here: when a server is probed, when its directory is inspected, and what the facts add up to.
Must not live here: a decision, a change to the server. Start reading at `Observer.observation`.

Three sources: the exit of the postmaster (definite, at once); the page that the server's extension
writes every ten milliseconds (liveness, role, positions); a SQL probe each interval for the rest
(streams, identity), and for all of it where there is no page. Silence of all while the postmaster
lives means that the server hangs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ramd import events
from ramd.domain.errors import PostgresError
from ramd.domain.fence import FenceCounts, Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.observation import (
    DataKind,
    FenceKind,
    Observation,
    Position,
    RaftMark,
    ServerRole,
    ServerState,
    Standing,
)
from ramd.domain.server import CLEAN, DataDirectory, Server, ServerFacts

NS_PER_MS = 1_000_000
PROBE_GRACE_MS = 500
"""A probe bounds itself; this much later it is cut off from outside."""
FLUSH_HUNG_MS = 5_000
"""A flush of WAL that takes so long means that the disk hangs: no commit ends."""
QUICK_MS = 100
QUICK_LOOKS_MAX = 3
"""After a change a replica that streams from nobody yet is looked at again this soon, then after
twice the time: it begins to stream within moments, and people and the coordinator wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who observes. `boot` grows with each start of the daemon."""

    node_id: int
    boot: int
    daemon_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how patiently the server is asked."""

    interval_ms: int = 1_000
    probe_timeout_ms: int = 1_000
    hung_after: int = 3
    """Probes in a row without any answer, while the postmaster lives, that mean it hangs."""


@dataclass(slots=True)
class Cache:
    """The newest facts. `facts` are those of the server that runs now; None: none yet."""

    facts: ServerFacts | None = None
    timeouts: int = 0
    directory: DataDirectory | None = None
    stale: bool = True
    """The directory may have changed since it was inspected."""
    exited: bool = False
    """The last server was seen to exit, and the directory has not been inspected since."""
    counts: FenceCounts | None = None
    """As they were told last."""
    off_told: bool = False
    """It was said that enforcement is off."""
    quick_looks: int = 0
    """How often it was looked at sooner than the pace says since it was last touched."""


class Observer:
    """The one that knows how this node's server is. All calls from the control loop's thread.

    `wake` is called when something changed that is worth a look now: at once when the postmaster
    exits, after `exited`, and whenever state or role differ from what was seen before.
    """

    def __init__(
        self,
        server: Server,
        *,
        identity: Identity,
        wake: Callable[[], None],
        exited: Callable[[], None] = lambda: None,
        pace: Pace | None = None,
    ) -> None:
        self._server = server
        self._identity = identity
        self._wake = wake
        self._exited = exited
        self._pace = pace or Pace()
        self._cache = Cache()
        self._look = asyncio.Event()
        self._watch = asyncio.Event()

    def touch(self) -> None:
        """The server or its directory may have changed: probe or inspect now."""
        self._cache.stale = True
        self._cache.quick_looks = 0
        self._look.set()
        self._watch.set()

    def observation(
        self,
        now_ns: int,
        *,
        standing: Standing,
        lease: tuple[int, int] = (0, 0),
        loop_lag_ms: int = 0,
        raft: RaftMark | None = None,
    ) -> Observation:
        """The facts as they are known now, without any I/O. `lease`: (epoch, deadline ns; 0 none)
        of this node. `raft`: where its member of the group stands."""
        cache, facts, pulse = self._cache, self._facts, self._pulse()
        role = self._role(pulse)
        lease_left_ms = max(0, lease[1] - now_ns) // NS_PER_MS if lease[1] else 0
        return Observation(
            node_id=self._identity.node_id,
            boot=self._identity.boot,
            taken_ns=now_ns,
            data=self._data(),
            state=self._state(pulse, rejoining=standing.rejoining),
            role=role,
            accepting=self._accepting(pulse, role),
            system_id=facts.system_id or (cache.directory.system_id if cache.directory else ""),
            position=self._position(pulse) or self._position_at_rest(standing),
            replayed_lsn=self._replayed(pulse),
            upstream=facts.upstream,
            fed_ms=None if facts.fed_ns is None else max(0, now_ns - facts.fed_ns) // NS_PER_MS,
            streaming_replicas=facts.streaming_replicas,
            lag_seconds=self._lag(pulse),
            sealed=standing.sealed,
            epoch_opened=standing.opened_epoch,
            lease_left_ms=lease_left_ms,
            fenced=self._fenced(role, standing, pulse),
            fence=self._fence(pulse),
            flush_stuck_ms=pulse.flush_stuck_ms if pulse is not None else 0,
            activity=standing.activity,
            failures=standing.failures,
            version=facts.version,
            started_unix_ms=facts.started_unix_ms,
            loop_lag_ms=loop_lag_ms,
            daemon_version=self._identity.daemon_version,
            copy=standing.copy,
            raft=raft,
        )

    async def run(self) -> None:
        """Watch and probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_exits())
            group.create_task(self._look_repeatedly())

    # --- what the facts add up to ------------------------------------------------------------

    @property
    def _facts(self) -> ServerFacts:
        if not self._server.running or self._cache.facts is None:
            return NOTHING
        return self._cache.facts

    def _pulse(self) -> Pulse | None:
        return self._server.fence.pulse() if self._server.running else None

    def _role(self, pulse: Pulse | None) -> ServerRole | None:
        """The page knows of a promotion at once; but before the server has accepted connections it
        is not told from its page whether it is a replica or a primary that recovers."""
        if pulse is None or self._facts.role is None:
            return self._facts.role
        return ServerRole.REPLICA if pulse.in_recovery else ServerRole.PRIMARY

    def _accepting(self, pulse: Pulse | None, role: ServerRole | None) -> bool:
        """One that its page shows as a primary is asked once more: what it answered as a replica
        does not say that its promotion came to an end."""
        promoted = role is ServerRole.PRIMARY and self._facts.role is ServerRole.REPLICA
        return self._facts.accepting and not promoted and not self._hung(pulse)

    def _position(self, pulse: Pulse | None) -> Position | None:
        fresh = pulse.position if pulse is not None and self._facts.role is not None else None
        return fresh or self._facts.position

    def _replayed(self, pulse: Pulse | None) -> Lsn | None:
        if self._role(pulse) is not ServerRole.REPLICA:
            return None
        fresh = pulse.replayed_lsn if pulse is not None else None
        return fresh or self._facts.replayed_lsn

    def _lag(self, pulse: Pulse | None) -> float | None:
        """None unless it streams; 0 if everything received is replayed."""
        known = self._facts.lag_seconds
        if known is None or pulse is None or not pulse.in_recovery:
            return known if self._role(pulse) is ServerRole.REPLICA else None
        if pulse.received_lsn == pulse.replayed_lsn or not pulse.replayed_commit_unix_us:
            return 0.0
        return max(0.0, time.time() - pulse.replayed_commit_unix_us / 1e6)

    def _fence(self, pulse: Pulse | None) -> FenceKind:
        if not self._server.running:
            return FenceKind.NONE
        if not self._server.fence.guards:
            return FenceKind.STAND_IN
        return FenceKind.OFF if pulse is not None and not pulse.enforce else FenceKind.EXTENSION

    def _hung(self, pulse: Pulse | None) -> bool:
        """Neither SQL nor page answers, or WAL does not reach the disk any more. A page that
        goes on tells a server that lives from one that has no connection to spare."""
        if pulse is not None:
            return pulse.flush_stuck_ms >= FLUSH_HUNG_MS
        return self._cache.timeouts >= self._pace.hung_after

    def _data(self) -> DataKind:
        if self._server.running:
            return DataKind.CLUSTER
        if self._cache.directory is None:
            return DataKind.CLUSTER if self._cache.exited else DataKind.ABSENT
        return self._cache.directory.kind

    def _state(self, pulse: Pulse | None, *, rejoining: bool = False) -> ServerState:
        state = self._running_state(pulse) if self._server.running else self._stopped_state()
        if rejoining and state is not ServerState.RUNNING and state is not ServerState.HUNG:
            return ServerState.REJOINING
        return state

    def _running_state(self, pulse: Pulse | None) -> ServerState:
        if self._hung(pulse):
            return ServerState.HUNG
        if self._facts.accepting:
            return ServerState.RUNNING
        return ServerState.STARTING

    def _stopped_state(self) -> ServerState:
        directory = self._cache.directory
        if self._cache.exited or (directory is None and self._cache.facts is not None):
            return ServerState.CRASHED
        if directory is None:
            return ServerState.UNKNOWN
        clean = directory.kind is not DataKind.CLUSTER or directory.control_state in CLEAN
        return ServerState.STOPPED if clean else ServerState.CRASHED

    def _position_at_rest(self, standing: Standing) -> Position | None:
        """Of a stopped directory that this node has never led with: its last checkpoint. A
        directory to adopt shows by it which timeline it is on; of any other it would tell less
        than what is already known."""
        found = self._cache.directory
        if standing.opened_epoch or self._server.running or found is None:
            return None
        if found.kind is not DataKind.CLUSTER or found.standby_signal:
            return None
        if found.checkpoint_timeline is None or found.checkpoint_lsn is None:
            return None
        return Position(timeline=found.checkpoint_timeline, lsn=found.checkpoint_lsn)

    def _fenced(self, role: ServerRole | None, standing: Standing, pulse: Pulse | None) -> bool:
        """The server's own word where it checks the lease itself; else only one that is a replica,
        or that does not run, surely acknowledges nothing."""
        if pulse is not None:
            return pulse.in_recovery or pulse.fenced
        if not self._server.running or role is ServerRole.REPLICA:
            return True
        return role is None and standing.opened_epoch <= standing.released_epoch

    # --- the two watches ---------------------------------------------------------------------

    async def _watch_exits(self) -> None:
        while True:
            self._watch.clear()
            if not self._server.running:
                await self._watch.wait()
                continue
            await self._server.wait_exit()
            self._exited()
            self._cache = Cache(exited=True, counts=self._cache.counts)
            events.emit(events.ServerExited())
            self._wake()
            self._look.set()

    async def _look_repeatedly(self) -> None:
        before, streams = self._seen(), self._streams()
        while True:
            self._look.clear()
            if self._server.running:
                self._watch.set()
                await self._probe()
            elif self._cache.stale or self._cache.directory is None:
                await self._inspect()
            self._warn()
            after = self._seen()
            if after != before:
                role = after[2] or "no role"
                events.emit(events.ServerSeen(state=after[1], role=role, data=after[0]))
            if (after, self._streams()) != (before, streams):
                self._wake()
            # Kept over the pause: the page shows a change of role, or a hang, without any look.
            before, streams = after, self._streams()
            await self._pause()

    def _seen(self) -> tuple[DataKind, ServerState, ServerRole | None]:
        pulse = self._pulse()
        return self._data(), self._state(pulse), self._role(pulse)

    def _warn(self) -> None:
        """What people should hear about the fence."""
        counts = self._server.fence.counts()
        told, self._cache.counts = self._cache.counts, counts
        if told is not None and (more := counts.since(told)) != FenceCounts():
            events.emit(
                events.FenceActed(
                    refused_statements=more.refused_statements,
                    refused_commits=more.refused_commits,
                    dropped_acks=more.dropped_acks,
                    dropped_sync=more.dropped_sync,
                    ended_sessions=more.ended_sessions,
                )
            )
        pulse = self._pulse()
        if pulse is not None:
            off = self._fence(pulse) is FenceKind.OFF
            if off and not self._cache.off_told:
                events.emit(events.EnforcementOff())
            self._cache.off_told = off

    def _streams(self) -> tuple[int | None, tuple[int, ...]]:
        return self._facts.upstream, self._facts.streaming_replicas

    async def _pause(self) -> None:
        cache, interval_ms = self._cache, self._pace.interval_ms
        lonely = self._facts.role is ServerRole.REPLICA and self._facts.upstream is None
        if lonely and cache.quick_looks < QUICK_LOOKS_MAX:
            interval_ms = min(interval_ms, QUICK_MS * 2**cache.quick_looks)
            cache.quick_looks += 1
        try:
            async with asyncio.timeout(interval_ms / 1000):
                await self._look.wait()
        except TimeoutError:
            return

    async def _probe(self) -> None:
        cache, timeout_ms = self._cache, self._pace.probe_timeout_ms
        try:
            async with asyncio.timeout((timeout_ms + PROBE_GRACE_MS) / 1000):
                facts = await self._server.probe(timeout_ms=timeout_ms)
        except (PostgresError, TimeoutError) as error:
            refused = "timeout" if isinstance(error, TimeoutError) else str(error)
            facts = ServerFacts(accepting=False, refused=refused)
        if cache is not self._cache:
            return  # these are facts of a server that has ended meanwhile
        if not facts.accepting:
            events.emit(events.ProbeFailed(why=facts.refused))
        if facts.accepting or facts.refused != "timeout":
            cache.timeouts = 0
            if facts.accepting and facts.role is None and cache.facts:
                # It lives but had no connection to spare: what it said before still stands, and
                # what it is now its page says.
                cache.facts = replace(cache.facts, role=self._role(self._pulse()))
            else:
                cache.facts = facts
            cache.exited = False
            return
        cache.timeouts += 1
        if cache.timeouts == self._pace.hung_after:
            events.emit(events.ServerHung(probe_count=cache.timeouts))

    async def _inspect(self) -> None:
        self._cache.stale = False
        try:
            directory = await self._server.data.inspect()
        except (PostgresError, OSError) as error:
            events.emit(events.InspectFailed(why=str(error)))
            self._cache.stale = True
            return
        if not self._server.running:
            self._cache.directory = directory
            self._cache.exited = False


NOTHING = ServerFacts(accepting=False)
