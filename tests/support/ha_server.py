"""What a daemon holds of its simulated server: `Server`, `ServerData` and `Fence` over a `Host`.

Every call is bounded, takes its time, and has no effect once its daemon is dead. `on_call` of the
world sees each as it begins, so that a story can strike at any step. Start reading at `SimServer`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.fence import Fence
from ramd.domain.lsn import Lsn
from ramd.domain.observation import DataKind, Position, ServerRole
from ramd.domain.server import (
    DataDirectory,
    Promotion,
    Server,
    ServerData,
    ServerFacts,
    StopMode,
    Upstream,
    WalWait,
)
from ramd.domain.sync import Stream, SyncConf, SyncFacts
from ramd.execute.local import LocalStore
from tests.support.ha_exchange import SimExchange
from tests.support.ha_host import Host
from tests.support.ha_page import SimFence
from tests.support.ha_process import Postmaster
from tests.support.ha_time import Actor
from tests.support.ha_wal import Directory, common_end

POLL_S = 0.01
TAKES_S = {
    "initdb": 0.4,
    "start": 0.05,
    "stop": 0.1,
    "clone": 0.8,
    "rewind": 0.4,
    "end_of_wal": 0.05,
    "promote": 0.05,
}


class SimServer(Server):
    """One daemon's handle on its server."""

    def __init__(self, host: Host, store: LocalStore, actor: Actor) -> None:
        self.host = host
        self.store = store
        self.actor = actor
        self.watched: Postmaster | None = None
        """The postmaster that this daemon started or adopted."""
        self._data = SimData(self)
        self._fence = SimFence(host, actor)
        self._exchange = SimExchange(self)

    @property
    def data(self) -> ServerData:
        return self._data

    @property
    def fence(self) -> Fence:
        return self._fence

    @property
    def wal(self) -> SimExchange:
        return self._exchange

    @property
    def running(self) -> bool:
        return self.watched is not None and self.watched is self.host.server

    async def enter(self, name: str) -> None:
        """Every call begins here."""
        self.host.world.called(self.host, name)
        await asyncio.sleep(TAKES_S.get(name, 0.001) * self.host.world.rng.uniform(0.5, 1.5))

    def must_run(self) -> Postmaster:
        if not self.running or self.watched is None:
            raise PostgresError("no server runs")
        return self.watched

    async def wait_exit(self) -> None:
        if self.watched is not None:
            await self.watched.exited.wait()

    async def adopt(self) -> bool:
        if self.host.server is not None and not self.running:
            self._watch(self.host.server)
        return self.running

    def _watch(self, server: Postmaster) -> None:
        self.watched = server
        self._fence.bind(server.pid)

    async def start(self, *, replica: bool, upstream: Upstream | None, timeout_ms: int) -> None:
        self._fence.unbind()
        await self.enter("start")
        host = self.host
        if host.server is not None:
            raise PostgresError("a server runs already")
        if host.remains is not None:
            raise PostgresError("pre-existing shared memory block is still in use")
        if host.disk.kind is not DataKind.CLUSTER:
            raise PostgresError(f"nothing to start: {host.disk.kind}")
        host.conf.upstream = upstream if replica else None
        host.conf.copy = self.store.record.copy
        if self._flaw("start"):
            raise PostgresError("could not start")
        self._watch(host.run_server(primary=not replica))
        host.world.watch.started(host, primary=not replica)

    def _flaw(self, what: str) -> bool:
        return self.host.world.flaw(self.host, what)

    async def stop(self, mode: StopMode, *, timeout_ms: int) -> None:
        server = self.host.server
        await self.enter("stop")
        if server is not None and server is self.host.server:
            frozen = bool(server.actor.frozen)
            if frozen:
                await asyncio.sleep(min(timeout_ms / 1000, 5.0))
            clean = mode is StopMode.FAST and not frozen
            if clean and server.primary and server.accepting:
                await self._hand_on(server, timeout_ms)
            if server is self.host.server:
                self.host.end_server(clean=clean)
        self._fence.unbind()

    async def _hand_on(self, server: Postmaster, timeout_ms: int) -> None:
        """Sessions end; the shutdown checkpoint is written and sent to who streams."""
        server.backends.kill()
        server.waiters.clear()
        disk = self.host.disk
        disk.append(60)
        server.flush(len(disk.wal))
        loop = asyncio.get_running_loop()
        until_s = loop.time() + min(timeout_ms / 1000, 5.0)
        while loop.time() < until_s and server is self.host.server:
            if all(s.acked >= disk.flushed for s in server.senders):
                return
            await asyncio.sleep(POLL_S)

    async def probe(self, *, timeout_ms: int) -> ServerFacts:
        await self.enter("probe")
        server = self.must_run()
        if server.actor.frozen:
            await asyncio.sleep(timeout_ms / 1000)
            return ServerFacts(accepting=False, refused="timeout")
        if not server.accepting:
            return ServerFacts(accepting=False, refused="starting up")
        receiver = server.receiver
        upstream = receiver.sender if receiver is not None else None
        fed_ns = None
        if receiver is not None and upstream is not None:
            fed_ns = self.host.clock() - int((server.now_s - receiver.heard_s) * 1e9)
        return ServerFacts(
            accepting=True,
            role=ServerRole.PRIMARY if server.primary else ServerRole.REPLICA,
            position=position_of(server),
            replayed_lsn=Lsn(self.host.disk.lsn_at(server.replayed)),
            upstream=upstream.server.host.node_id if upstream is not None else None,
            fed_ns=fed_ns,
            streaming_replicas=tuple(sorted({s.member.node_id for s in server.senders})),
            system_id=self.host.disk.system_id,
        )

    async def follow(self, upstream: Upstream | None) -> None:
        await self.enter(f"follow {upstream.node_id if upstream else None}")
        server = self.must_run()
        if server.primary:
            raise PostgresError("not a running replica")
        self.host.conf.upstream = upstream
        self.host.conf.copy = self.store.record.copy
        server.reload()
        for _ in range(400):
            if upstream is not None or (server.receiver is None and server.upstream is None):
                return
            await asyncio.sleep(POLL_S)
        raise PostgresError("the WAL receiver does not end")

    def waits_for(self) -> WalWait:
        return WalWait()  # no directory here loses WAL that its pages need

    async def sealed_position(self) -> Position | None:
        await self.enter("sealed_position")
        server, disk = self.must_run(), self.host.disk
        attached = server.upstream is not None or server.receiver is not None
        if server.primary or not server.answers or server.given:
            return None
        if attached and self.host.world.seals_detached:
            return None
        if not self.host.world.replays_first:
            return position_of(server)
        whole = server.replayed >= disk.flushed and len(disk.wal) == disk.flushed
        return Position(timeline=disk.timeline, lsn=Lsn(disk.end + disk.torn)) if whole else None

    async def promote(self, timeline: int, *, timeout_ms: int) -> Promotion:
        await self.enter("promote")
        server, disk = self.must_run(), self.host.disk
        if self._flaw("promote"):
            raise PostgresError("could not promote")
        server.actor.call(server.promote, timeline)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_ms / 1000
        while not server.primary:
            if server is not self.host.server or loop.time() > until_s:
                raise PostgresError("the promotion did not end")
            await asyncio.sleep(POLL_S)
        parent, fork = disk.history[-1]
        return Promotion(timeline=disk.timeline, parent_timeline=parent, fork_lsn=Lsn(fork))

    async def ensure_slots(self, members: tuple[int, ...], *, primary: bool) -> None:
        await self.enter("ensure_slots")

    async def tell_sync(self, conf: SyncConf) -> None:
        if conf == self.host.conf.sync:
            return
        await self.enter("tell_sync")
        self.host.conf.sync = conf
        if self.running:
            self.must_run().reload()

    def tell_again(self) -> None:
        if self.running:
            self.must_run().reload()

    async def sync_facts(self, *, timeout_ms: int) -> SyncFacts:
        await self.enter("sync_facts")
        server = self.must_run()
        if not server.answers or not server.primary:
            raise PostgresError("it does not answer")
        conf = self.host.conf.sync
        streams = tuple(
            Stream(
                node_id=s.member.node_id,
                copy=s.member.copy,
                flushed=Lsn(s.flushed),
                counts=s.counts,
            )
            for s in server.senders
        )
        return SyncFacts(flushed=Lsn(self.host.disk.end), names=conf.target.text(), streams=streams)

    async def ensure_roles(self) -> None:
        await self.enter("ensure_roles")


