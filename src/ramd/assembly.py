"""Puts a node together: which parts it has, what each is handed, in which order they are made.

Must not live here: what the parts do, when they run (`runtime`). Start reading at `assemble`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ramd import events
from ramd.config.model import Config
from ramd.config.secret_file import SecretFileError, cluster_secret, read_secret
from ramd.coordinator import Coordinator
from ramd.domain.errors import ConfigError
from ramd.domain.fence import Fence, Preload
from ramd.domain.model import ClusterState, Member
from ramd.execute.context import Ports, Timing
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard, margin_of
from ramd.execute.lease_note import LeaseNote
from ramd.execute.local import LocalStore
from ramd.execute.parting import leave_watch
from ramd.execute.syncing import Syncing
from ramd.fence.place import Wanted, open_fence
from ramd.link import GroupOptions, JoinOptions, Membership, PeerTls, join
from ramd.loop import ControlLoop, Parts
from ramd.members import token
from ramd.membership import own_member
from ramd.observe.observer import Identity, Observer, Pace
from ramd.postgres.instance import Instance
from ramd.postgres.options import ServerOptions
from ramd.postgres.pidfile import read_pidfile
from ramd.postgres.site import Site, open_site
from ramd.state.commands import Command

PROBE_INTERVAL_MS = 1_000


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
    tls: PeerTls = field(default_factory=lambda: PeerTls(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Organs:
    """The parts that have a life of their own."""

    membership: Membership
    note: LeaseNote
    server: Instance
    observer: Observer
    guard: Guard
    executor: Executor
    syncing: Syncing
    coordinator: Coordinator
    loop: ControlLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What the parts call back."""

    propose: Callable[[Command], None]
    beaten: Callable[[], None]
    forming: Callable[[str], None]


async def assemble(around: Surroundings, calls: Calls) -> Organs:
    """Prepare the server's surroundings, join or form the group, adopt a running server.

    Waits for the other members as long as it takes. Raises ConfigError, Refused, PostgresError.
    """
    config = around.config
    site = await asyncio.to_thread(_open_site, around)
    if site.account.warning:
        events.emit(events.ConfigWarning(key="daemon_user", what=site.account.warning))
    site.prepare()
    store = LocalStore.load(config.state_dir)
    try:
        fence, preload = await _open_fence(_wanted(around, site))
    except BaseException:
        _leave_server_watched(config, store)
        raise
    try:
        return await _enter(around, calls, replace(site, preload=preload), fence, store)
    except BaseException:
        if not fence.bind(_postmaster_pid(config) or 0):
            _leave_server_watched(config, store)
        fence.close()
        raise


async def _open_fence(wanted: Wanted) -> tuple[Fence, Preload | None]:
    """`open_fence` in a thread. A thread cannot be cancelled: what it still opens is given back, or
    the page would stay locked by this daemon and its next try would find it in use."""
    opening = asyncio.ensure_future(asyncio.to_thread(open_fence, wanted))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait({opening})  # bounded: a build of the extension at most
        if opening.exception() is None:
            opening.result()[0].close()
        raise


async def _enter(
    around: Surroundings, calls: Calls, site: Site, fence: Fence, store: LocalStore
) -> Organs:
    wake = asyncio.Event()
    boot = secrets.randbits(63)
    membership = await join(
        group_options(around, boot, store.released_epoch),
        clock=around.clock,
        woken=wake.set,
        forming=calls.forming,
    )
    try:
        server = Instance(site, fence, copy=lambda: store.record.copy)

        def exited() -> None:
            organs.guard.shut(0)

        observer = _observer(around, server, boot, wake.set, exited)

        def changed() -> None:
            observer.touch()
            wake.set()

        synced = asyncio.Event()

        def proven() -> None:
            synced.set()
            wake.set()

        syncing = Syncing(
            me=around.config.node_id,
            server=server,
            consensus=membership.link,
            store=store,
            clock=around.clock,
            unix_ms=around.unix_ms,
            changed=proven,
        )
        ports = replace(
            _ports(around, server, store, membership, changed),
            unsynced=syncing.obstacle,
            synced=synced,
        )
        organs = _organs(around, ports, (server, membership, observer, syncing), wake, calls)
        await organs.executor.startup()
    except BaseException:
        await membership.close()
        raise
    return organs


def _leave_server_watched(config: Config, store: LocalStore) -> None:
    """This daemon ends before its guard watches anything: a server that an earlier one left open
    for writing must end with its lease all the same."""
    if store.record.opened_epoch and (config.postgresql_data_dir / "postmaster.pid").exists():
        leave_watch(
            state_dir=config.state_dir,
            data_dir=config.postgresql_data_dir,
            margin_ms=margin_of(config.primary_lease_ttl_ms),
        )


def _postmaster_pid(config: Config) -> int | None:
    found = read_pidfile(config.postgresql_data_dir / "postmaster.pid")
    return found.pid if found is not None else None


