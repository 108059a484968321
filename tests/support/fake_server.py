"""A PostgreSQL server in memory: WAL positions, timelines, streaming, and faults on demand.

`FakeNet` holds the servers of all nodes, so that a clone, a rewind and a stream have a real source.
What may be streamed from whom is decided by `fake_wal`. Start reading at `FakeServer`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.fence import Fence, NoFence
from ramd.domain.lsn import Lsn
from ramd.domain.observation import DataKind, Position, ServerRole
from ramd.domain.server import (
    ControlState,
    DataDirectory,
    Promotion,
    Server,
    ServerData,
    ServerFacts,
    StopMode,
    Upstream,
    WalExchange,
    WalWait,
)
from ramd.domain.sync import SyncConf, SyncFacts
from tests.support.fake_exchange import FakeExchange
from tests.support.fake_faults import FakeProcess, Faults
from tests.support.fake_wal import SYSTEM_ID, FakeDisk, common_end, on_line, timeline_at

__all__ = ["SYSTEM_ID", "FakeDisk", "FakeNet", "FakeServer"]

DURATIONS_S = {
    "initdb": 0.5,
    "start": 0.05,
    "recover": 0.1,
    "stop_fast": 0.3,
    "stop_immediate": 0.02,
    "promote": 0.15,
    "clone": 1.0,
    "rewind": 0.5,
    "end_of_wal": 0.1,
    "probe": 0.002,
}


class FakeNet:
    """The servers of all nodes."""

    def __init__(self) -> None:
        self.servers: dict[int, FakeServer] = {}
        self.cut: set[int] = set()
        """Nodes that nobody reaches."""

    def source(self, upstream: Upstream) -> FakeServer | None:
        server = self.servers.get(upstream.node_id)
        if server is None or upstream.node_id in self.cut or not server.accepting:
            return None
        return server

    async def reachable(self, upstream: Upstream) -> bool:
        return self.source(upstream) is not None


class FakeServer(Server):
    """One node's server. `calls` is the journal; `on_call` sees each call as it begins."""

    def __init__(self, node_id: int, net: FakeNet) -> None:
        self.node_id = node_id
        self.net = net
        self.disk = FakeDisk()
        self.process: FakeProcess | None = None
        self.faults = Faults()
        self.calls: list[str] = []
        self.on_call: Callable[[str], None] = lambda name: None
        self.orphans = False
        self.fed_ns: int | None = None
        self.looks_at_wait = 0
        self.slots: tuple[bool, tuple[int, ...]] | None = None
        self.aside: list[FakeDisk] = []
        self.data_half = FakeServerData(self)
        self.exchange = FakeExchange(self)
        self.inside: Fence = NoFence()
        self.told: SyncConf | None = None
        self.streams = SyncFacts(flushed=Lsn(0), names="")
        """What a look at its streams shows."""
        net.servers[node_id] = self

    @property
    def fence(self) -> Fence:
        return self.inside

    # --- for tests ---------------------------------------------------------------------------

    def fail(self, name: str, *errors: BaseException) -> None:
        """The next calls of `name` raise `errors`, one each."""
        self.faults.fail.setdefault(name, deque()).extend(errors)

    def crash(self) -> None:
        """SIGKILL of the postmaster: its backends go on as orphans until they are killed."""
        assert self.process is not None
        self.orphans = True
        self._ended(clean=False)

    def write(self, amount: int = 100) -> None:
        """A primary that accepts writes some WAL."""
        assert self.accepting
        assert self.primary
        self.disk.end += amount

    @property
    def accepting(self) -> bool:
        """It answers SQL."""
        if self.process is None or self.faults.hung:
            return False
        if asyncio.get_running_loop().time() < self.process.accepts_at:
            return False
        return self.process.primary or self.disk.end >= self.disk.consistent_at

    @property
    def primary(self) -> bool:
        """It runs and may write."""
        return self.process is not None and self.process.primary

    def as_cluster(self, *, timeline: int = 1, end: int = 1000) -> FakeServer:
        """A stopped cluster of the common system id on the disk."""
        self.disk = FakeDisk(kind=DataKind.CLUSTER, system_id=SYSTEM_ID, timeline=timeline, end=end)
        return self

    def now_running(self, *, primary: bool, upstream: Upstream | None = None) -> FakeServer:
        """It runs already, as if somebody had started it earlier."""
        self.disk.standby_signal = not primary
        self.disk.upstream = upstream
        self.disk.control = ControlState.IN_PRODUCTION if primary else ControlState.IN_RECOVERY
        self.process = FakeProcess(primary=primary, accepts_at=0.0)
        return self

    async def enter(self, name: str, duration: str = "", *, needed_s: float | None = None) -> None:
        """Every call begins here: journal, then its time, then its failure."""
        self.calls.append(name)
        self.on_call(name)
        if needed_s is None:
            needed_s = DURATIONS_S.get(duration or name, 0.0) + self.faults.extra_s.get(name, 0)
        await asyncio.sleep(needed_s)
        queued = self.faults.fail.get(name)
        if queued:
            raise queued.popleft()

    # --- Server ------------------------------------------------------------------------------

    @property
    def data(self) -> ServerData:
        return self.data_half

    @property
    def wal(self) -> WalExchange:
        return self.exchange

    @property
    def running(self) -> bool:
        return self.process is not None

    async def wait_exit(self) -> None:
        if self.process is not None:
            await self.process.exited.wait()

    async def adopt(self) -> bool:
        if self.process is not None:
            self.inside.bind(self.process.pid)
        return self.running

    async def start(self, *, replica: bool, upstream: Upstream | None, timeout_ms: int) -> None:
        kind = "primary" if not replica else f"replica of {upstream.node_id if upstream else None}"
        self.calls.append(f"start as {kind}")
        await self.enter("start")
        assert self.process is None, "started twice"
        self.inside.unbind()
        if self.orphans:
            raise PostgresError("pre-existing shared memory block is still in use")
        if self.disk.kind is not DataKind.CLUSTER:
            raise PostgresError(f"nothing to start: {self.disk.kind}")
        self.disk.standby_signal = replica
        self.disk.upstream = upstream
        self.disk.control = ControlState.IN_RECOVERY if replica else ControlState.IN_PRODUCTION
        now = asyncio.get_running_loop().time()
        self.process = FakeProcess(primary=not replica, accepts_at=now + DURATIONS_S["recover"])
        self.inside.bind(self.process.pid)

    async def stop(self, mode: StopMode, *, timeout_ms: int) -> None:
        self.calls.append(f"stop {mode}")
        needed_s = DURATIONS_S[f"stop_{mode}"] + self.faults.extra_s.get("stop", 0)
        if self.faults.hung or needed_s > timeout_ms / 1000:
            needed_s, mode = timeout_ms / 1000, StopMode.IMMEDIATE
            self.calls.append("sigkill")
        await self.enter("stop", needed_s=needed_s)
        if self.process is not None:
            self.faults.hung = False
            self._ended(clean=mode is StopMode.FAST)
        self.inside.unbind()

    async def probe(self, *, timeout_ms: int) -> ServerFacts:
        if self.faults.hung:
            await asyncio.sleep(timeout_ms / 1000)
            return ServerFacts(accepting=False, refused="timeout")
        await self.enter("probe")
        if self.process is None:
            raise PostgresError("no server runs")
        self.stream()
        if not self.accepting:
            return ServerFacts(accepting=False, refused="starting up")
        role = ServerRole.PRIMARY if self.process.primary else ServerRole.REPLICA
        return ServerFacts(
            accepting=True,
            role=role,
            position=self.disk.position,
            replayed_lsn=None if self.process.primary else Lsn(self.disk.end - self.faults.torn),
            upstream=self._streams_from(),
            fed_ns=self.fed_ns,
            streaming_replicas=self._replicas(),
            system_id=self.disk.system_id,
        )

    async def follow(self, upstream: Upstream | None) -> None:
        await self.enter(f"follow {upstream.node_id if upstream else None}")
        if self.process is None or self.process.primary:
            raise PostgresError("not a running replica")
        self.disk.upstream = upstream

    def waits_for(self) -> WalWait:
        hungry = self.process is not None and not self.primary and not self.faults.hung
        if hungry and self.disk.end < self.disk.consistent_at and self._source() is None:
            self.looks_at_wait += 1  # every third one meets it awake: it looks for the file again
            file = f"{self.disk.timeline:08X}{self.disk.end:016X}"
            return WalWait(file, asleep=not self.faults.disk_hangs and self.looks_at_wait % 3 != 0)
        return WalWait()

    async def sealed_position(self) -> Position | None:
        await self.enter("sealed_position", "probe")
        if not self.accepting or self.disk.upstream is not None or self.faults.never_replays:
            return None
        if self.exchange.given:
            return None
        return self.disk.position

    async def promote(self, timeline: int, *, timeout_ms: int) -> Promotion:
        await self.enter("promote")
        if self.process is None or self.process.primary:
            raise PostgresError("not a running replica")
        parent, fork = self.disk.timeline, Lsn(self.disk.end)
        self.disk.history = (*self.disk.history, (parent, self.disk.end))
        self.disk.timeline = self.faults.promote_to or timeline
        self.disk.end += 10
        self.disk.standby_signal = False
        self.disk.upstream = None
        self.disk.control = ControlState.IN_PRODUCTION
        self.process.primary = True
        return Promotion(timeline=self.disk.timeline, parent_timeline=parent, fork_lsn=fork)

    async def ensure_slots(self, members: tuple[int, ...], *, primary: bool) -> None:
        await self.enter("ensure_slots")
        self.slots = (primary, members)

    async def tell_sync(self, conf: SyncConf) -> None:
        if conf != self.told:
            await self.enter("tell_sync")
            self.told = conf

    def tell_again(self) -> None:
        self.calls.append("tell_again")
        self.on_call("tell_again")

    async def sync_facts(self, *, timeout_ms: int) -> SyncFacts:
        await self.enter("sync_facts", "probe")
        return self.streams

    async def ensure_roles(self) -> None:
        await self.enter("ensure_roles")

    # --- inside ------------------------------------------------------------------------------

    def stream(self) -> None:
        """Take the WAL that the upstream has, if it is on our line."""
        source = self._source()
        if source is not None:
            self.disk.timeline = source.disk.timeline
            self.disk.history = source.disk.history
            self.disk.end = source.disk.end

    def _source(self) -> FakeServer | None:
        upstream = self.disk.upstream
        if upstream is None or self.process is None or self.process.primary:
            return None
        if self.faults.wal_gone:
            return None
        source = self.net.source(upstream)
        return source if source is not None and on_line(self.disk, source.disk) else None

    def _streams_from(self) -> int | None:
        source = self._source()
        return source.node_id if source else None

    def _replicas(self) -> tuple[int, ...]:
        others = self.net.servers.values()
        return tuple(s.node_id for s in others if s._streams_from() == self.node_id)

    def _ended(self, *, clean: bool) -> None:
        process = self.process
        assert process is not None
        if clean:
            control = (
                ControlState.SHUT_DOWN if process.primary else ControlState.SHUT_DOWN_IN_RECOVERY
            )
            self.disk.control = control
            if process.primary:
                self._hand_on_the_last_wal()
        self.process = None
        process.exited.set()

    def _hand_on_the_last_wal(self) -> None:
        replicas = [self.net.servers[n] for n in self._replicas()]
        self.disk.end += 1  # the shutdown checkpoint
        for replica in replicas:
            replica.disk.end = self.disk.end