def position_of(server: Postmaster) -> Position:
    """Primary: insert position. Replica: the greater of received and replayed."""
    disk = server.host.disk
    if server.primary:
        return Position(timeline=disk.timeline, lsn=Lsn(disk.inserted))
    count = disk.flushed if server.streamed else server.replayed
    return Position(timeline=disk.timeline, lsn=Lsn(disk.lsn_at(count)))


class SimData(ServerData):
    """The data directory of a `Host`."""

    def __init__(self, server: SimServer) -> None:
        self._server = server

    @property
    def _host(self) -> Host:
        return self._server.host

    @property
    def path(self) -> Path:
        return Path(f"/nowhere/node{self._host.node_id}")

    async def inspect(self) -> DataDirectory:
        await self._server.enter("inspect")
        disk = self._host.disk
        if disk.kind is not DataKind.CLUSTER:
            return DataDirectory(kind=disk.kind, why=f"it is {disk.kind}")
        return DataDirectory(
            kind=disk.kind,
            system_id=disk.system_id,
            control_state=disk.control,
            checkpoint_timeline=disk.timeline,
            checkpoint_lsn=Lsn(disk.lsn_at(disk.restart)),
            standby_signal=disk.standby_signal,
        )

    def tie(self) -> str:
        disk = self._host.disk
        return disk.tie if disk.kind is DataKind.CLUSTER else ""

    async def initdb(self) -> None:
        self._blank()
        self._host.disk = Directory(kind=DataKind.PARTIAL)
        await self._server.enter("initdb")
        world = self._host.world
        disk = Directory(kind=DataKind.CLUSTER, tie=world.new_tie())
        disk.system_id = f"{7_000_000_000 + world.rng.randrange(10**9)}"
        disk.append(100)
        disk.flushed = disk.restart = disk.minimum = 1
        self._host.disk = disk

    async def kill_remains(self, *, timeout_ms: int) -> None:
        await self._server.enter("kill_remains")
        assert self._host.server is None, "remains are killed after the postmaster's death"
        if self._host.world.kills_remains:
            self._host.kill_remains()

    async def end_of_wal(self, *, timeout_ms: int) -> Position | None:
        await self._server.enter("end_of_wal")
        disk = self._host.disk
        end = disk.end if self._host.world.scans_wal else disk.end + disk.recycled
        return Position(timeline=disk.timeline, lsn=Lsn(end)) if disk.flushed else None

    async def extent(self, *, timeout_ms: int) -> Position | None:
        return await self.end_of_wal(timeout_ms=timeout_ms)

    async def clone(self, upstream: Upstream) -> None:
        self._blank()
        source = self._source(upstream)
        if source is None:
            raise PostgresError(f"node {upstream.node_id} does not answer")
        self._host.disk = Directory(kind=DataKind.PARTIAL)
        await self._server.enter("clone")
        if source is not self._source(upstream) or self._server._flaw("clone"):
            raise PostgresError("the base backup broke off")
        # What ends the backup is flushed at the source before: nothing unflushed is copied.
        disk = self._host.disk = source.host.disk.copy_of()
        disk.tie = self._host.world.new_tie()

    async def rewind(self, upstream: Upstream) -> None:
        host, source = self._host, self._source(upstream)
        assert host.server is None
        old = host.disk
        host.aside.append(Directory(kind=old.kind, wal=list(old.wal), flushed=old.flushed))
        await self._server.enter("rewind")
        if source is None or source is not self._source(upstream) or not source.primary:
            host.disk.system_id = "torn"
            raise PostgresError(f"node {upstream.node_id} is no running primary")
        theirs = source.host.disk
        fork = common_end(old, theirs)
        if old.timeline == theirs.timeline:
            return  # "same timeline, no rewind required"
        count = sum(1 for record in theirs.wal[: theirs.flushed] if record.end <= fork)
        disk = theirs.copy_of()
        del disk.wal[count:]
        disk.flushed = disk.restart = disk.minimum = count
        disk.consistent_at = theirs.end
        disk.lose_unflushed()
        disk.tie = host.world.new_tie()
        host.disk = disk

    async def set_aside(self, reason: str) -> Path:
        await self._server.enter("set_aside")
        assert self._host.server is None
        assert self._host.remains is None
        self._host.aside.append(self._host.disk)
        self._host.disk = Directory()
        return self.path

    async def remove_data(self) -> None:
        await self._server.enter("remove_data")
        self._host.world.watch.removed(self._host)
        self._host.disk = Directory()

    def _source(self, upstream: Upstream) -> Postmaster | None:
        world = self._host.world
        server = world.hosts[upstream.node_id].server
        connected = world.network.both(self._host.node_id, upstream.node_id)
        return server if server is not None and server.answers and connected else None

    def _blank(self) -> None:
        assert self._host.server is None
        assert self._host.disk.kind is DataKind.ABSENT, "only into an absent directory"
