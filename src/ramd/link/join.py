"""From stored or listed membership to a running member, and its end.

Must not live here: what the member is used for (`handle`). Start reading at `join`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pgraft.core.types import CoreEvent, EventKind, NodeId, Timing
from pgraft.forming import Forming
from pgraft.identity import Founder, Identity, JoinRequest, Stage
from pgraft.joining import Joining, JoinRefused, JoinTarget, is_joining
from pgraft.net.asking import TcpAsker
from pgraft.net.channel import Channel
from pgraft.net.tcp import parse_address
from pgraft.net.transport import ListenError
from pgraft.node import Hooks, Node, NodeOptions, open_node
from pgraft.storage import identity_file
from pgraft.storage.disk import DirectoryLock, DirectoryLocked, OsDisk, StorageError
from ramd import events, member_events
from ramd.config.model import TimingValues
from ramd.domain.errors import ConfigError, Refused
from ramd.domain.model import ClusterState
from ramd.link.certificates import PeerTls
from ramd.link.connect import channel_of
from ramd.link.facts import Facts
from ramd.link.handle import Link, Times
from ramd.link.lease import RENEWALS_PER_TTL
from ramd.link.other_groups import OtherGroups
from ramd.link.removal import RemovalWatch
from ramd.link.state_copy import StateCopy

RAFT_DIR = "raft"
RENEWAL_TTL_MAX_NS = 3_000_000_000
NO_QUORUM = "no quorum"
"""Why a coordinator steps down, as the core says it."""
WAKING = (EventKind.RELEASED, EventKind.LEASE_CONFIRMED, EventKind.ROLE_CHANGED)


Judge: TypeAlias = Callable[[ClusterState, int, str, str], str]
"""(state, node id, its raft address, its token) → "code: why not", '' if it may join."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOptions:
    """Whom to ask, where peers will dial this node, and what to show for it."""

    seeds: tuple[str, ...]
    """Raft addresses, host:port."""
    address: str
    token: Callable[[], str]
    """Reads the token when it is needed. Raises ConfigError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What is needed to be a member: who, where, with whom, and the shared secret."""

    node_id: int
    cluster_name: str
    founders: tuple[tuple[int, str], ...]
    """(node id, "host:raft_port") of every listed member; empty: only what was stored counts."""
    listen: str
    state_dir: Path
    secret: bytes
    timing: TimingValues
    boot: int
    released_epoch: int
    joining: JoinOptions | None = None
    """How to join an existing group; it counts while this node has no state of its own."""
    tls: PeerTls = field(default_factory=lambda: PeerTls(None))
    judge: Judge | None = None
    """Whether a node that shows a token may join; None: nobody may."""

    def core_timing(self) -> Timing:
        """The same times as pgraft takes them."""
        return Timing(
            heartbeat_ns=self.timing.heartbeat_ns,
            election_ns=self.timing.election_ns,
            lease_ttl_ns=self.timing.lease_ttl_ns,
            drift=self.timing.drift,
        )

    def of_node(self, clock: Callable[[], int]) -> NodeOptions:
        """What pgraft wants to know to open the member."""
        return NodeOptions(
            timing=self.core_timing(),
            rng=random.Random(random.SystemRandom().getrandbits(64)),
            boot=self.boot,
            released_epoch=self.released_epoch,
            clock=clock,
        )


