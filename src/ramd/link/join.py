"""From stored or listed membership to a running member, and its end.

Must not live here: what the member is used for (`handle`). Start reading at `join`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pgraft.core.types import CoreEvent, EventKind, NodeId, Timing
from pgraft.forming import Forming
from pgraft.identity import Founder, Identity, Stage
from pgraft.net.channel import Channel
from pgraft.net.tcp import TcpOptions, TcpTransport, addresses, parse_address
from pgraft.net.transport import ListenError
from pgraft.node import Hooks, Node, NodeOptions, open_node
from pgraft.storage import identity_file
from pgraft.storage.disk import DirectoryLock, DirectoryLocked, OsDisk, StorageError
from ramd import events
from ramd.config.model import TimingValues
from ramd.domain.errors import ConfigError, Refused
from ramd.link.facts import Facts
from ramd.link.handle import Link
from ramd.link.lease import RENEWALS_PER_TTL
from ramd.link.state_copy import StateCopy

RAFT_DIR = "raft"
RENEWAL_TTL_MAX_NS = 3_000_000_000
WAKING = (EventKind.RELEASED, EventKind.LEASE_CONFIRMED, EventKind.ROLE_CHANGED)


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
        facts = Facts(self._channel, identity.cluster_id)

        def changed(granted: bool) -> None:
            # The lease of a new holder should stand as soon as it can.
            if granted:
                loop.call_soon(self.link.renew)
            woken()

        def on_event(event: CoreEvent) -> None:
            facts.happened(event)
            if event.kind in WAKING:
                woken()

        def on_coordinator(node: NodeId) -> None:
            assert self._node is not None
            term = int(self._node.status().term)
            events.emit(events.CoordinatorChanged(coordinator=int(node) or None, term=term))
            self.link.on_coordinator(int(node))
            woken()

        copy = StateCopy(changed)
        hooks = Hooks(apply=copy.apply, on_event=on_event, on_leader_change=on_coordinator)  # Raft
        try:
            node = open_node(disk, identity, self._channel, hooks, self._options.of_node(clock))
        except StorageError as error:
            raise ConfigError(str(error)) from error
        self._node = node
        self._link = Link(
            node,
            self._channel,
            copy,
            ttl_ns=self._options.timing.lease_ttl_ns,
            clock=clock,
            facts=facts,
        )
        self.cluster_id = identity.cluster_id
        node.start()

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
    """A running member of its group: at once if it belongs to one, else after forming it.

    `forming` is told, in words for people, what is being waited for. Waits as long as it takes;
    cancel it to give up. Raises ConfigError, Refused.
    """
    try:
        lock, disk, identity = _open_identity(options)
    except DirectoryLocked as locked:
        raise ConfigError(str(locked), field="state_dir") from locked
    except StorageError as error:
        raise ConfigError(str(error)) from error
    channel = _channel(options, identity)
    membership = Membership(options, channel, lock)
    try:
        founding = Forming(disk, identity, channel)
        if identity.stage is Stage.STARTED:
            membership.open(disk, identity, clock=clock, woken=woken)
        await _listen(channel)
        if identity.stage is not Stage.STARTED:
            identity = await _form(founding, forming)
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


def _channel(options: GroupOptions, identity: Identity) -> Channel:
    founders = identity.founders if identity.record is None else identity.record.founders()
    myself = NodeId(options.node_id)
    tcp = TcpOptions(
        listen=parse_address(options.listen),
        peers=addresses(founders, myself),
        secret=options.secret,
    )
    rng = random.Random(random.SystemRandom().getrandbits(64))
    return Channel(myself, TcpTransport(identity, tcp, rng))


async def _form(founding: Forming, tell: Callable[[str], None]) -> Identity:
    """Form the group, telling at each change what is waited for. Raises ConfigError if refused."""
    forming = asyncio.ensure_future(founding.form())
    told = ""
    try:
        while True:
            done, _ = await asyncio.wait({forming}, timeout=0.25)
            if done:
                return forming.result()
            text = founding.status().text()
            if text != told:
                told = text
                tell(text)
    finally:
        forming.cancel()