def _wanted(around: Surroundings, site: Site) -> Wanted:
    config = around.config
    return Wanted(
        mode=config.pgraft_extension,
        page_dir=config.page_dir,
        grace_ms=config.fence_grace_ms,
        state_dir=config.state_dir,
        uid=site.account.uid,
        gid=site.account.gid,
        bin_dir=site.binaries.bin_dir,
        server_version=site.binaries.version,
        postmaster_pid=_postmaster_pid(config),
        daemon_version=around.version,
        clock=around.clock,
    )


def _observer(
    around: Surroundings,
    server: Instance,
    boot: int,
    wake: Callable[[], None],
    exited: Callable[[], None],
) -> Observer:
    config = around.config
    return Observer(
        server,
        identity=Identity(node_id=config.node_id, boot=boot, daemon_version=around.version),
        wake=wake,
        exited=exited,
        pace=Pace(interval_ms=PROBE_INTERVAL_MS, probe_timeout_ms=config.health_check_timeout_ms),
    )


def _ports(
    around: Surroundings,
    server: Instance,
    store: LocalStore,
    membership: Membership,
    changed: Callable[[], None],
) -> Ports:
    return Ports(
        me=around.config.node_id,
        server=server,
        consensus=membership.link,
        store=store,
        clock=around.clock,
        changed=changed,
        timing=Timing(
            refresh_ms=around.config.monitor_interval_ms,
            drain_ms=around.config.switchover_drain_ms,
        ),
        unix_ms=around.unix_ms,
    )


def _organs(
    around: Surroundings,
    ports: Ports,
    made: tuple[Instance, Membership, Observer, Syncing],
    wake: asyncio.Event,
    calls: Calls,
) -> Organs:
    server, membership, observer, syncing = made
    note = LeaseNote.open(around.config.state_dir)
    guard = Guard(ports, ttl_ms=around.config.primary_lease_ttl_ms, note=note)
    executor = Executor(ports, guard, rng=random.Random(secrets.randbits(63)))
    timing = around.config.timing()
    coordinator = Coordinator(
        me=ports.me,
        consensus=membership.link,
        now_ns=around.clock(),
        propose=calls.propose,
        patience_ns=timing.patience_ns,
        ttl_ns=timing.lease_ttl_ns,
    )
    loop = ControlLoop(
        Parts(
            me=ports.me,
            consensus=membership.link,
            store=ports.store,
            observer=observer,
            executor=executor,
            coordinator=coordinator,
            fence=server.fence,
            clock=around.clock,
            synced=syncing.seen,
            patience_ns=timing.patience_ns,
            adopt_until_ns=note.deadline_ns(ports.store.record.opened_epoch) or 0,
        ),
        wake=wake,
        beaten=calls.beaten,
    )
    return Organs(
        membership=membership,
        note=note,
        server=server,
        observer=observer,
        guard=guard,
        executor=executor,
        syncing=syncing,
        coordinator=coordinator,
        loop=loop,
    )


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


def group_options(around: Surroundings, boot: int, released_epoch: int) -> GroupOptions:
    config = around.config
    secret = cluster_secret(around.secret_file)

    def judge(state: ClusterState, node_id: int, where: str, text: str) -> str:
        return token.refusal(
            text,
            node_id=node_id,
            address=where,
            state=state,
            secret=secret,
            now_unix_ms=around.unix_ms(),
        )

    bind = config.raft_bind_address or "0.0.0.0"
    return GroupOptions(
        node_id=config.node_id,
        cluster_name=config.cluster_name,
        founders=tuple((m.node_id, address(m.hostname, m.raft_port)) for m in around.members),
        # Where the others dial: a port that was changed in the file would make it unreachable.
        listen=address(bind, own_member(config).raft_port),
        state_dir=config.state_dir,
        secret=secret,
        timing=config.timing(),
        boot=boot,
        released_epoch=released_epoch,
        joining=_joining(config),
        tls=around.tls,
        judge=judge,
    )


def _joining(config: Config) -> JoinOptions | None:
    if not config.join:
        return None

    def read_token() -> str:
        path = config.join_token_file
        if path is None:
            raise ConfigError("join needs join_token_file", field="join_token_file")
        try:
            text = read_secret(path, what="join token", least=32, most=token.CHARS_MAX)
            claims = token.read(text)
        except SecretFileError as error:
            raise ConfigError(error.wrong, field="join_token_file", hint=error.right) from error
        except token.TokenError as error:
            raise ConfigError(f"{path}: {error}", field="join_token_file") from error
        if claims.node != config.node_id:
            raise ConfigError(
                f"{path} is the token of node {claims.node}, the file says node_id ="
                f" {config.node_id}",
                field="join_token_file",
            )
        return text

    own = own_member(config)
    return JoinOptions(seeds=config.join, address=own.raft_address, token=read_token)


def address(host: str, port: int) -> str:
    """`host:port`, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