class Membership:
    """A member that runs: its handle, its life, its end."""

    def __init__(self, options: GroupOptions, channel: Channel, lock: DirectoryLock) -> None:
        self._options = options
        self._channel = channel
        self._lock = lock
        self._node: Node | None = None
        self._link: Link | None = None
        self.cluster_id = ""

    @property
    def link(self) -> Link:
        """The handle; there is one once the member was opened."""
        assert self._link is not None, "the member was not opened"
        return self._link

    def open(
        self,
        disk: OsDisk,
        identity: Identity,
        *,
        clock: Callable[[], int],
        woken: Callable[[], None],
    ) -> None:
        """Recover and start this member. `woken` is called whenever something changes that a
        decision depends on. Raises ConfigError if its storage cannot be used."""
        loop = asyncio.get_running_loop()
        removal = RemovalWatch(identity.uuid, woken)
        self._channel.listeners.refused += [removal.on_refused, OtherGroups().on_refused]

        def changed(granted: bool) -> None:
            # The lease of a new holder should stand as soon as it can.
            if granted:
                loop.call_soon(self.link.renew)
            woken()

        def on_event(event: CoreEvent) -> None:
            facts.happened(event)
            if event.kind is EventKind.STEPPED_DOWN and event.detail == NO_QUORUM:
                self.link.on_coordinator(0, lost=True)
            if event.kind in WAKING:
                woken()

        def on_coordinator(node: NodeId) -> None:
            self._on_coordinator(int(node))
            woken()

        copy = StateCopy(changed)
        facts = Facts(self._channel, copy, removal, group_id=identity.cluster_id)
        hooks = Hooks(
            apply=copy.apply,
            snapshot=copy.snapshot,
            restore=copy.restore,
            on_event=on_event,
            on_leader_change=on_coordinator,  # Raft's word
            admit=self._admit,
        )
        try:
            node = open_node(disk, identity, self._channel, hooks, self._options.of_node(clock))
        except StorageError as error:
            raise ConfigError(str(error)) from error
        self._node = node
        self._link = Link(node, self._channel, copy, facts, times=self._times(), clock=clock)
        self.cluster_id = identity.cluster_id
        node.start()

    def _times(self) -> Times:
        timing = self._options.timing
        # The longest election timeout: the next coordinator should be there by then.
        return Times(ttl_ns=timing.lease_ttl_ns, grace_ns=2 * timing.election_ns)

    def _on_coordinator(self, node_id: int) -> None:
        assert self._node is not None
        term = int(self._node.status().term)
        events.emit(events.CoordinatorChanged(coordinator=node_id or None, term=term))
        self.link.on_coordinator(node_id)

    def _admit(self, request: JoinRequest) -> str:
        """Asked on the coordinator only; it must know everything that is committed."""
        judge = self._options.judge
        if judge is None:
            return "closed: this node admits nobody"
        if not self.link.status().ready:
            return "later: the coordinator has just begun"
        text = request.token.decode("ascii", errors="replace")
        return judge(self.link.state(), int(request.node), request.address, text)

    async def run(self) -> None:
        """Renew this node's lease in time, for as long as it runs; ends by cancellation.

        Raises NodeFailed when the member has stopped for good: the daemon must end then.
        """
        assert self._node is not None
        watching = asyncio.ensure_future(self._node.watch())
        # The lease lasts as long as its grant says, which another member's file may set shorter.
        ttl_ns = min(self._options.timing.lease_ttl_ns, RENEWAL_TTL_MAX_NS)
        pause_s = ttl_ns / RENEWALS_PER_TTL / 1e9
        try:
            while not watching.done():
                self.link.renew()
                await asyncio.wait({watching}, timeout=pause_s)
            watching.result()
        finally:
            watching.cancel()

    async def close(self) -> None:
        """Stop this member and give its directory back; its server is not touched."""
        try:
            if self._node is not None:
                await self._node.stop()
            await self._channel.close()
        finally:
            self._lock.release()


async def join(
    options: GroupOptions,
    *,
    clock: Callable[[], int],
    woken: Callable[[], None],
    forming: Callable[[str], None],
) -> Membership:
    """A running member of its group: at once if it belongs to one, else after joining or forming.

    `forming` is told, in words for people, what is being waited for. Waits as long as it takes;
    cancel it to give up. Raises ConfigError, Refused.
    """
    try:
        lock, disk, identity = _open_identity(options)
    except DirectoryLocked as locked:
        raise ConfigError(str(locked), field="state_dir") from locked
    except StorageError as error:
        raise ConfigError(str(error)) from error
    try:
        if _may_join(options, identity):
            identity = await _join_group(options, disk, identity, forming)
        channel = channel_of(
            identity, listen=options.listen, secret=options.secret, tls=options.tls
        )
    except BaseException:
        lock.release()
        raise
    membership = Membership(options, channel, lock)
    try:
        founding = Forming(disk, identity, channel)
        if identity.stage is Stage.STARTED:
            membership.open(disk, identity, clock=clock, woken=woken)
        await _listen(channel)
        if identity.stage is not Stage.STARTED:
            identity = await _form(founding, options.node_id, forming)
            membership.open(disk, identity, clock=clock, woken=woken)
    except BaseException:
        await membership.close()
        raise
    return membership


async def _listen(channel: Channel) -> None:
    try:
        await channel.start()
    except ListenError as error:
        raise Refused(str(error), code="port_in_use", field="raft_port") from error


