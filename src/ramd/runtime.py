"""Everything that exists while this daemon is a member of a cluster, put together and run.

Lives here: construction, order of start and end, the founding command, what is left for the API to
show. Must not live here: judgement, actions on a server. Start reading at `Runtime.open`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ramd import events
from ramd.config.model import Config
from ramd.config.secret_file import SecretFileError, read_secret
from ramd.coordinator import Coordinator
from ramd.domain.consensus import GroupStatus
from ramd.domain.decision import ClusterView, Leave
from ramd.domain.errors import ConfigError, RamdError
from ramd.domain.model import ClusterState, Member
from ramd.domain.observation import Heard
from ramd.domain.server import StopMode
from ramd.execute.context import Ports
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard
from ramd.execute.lease_note import LeaseNote
from ramd.execute.local import LocalStore
from ramd.execute.parting import leave_watch
from ramd.link import GroupOptions, Link, Membership, join
from ramd.loop import ControlLoop, Parts
from ramd.membership import differences, own_member
from ramd.observe.observer import Identity, Observer, Pace
from ramd.postgres.instance import Instance
from ramd.postgres.options import ServerOptions
from ramd.postgres.site import Site, open_site
from ramd.state.commands import Command, InitCluster, encode

NS_PER_MS = 1_000_000
PROBE_INTERVAL_MS = 1_000
PROPOSE_TIMEOUT_S = 5.0
STOP_MS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the daemon hands to its runtime."""

    config: Config
    members: tuple[Member, ...]
    """The listed members; empty: only what was stored counts."""
    secret_file: Path
    version: str
    clock: Callable[[], int]
    unix_ms: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Organs:
    """The parts that have a life of their own."""

    membership: Membership
    note: LeaseNote
    server: Instance
    observer: Observer
    guard: Guard
    executor: Executor
    coordinator: Coordinator
    loop: ControlLoop


class Runtime:
    """A member with its server. `open`, then `run` until cancelled, then `close`."""

    def __init__(self, surroundings: Surroundings, organs: Organs, wake: asyncio.Event) -> None:
        self._around = surroundings
        self._organs = organs
        self._wake = wake
        self._tasks: asyncio.TaskGroup | None = None
        self._founding = False
        self._compared = False
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, around: Surroundings, *, forming: Callable[[str], None]) -> Self:
        """Prepare the server's surroundings, join or form the group, adopt a running server.

        Waits for the other members as long as it takes. Raises ConfigError, Refused, PostgresError.
        """
        config = around.config
        site = await asyncio.to_thread(_open_site, around)
        if site.account.warning:
            events.emit(events.ConfigWarning(key="daemon_user", what=site.account.warning))
        site.prepare()
        store = LocalStore.load(config.state_dir)
        wake = asyncio.Event()
        boot = secrets.randbits(63)
        membership = await join(
            _group_options(around, boot, store.released_epoch),
            clock=around.clock,
            woken=wake.set,
            forming=forming,
        )
        try:
            runtime = cls._assemble(around, site, store, membership, wake, boot)
            await runtime._organs.executor.startup()
        except BaseException:
            await membership.close()
            raise
        return runtime

    @classmethod
    def _assemble(
        cls,
        around: Surroundings,
        site: Site,
        store: LocalStore,
        membership: Membership,
        wake: asyncio.Event,
        boot: int,
    ) -> Self:
        config, me = around.config, around.config.node_id
        link = membership.link
        server = Instance(site)
        identity = Identity(node_id=me, boot=boot, daemon_version=around.version)
        pace = Pace(interval_ms=PROBE_INTERVAL_MS, probe_timeout_ms=config.health_check_timeout_ms)
        observer = Observer(server, identity=identity, wake=wake.set, pace=pace)

        def changed() -> None:
            observer.touch()
            wake.set()

        ports = Ports(
            me=me,
            server=server,
            consensus=link,
            store=store,
            clock=around.clock,
            changed=changed,
            unix_ms=around.unix_ms,
        )
        note = LeaseNote.open(config.state_dir)
        guard = Guard(ports, ttl_ms=config.primary_lease_ttl_ms, note=note)
        executor = Executor(ports, guard, rng=random.Random(boot))
        runtime: Self
        coordinator = Coordinator(
            me=me,
            consensus=link,
            now_ns=around.clock(),
            propose=lambda command: runtime.propose(command),
        )
        loop = ControlLoop(
            Parts(
                me=me,
                consensus=link,
                store=store,
                observer=observer,
                executor=executor,
                coordinator=coordinator,
                clock=around.clock,
                adopt_until_ns=note.deadline_ns(store.record.opened_epoch) or 0,
            ),
            wake=wake,
            beaten=lambda: runtime._beaten(),
        )
        organs = Organs(
            membership=membership,
            note=note,
            server=server,
            observer=observer,
            guard=guard,
            executor=executor,
            coordinator=coordinator,
            loop=loop,
        )
        runtime = cls(around, organs, wake)
        return runtime

    async def run(self) -> None:
        """Be a member until cancelled. An error that ends it is a bug or a failed storage: the
        daemon must end then."""
        organs = self._organs
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for life in (
                organs.membership.run(),
                organs.observer.run(),
                organs.guard.run(),
                organs.executor.run(),
                organs.loop.run(),
            ):
                tasks.create_task(life)

    async def close(self) -> None:
        """End this member. A server that may write stays under a watch of its own: it is stopped
        at the end of its lease unless a daemon has taken it over by then."""
        organs = self._organs
        await organs.membership.close()
        organs.note.close()
        # After the lock: the watch takes whoever holds it for the daemon that took over.
        if organs.guard.watching and organs.server.running:
            leave_watch(
                state_dir=self._around.config.state_dir,
                data_dir=self._around.config.postgresql_data_dir,
                margin_ms=organs.guard.margin_ms,
            )

    # --- what it looks like from outside -------------------------------------------------------

    @property
    def link(self) -> Link:
        return self._organs.membership.link

    @property
    def state(self) -> ClusterState:
        return self.link.state()

    @property
    def me(self) -> int:
        return self._around.config.node_id

    @property
    def status(self) -> GroupStatus:
        return self.link.status()

    @property
    def heard(self) -> tuple[Heard, ...]:
        return self._organs.loop.board

    @property
    def left(self) -> bool:
        """The cluster is removed and nothing of it is left on this node."""
        executor = self._organs.executor
        removing = self.state.removal is not None
        return removing and isinstance(executor.goal, Leave) and executor.standing().settled

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every beat."""
        self._listeners.append(listener)

    def view(self) -> ClusterView:
        """One coherent picture for `preflight` and `explain`, on any node."""
        heard = {h.observation.node_id: h for h in self.heard}
        return self._organs.coordinator.view(self._around.clock(), self.status, heard)

    async def stop_server(self) -> None:
        """Immediate stop of this node's server: only when what it holds is to be undone."""
        await self._organs.server.stop(StopMode.IMMEDIATE, timeout_ms=STOP_MS)

    def propose(self, command: Command) -> None:
        """Hand a command to the group; losing it is logged, never waited for."""
        self.spawn(self._propose(encode(command), type(command).__name__))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as part of this runtime; an error that it does not handle ends the daemon."""
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(work)

    def _beaten(self) -> None:
        status, state = self.status, self.state
        if state.formed and not self._compared:
            self._compared = True
            self._compare(state)
        if status.is_coordinator and status.ready and not state.formed and not self._founding:
            self._founding = True
            self.spawn(self._found())
        for listener in self._listeners:
            listener()

    def _compare(self, state: ClusterState) -> None:
        """The file's node list no longer decides; that it differs is said once."""
        config = self._around.config
        listed = config.members() if config.forms_cluster else ()
        for what in differences(listed, state.members) if listed else ():
            events.emit(events.ConfigWarning(key="node list", what=what))

    async def _found(self) -> None:
        """The first coordinator says who the cluster is; every listed member knows the same."""
        config = self._around.config
        command = InitCluster(
            cluster_id=self._organs.membership.cluster_id,
            cluster_name=config.cluster_name,
            members=self._around.members,
            settings=config.settings(),
            at_unix_ms=self._around.unix_ms(),
        )
        try:
            await self._propose(encode(command), "founding")
        finally:
            self._founding = False

    async def _propose(self, command: bytes, what: str) -> None:
        try:
            await self.link.propose(command, timeout_s=PROPOSE_TIMEOUT_S)
        except RamdError as error:
            events.emit(events.ProposalLost(what=what, why=error.message))


