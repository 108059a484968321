"""One running server, from its start to its end. Start reading at `Instance`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from ramd import events, sync_events
from ramd.domain.errors import PostgresError, Refused
from ramd.domain.fence import Fence, NoFence
from ramd.domain.observation import DataKind, Position
from ramd.domain.server import Promotion, ServerFacts, StopMode, Upstream, WalWait
from ramd.domain.sync import SyncConf, SyncFacts
from ramd.postgres.child import Watched
from ramd.postgres.conf import read_upstream, write_all, write_auto, write_upstream
from ramd.postgres.control import ControlFile
from ramd.postgres.data import DataDir
from ramd.postgres.exchange import Exchange
from ramd.postgres.files import on_disk, read_file
from ramd.postgres.options import ServerOptions
from ramd.postgres.orphans import end_process, kill_remains
from ramd.postgres.probe import Link
from ramd.postgres.process import clear_old_promotion, find_running, launch, set_signal_file
from ramd.postgres.promote import Eyes, PageEyes, SqlEyes, promote
from ramd.postgres.roles import ensure_roles
from ramd.postgres.seal import sealed_position, waits_for
from ramd.postgres.session import Session, SessionError, open_local
from ramd.postgres.site import Site, open_site
from ramd.postgres.slots import ensure_slots
from ramd.postgres.standbys import Naming, read_sync, standby_names
from ramd.postgres.sync import sync_facts

IMMEDIATE_MS = 2000
KILL_MS = 5000
CONNECT_MS = 5000
RECEIVER_GONE_MS = 5000
RECEIVER_PATIENCE_MS = 300
POLL_S = 0.01
SOON_S = 0.002

SIGNALS = {StopMode.FAST: signal.SIGINT, StopMode.IMMEDIATE: signal.SIGQUIT}
RECEIVERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'"


class Conf:
    """RAMD's file of one server and who has been told of it. Two may change it at once: whoever
    moves its upstream, and whoever keeps its synchronous set."""

    def __init__(self, site: Site, copy: Callable[[], str]) -> None:
        self.upstream: Upstream | None = None
        self.sync: SyncConf | None = None
        self.given = False
        """The replica gets WAL that was fetched for it."""
        self._site = site
        self._copy = copy
        self._told = True
        self._said: tuple[SyncConf, int] | None = None
        self._writing = asyncio.Lock()

    def naming(self) -> Naming:
        """What the file says, or is to say. Before anybody has said anything in this run of the
        daemon that is what it said already: a running primary never waits for fewer by accident."""
        if self.sync is None:
            self.sync = read_sync(read_file(self._site.conf_file, self._site.account) or "")
        return Naming(copy=self._copy(), sync=self.sync)

    async def tell(self, postmaster: Watched) -> None:
        """The file is right, and the server has been told since it changed."""
        async with self._writing:
            told, self._told = self._told, False  # cut short between file and signal: say it again
            site, upstream, naming, given = self._site, self.upstream, self.naming(), self.given
            if (
                await on_disk(lambda: write_upstream(site, upstream, naming, given=given))
                or not told
            ):
                postmaster.send(signal.SIGHUP)
            self._told = True
            self._said = (naming.sync, postmaster.pid)

    async def tell_sync(self, postmaster: Watched) -> None:
        """As `tell`, if this server has not been told yet."""
        if self._said != (self.sync, postmaster.pid):
            await self.tell(postmaster)

    async def say_again(self, postmaster: Watched) -> None:
        """The server goes by something else than the file says."""
        async with self._writing:
            if await on_disk(lambda: write_auto(self._site)):
                events.emit(sync_events.SettingTakenBack(setting="synchronous_standby_names"))
            postmaster.send(signal.SIGHUP)


class Instance:
    """`ramd.domain.server.Server` on a real PostgreSQL. Needs a running event loop; all calls from
    that loop. Calls that start, stop or change the server are not to overlap; `probe` and
    `wait_exit` may run beside them."""

    def __init__(
        self, site: Site, fence: Fence | None = None, *, copy: Callable[[], str] = lambda: ""
    ) -> None:
        """`copy` says which copy of the data the directory is, see `ramd.execute.copies`."""
        self._site = site
        self._fence = fence or NoFence()
        self._link = Link(site)
        self._sync_link = Link(site)
        self._postmaster: Watched | None = None
        self._roles_done = False
        self._conf = Conf(site, copy)
        self._data = DataDir(site, lambda: self.running, ControlFile(site))

    @property
    def data(self) -> DataDir:
        return self._data

    @property
    def fence(self) -> Fence:
        return self._fence

    @property
    def wal(self) -> Exchange:
        """See Server."""

        async def give(given: bool) -> None:
            self._conf.given = given
            if self.running:
                await self._conf.tell(self._must_run())

        def log() -> str:
            return self._postmaster.log if self._postmaster is not None else ""

        return Exchange(site=self._site, link=self._link, give=give, log=log)

    @property
    def running(self) -> bool:
        """See Server: asked of the kernel at each call."""
        return self._postmaster is not None and self._postmaster.alive

    async def wait_exit(self) -> None:
        """See Server."""
        if self._postmaster is not None:
            await self._postmaster.wait()

    async def adopt(self) -> bool:
        """See Server. Idempotent. Its files are written again from the present options, its
        upstream is kept: the last daemon may have died between writing and telling."""
        if self.running:
            return True
        found = find_running(self._site)
        if found is None:
            return False
        self._watch(found)
        self._conf.upstream = read_upstream(self._site)
        if self._site.conf_file.exists():  # ours already: bring it up to date, and say so
            write_all(self._site, self._conf.upstream, self._conf.naming())
            found.send(signal.SIGHUP)
        return True

    async def start(self, *, replica: bool, upstream: Upstream | None, timeout_ms: int) -> None:
        """See Server. Refused if one runs or the directory is not a complete one."""
        if await self.adopt():
            raise Refused(f"a server runs already on {self._site.data_dir}")
        found = await self._data.inspect()
        if found.kind is not DataKind.CLUSTER:
            raise Refused(f"{self._site.data_dir} is {found.kind}: {found.why}")
        source = self._conf.upstream = upstream if replica else None
        self._conf.given = False
        self._fence.unbind()
        await on_disk(lambda: self._prepare(source, replica=replica))
        await kill_remains(self._site, timeout_ms=KILL_MS)
        self._fence.prepare()
        self._watch(await launch(self._site, timeout_ms=timeout_ms))

    async def stop(self, mode: StopMode, *, timeout_ms: int) -> None:
        """See Server. Worst case `timeout_ms` + 12 s. A server that runs and was not adopted yet
        is ended the same way."""
        await self.adopt()
        postmaster = self._postmaster
        if postmaster is not None and postmaster.alive:
            postmaster.send(SIGNALS[mode])
            ended = await postmaster.ends_within(timeout_ms)
            if not ended and mode is not StopMode.IMMEDIATE:
                postmaster.send(signal.SIGQUIT)
                ended = await postmaster.ends_within(IMMEDIATE_MS)
            if not ended:
                postmaster.send(signal.SIGKILL)
                await postmaster.ends_within(KILL_MS)
        self._link.drop()
        self._sync_link.drop()
        await kill_remains(self._site, timeout_ms=KILL_MS)
        self._fence.unbind()

    async def probe(self, *, timeout_ms: int) -> ServerFacts:
        """See Server. Never raises, never later than `timeout_ms`."""
        if not self.running:
            return ServerFacts(accepting=False, refused="not running")
        return await self._link.facts(self._conf.upstream, timeout_ms=timeout_ms)

    async def follow(self, upstream: Upstream | None) -> None:
        """See Server. With None it returns when no WAL receiver is left, or raises."""
        postmaster = self._must_run()
        self._conf.upstream = upstream
        await self._conf.tell(postmaster)
        if upstream is None:
            await self._no_receiver()

    def waits_for(self) -> WalWait:
        """See Server."""
        if self._postmaster is None or not self._postmaster.alive:
            return WalWait()
        return waits_for(self._postmaster.pid)

    async def sealed_position(self) -> Position | None:
        """See Server."""
        if self._postmaster is None or not self._postmaster.alive:
            return None
        return await sealed_position(self._link, self._postmaster.pid)

    async def promote(self, timeline: int, *, timeout_ms: int) -> Promotion:
        """See Server. Idempotent."""
        postmaster = self._must_run()
        return await promote(self._site, self._eyes(), postmaster, timeline, timeout_ms=timeout_ms)

    async def ensure_slots(self, members: tuple[int, ...], *, primary: bool) -> None:
        """See Server. This node's own id is passed over."""
        me = self._site.options.node_id
        async with self._session() as session:
            await ensure_slots(session, members, me=me, primary=primary)

    async def tell_sync(self, conf: SyncConf) -> None:
        """See Server."""
        self._conf.sync = conf
        if self.running and self._site.conf_file.exists():
            await self._conf.tell_sync(self._must_run())

    def tell_again(self) -> None:
        """See Server."""
        if self.running:
            self._must_run().send(signal.SIGHUP)

    async def sync_facts(self, *, timeout_ms: int) -> SyncFacts:
        """See Server. A setting of ALTER SYSTEM that hides ours is taken away."""
        facts = await sync_facts(self._sync_link, timeout_ms=timeout_ms)
        as_told = facts.names == standby_names(self._conf.naming().sync)
        if not as_told:
            await self._conf.say_again(self._must_run())
        return replace(facts, as_told=as_told)

    async def ensure_roles(self) -> None:
        """See Server."""
        if not self._roles_done:
            async with self._session() as session:
                await ensure_roles(session, self._site.options)
            self._roles_done = True

    def _eyes(self) -> Eyes:
        return PageEyes(self._fence) if self._fence.guards else SqlEyes(self._link)

    def _prepare(self, source: Upstream | None, *, replica: bool) -> None:
        """What a start reads and goes by, durably on disk."""
        write_all(self._site, source, self._conf.naming())
        clear_old_promotion(self._site)
        set_signal_file(self._site, replica=replica)

    def _watch(self, postmaster: Watched) -> None:
        self._link.drop()
        self._sync_link.drop()
        if self._postmaster is not None:
            self._postmaster.close()
        self._postmaster = postmaster
        self._roles_done = False
        guards = self._fence.bind(postmaster.pid)
        if guards or self._site.preload is not None:
            events.emit(events.FenceFound(pid=postmaster.pid, guards=guards))

    def _must_run(self) -> Watched:
        if self._postmaster is None or not self._postmaster.alive:
            raise Refused(f"no server runs on {self._site.data_dir}")
        return self._postmaster

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        """A session of its own: what may wait long must not make the probe say that it hangs."""
        self._must_run()
        session = await open_local(self._site, timeout_ms=CONNECT_MS, replication=False)
        try:
            yield session
        finally:
            session.close()

    async def _no_receiver(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause_s = SOON_S
        why = "it is still there"
        while loop.time() < began + RECEIVER_GONE_MS / 1000:
            try:
                rows = await self._link.query(RECEIVERS, timeout_ms=RECEIVER_GONE_MS)
            except SessionError as error:
                self._must_run()
                why = error.message
            else:
                if not rows:
                    return
                if loop.time() > began + RECEIVER_PATIENCE_MS / 1000:
                    # The startup process ends it, but not while its replay is paused or in conflict
                    # with a query. It starts no other one: it will read the reload before.
                    end_process(self._site, int(rows[0][0] or 0))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S)
        raise PostgresError(f"the WAL receiver did not end within {RECEIVER_GONE_MS} ms: {why}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the server, which runs on: for the end of the daemon."""
        self._link.drop()
        self._sync_link.drop()
        if self._postmaster is not None:
            self._postmaster.close()
            self._postmaster = None


def open_instance(
    options: ServerOptions, *, bin_dir: Path | None = None, daemon_user: str | None = None
) -> Instance:
    """The server of these options, not yet started or adopted. Raises ConfigError. Blocks."""
    return Instance(open_site(options, bin_dir=bin_dir, daemon_user=daemon_user))