def belongs(state_dir: Path) -> bool:
    """There is Raft state of an earlier run: the group it belongs to is the one that counts."""
    return (state_dir / RAFT_DIR / identity_file.NAME).exists()


def founded(state_dir: Path, cluster_name: str) -> bool:
    """There is a founding record: from here on no list of a file says who the members are."""
    if not belongs(state_dir):
        return False
    try:
        identity = identity_file.load(OsDisk(state_dir / RAFT_DIR), cluster_name, ())
    except StorageError:
        return True  # whoever joins with it will say what is wrong
    return identity is not None and identity.record is not None


def _open_identity(options: GroupOptions) -> tuple[DirectoryLock, OsDisk, Identity]:
    directory = options.state_dir / RAFT_DIR
    disk = OsDisk(directory)
    lock = DirectoryLock(directory)
    try:
        founders = tuple(
            Founder(node=NodeId(node), address=address) for node, address in options.founders
        )
        identity = identity_file.load_or_create(
            disk, NodeId(options.node_id), options.cluster_name, founders
        )
    except BaseException:
        lock.release()
        raise
    return lock, disk, identity


def _may_join(options: GroupOptions, identity: Identity) -> bool:
    """It is on its way into a group that exists. Raises Refused if it has no way at all."""
    if is_joining(identity):
        return True
    if identity.stage is not Stage.BLANK:
        return False
    if options.joining is None and not identity.founders:
        raise Refused(
            "this node belongs to no group yet, and its file neither lists one nor says whom to"
            " join",
            hint="set join and join_token_file as `ramctrl nodes add` answered",
        )
    return options.joining is not None


async def _join_group(
    options: GroupOptions, disk: OsDisk, identity: Identity, tell: Callable[[str], None]
) -> Identity:
    """Ask to be admitted, telling what is waited for. Raises Refused, ConfigError."""
    joining = _joining(options, disk, identity)
    work = asyncio.ensure_future(joining.join())
    try:
        await _told(work, lambda: joining.status().text(), tell)
        identity = work.result()
    except JoinRefused as refused:
        raise Refused(
            f"this node cannot join: {refused}",
            hint=f"on a member of the cluster, `ramctrl nodes add --node-id {options.node_id}`"
            " makes a new token",
        ) from refused
    except StorageError as error:
        raise ConfigError(str(error)) from error
    finally:
        work.cancel()
    via = "" if options.joining is None else ", ".join(options.joining.seeds)
    events.emit(
        member_events.NodeJoined(
            node_id=options.node_id, cluster_name=options.cluster_name, via=via
        )
    )
    return identity


def _joining(options: GroupOptions, disk: OsDisk, identity: Identity) -> Joining:
    own = options.joining
    blank = identity.stage is Stage.BLANK
    try:
        target = JoinTarget(
            # One that was admitted and only has to finish asks nobody.
            seeds=tuple(parse_address(a) for a in (own.seeds if own else (options.listen,))),
            address=own.address if own else options.listen,
            token=own.token().encode() if own and blank else b"",
        )
        rng = random.Random(random.SystemRandom().getrandbits(64))
        return Joining(disk, identity, target, TcpAsker(options.secret, options.tls.files), rng)
    except ValueError as error:
        raise ConfigError(str(error), field="join") from error


async def _told(
    work: asyncio.Future[Any], text_now: Callable[[], str], tell: Callable[[str], None]
) -> None:
    """Wait for `work`; whatever `text_now` says new meanwhile is told."""
    told = ""
    while True:
        done, _ = await asyncio.wait({work}, timeout=0.25)
        if done:
            return
        text = text_now()
        if text != told:
            told = text
            tell(text)


async def _form(founding: Forming, me: int, tell: Callable[[str], None]) -> Identity:
    """Form the group, telling at each change what is waited for. Raises ConfigError if refused."""
    forming = asyncio.ensure_future(founding.form())

    def text() -> str:
        status = founding.status()
        return f"{status.text()}; {add_again(me)}" if status.refused else status.text()

    try:
        await _told(forming, text, tell)
        return forming.result()
    finally:
        forming.cancel()


def add_again(node_id: int) -> str:
    """The commands that bring a node back whose state was lost."""
    return (
        f"on a member of the cluster run `ramctrl nodes remove {node_id}` and `ramctrl nodes add"
        f" --node-id {node_id}`, then start this daemon with the join and join_token_file that it"
        " answers"
    )