def cluster_secret(path: Path) -> bytes:
    """The secret that the daemons prove to each other. Raises ConfigError."""
    try:
        return read_secret(path, what="cluster secret", least=16).encode()
    except SecretFileError as error:
        raise ConfigError(error.wrong, field="cluster_secret_file", hint=error.right) from error


def _open_site(around: Surroundings) -> Site:
    """Find programs and user for this node's server, and check that it can reach its files."""
    config = around.config
    scram = config.auth_method == "scram-sha-256"
    own = own_member(config)
    options = ServerOptions(
        node_id=config.node_id,
        data_dir=config.postgresql_data_dir,
        state_dir=config.state_dir,
        log_dir=config.postgresql_log_dir,
        port=own.postgresql_port,
        listen_addresses=(config.hostname,) if config.one_host else ("*",),
        superuser=config.database_user,
        database=config.database_name,
        replication_user=config.replication_user,
        replication_password=_replication_password(around) if scram else None,
        superuser_password=config.postgresql_password or None,
        auth_method="scram-sha-256" if scram else "trust",
        initdb_options=tuple(config.initdb_options),
    )
    return open_site(
        options, bin_dir=config.postgresql_bin_dir, daemon_user=config.daemon_user or None
    )


def _replication_password(around: Surroundings) -> str:
    """The same on every host without being told: derived from the secret they share."""
    what = f"ramd replication {around.config.cluster_name}".encode()
    return hmac.new(cluster_secret(around.secret_file), what, hashlib.sha256).hexdigest()


def _group_options(around: Surroundings, boot: int, released_epoch: int) -> GroupOptions:
    config = around.config
    bind = config.raft_bind_address or "0.0.0.0"
    return GroupOptions(
        node_id=config.node_id,
        cluster_name=config.cluster_name,
        founders=tuple((m.node_id, address(m.hostname, m.raft_port)) for m in around.members),
        listen=address(bind, config.raft_port),
        state_dir=config.state_dir,
        secret=cluster_secret(around.secret_file),
        timing=config.timing(),
        boot=boot,
        released_epoch=released_epoch,
    )


def address(host: str, port: int) -> str:
    """`host:port`, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