class FakeServerData(ServerData):
    """The directory of a `FakeServer`."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    @property
    def path(self) -> Path:
        return Path(f"/nowhere/node{self._server.node_id}")

    async def inspect(self) -> DataDirectory:
        await self._server.enter("inspect", "probe")
        disk = self._server.disk
        if disk.kind is not DataKind.CLUSTER:
            return DataDirectory(kind=disk.kind, why=f"it is {disk.kind}")
        return DataDirectory(
            kind=disk.kind,
            system_id=disk.system_id,
            control_state=disk.control,
            checkpoint_timeline=disk.timeline,
            checkpoint_lsn=Lsn(disk.end),
            standby_signal=disk.standby_signal,
            wal_missing=disk.wal_missing,
        )

    def tie(self) -> str:
        disk = self._server.disk
        return str(id(disk)) if disk.kind is DataKind.CLUSTER else ""

    async def initdb(self) -> None:
        await self._server.enter("initdb")
        self._blank()
        self._server.as_cluster(end=100)

    async def kill_remains(self, *, timeout_ms: int) -> None:
        await self._server.enter("kill_remains")
        assert not self._server.running, "remains are killed after the postmaster's death"
        self._server.orphans = False

    async def end_of_wal(self, *, timeout_ms: int) -> Position | None:
        needed_s = DURATIONS_S["end_of_wal"] + self._server.faults.extra_s.get("end_of_wal", 0)
        self._server.calls.append("end_of_wal")
        await asyncio.sleep(min(needed_s, timeout_ms / 1000))
        return self._server.disk.position if needed_s <= timeout_ms / 1000 else None

    async def extent(self, *, timeout_ms: int) -> Position | None:
        await self._server.enter("extent", "end_of_wal")
        disk = self._server.disk
        if disk.crashed_primary:
            return None
        return Position(timeline=disk.timeline, lsn=Lsn(max(disk.end, disk.consistent_at)))

    async def clone(self, upstream: Upstream) -> None:
        self._blank()
        source = self._server.net.source(upstream)
        if source is None:
            await self._server.enter("clone", "probe")
            raise PostgresError(f"node {upstream.node_id} does not answer")
        self._server.disk = FakeDisk(kind=DataKind.PARTIAL)
        await self._server.enter("clone")
        self._server.disk = replace(
            source.disk,
            kind=DataKind.CLUSTER,
            standby_signal=True,
            control=ControlState.IN_PRODUCTION,
            upstream=None,
        )

    async def rewind(self, upstream: Upstream) -> None:
        disk = self._server.disk
        assert not self._server.running
        assert disk.kind is DataKind.CLUSTER
        source = self._server.net.source(upstream)
        disk.system_id = "torn"
        await self._server.enter("rewind")
        if source is None or not source.primary:
            raise PostgresError(f"node {upstream.node_id} is no running primary")
        disk.system_id = source.disk.system_id
        fork = common_end(disk, source.disk)
        disk.history = tuple(h for h in source.disk.history if h[1] <= fork)
        disk.timeline = timeline_at(source.disk, fork)
        disk.end = fork
        disk.consistent_at = source.disk.end

    async def set_aside(self, reason: str) -> Path:
        await self._server.enter("set_aside")
        assert not self._server.running
        assert not self._server.orphans
        self._server.aside.append(self._server.disk)
        self._server.disk = FakeDisk()
        return self.path.with_suffix(f".aside-{len(self._server.aside)}")

    async def remove_data(self) -> None:
        await self._server.enter("remove_data")
        assert not self._server.running
        self._server.disk = FakeDisk()

    def _blank(self) -> None:
        assert not self._server.running
        assert self._server.disk.kind is DataKind.ABSENT, "only into an absent directory"
