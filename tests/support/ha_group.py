"""A member of the group on the simulated network: the real core of pgraft, and a thin shell.

`GroupNode` has what `ramd.link.Link` needs of a running member, and `ha_casts` of its channel: so
the real link, the real keeper of the lease and the real copy of the state stand on it. Must not
live here: rules of Raft or of the lease. Start reading at `GroupNode.pump`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from pgraft.core.raft import Raft
from pgraft.core.types import (
    NO_NODE,
    Change,
    Config,
    CoreEvent,
    Entry,
    EntryKind,
    Grant,
    HardState,
    Message,
    NodeId,
    Origin,
    PeerRecord,
    ProposalRefused,
    Ready,
    Recovered,
    Term,
    Timing,
)
from pgraft.node import ProposalUnknown, ReadFailed
from tests.support.ha_net import HaNetwork
from tests.support.ha_time import Actor, HostClock

ASK_AGAIN_S = 0.4
READ_S = 0.3
POLL_S = 0.05


@dataclass(slots=True)
class GroupDisk:
    """What is durable of a member."""

    hard_state: HardState = field(default_factory=lambda: HardState(term=Term(0), vote=NO_NODE))
    entries: list[Entry] = field(default_factory=list)

    def write(self, ready: Ready) -> None:
        """One batch, as one."""
        if ready.truncate_from is not None:
            del self.entries[ready.truncate_from - 1 :]
        self.entries.extend(ready.entries)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHooks:
    """What the shell tells its host."""

    apply: Callable[[Entry], None]
    event: Callable[[CoreEvent], None]
    coordinator: Callable[[NodeId], None]
    lease: Callable[[int, int], None]


class GroupNode:
    """One run of one member. `peers` reaches the runs of the others."""

    def __init__(
        self,
        node_id: int,
        disk: GroupDisk,
        peers: dict[int, GroupNode],
        founding: Config,
        *,
        own: PeerRecord,
        actor: Actor,
        network: HaNetwork,
        clock: HostClock,
        rng: random.Random,
        released_epoch: int,
        timing: Timing,
    ) -> None:
        self.node = NodeId(node_id)
        self.disk = disk
        self.peers = peers
        self.actor = actor
        self.network = network
        self.clock = clock
        self.rng = rng
        self.hooks: GroupHooks | None = None
        peers[node_id] = self
        self.boot = rng.getrandbits(63)
        self.raft = self._raft(founding, own, timing, released_epoch)
        self.uuid = own.uuid
        self.config = founding
        """As committed and applied here."""
        self.told_removed = ""
        """By whom this member was told that it is none any more."""
        self.loop_lag = SimpleNamespace(last_ns=0)
        self._batches: list[Ready] = []
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._reads: dict[int, asyncio.Future[int | None]] = {}
        self._leader = NO_NODE
        self._lease = (0, 0)
        self.holder = _Holder(self)
        self.granter = _Granter(self)

    def _raft(self, founding: Config, own: PeerRecord, timing: Timing, released: int) -> Raft:
        recovered = Recovered(
            hard_state=self.disk.hard_state,
            entries=tuple(self.disk.entries),
            config=founding,
        )
        return Raft(
            self.node,
            recovered,
            timing,
            random.Random(self.rng.getrandbits(64)),
            self.clock(),
            boot=self.boot,
            released_epoch=released,
            since=own.since,
        )

    # --- the shell ---------------------------------------------------------------------------

    def start(self) -> None:
        self.pump()
        self._tick_later()

    def pump(self) -> None:
        """Take every Ready and do what the package docstring of the core asks for."""
        while (ready := self.raft.ready()) is not None:
            for outgoing in ready.send_now:
                self._post(outgoing.to, outgoing.message)
            if ready.token is not None:
                self._batches.append(ready)
                self.actor.later(self.rng.uniform(0.0005, 0.004), self._synced)
            for entry in ready.committed:
                self._apply(entry)
            for read in ready.reads:
                waiter = self._reads.pop(read.context, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(read.index)
            for event in ready.events:
                self._hooked.event(event)
        self._look()

    def receive(self, sender: NodeId, uuid: str, message: Message) -> None:
        """Take a message; one of a former member is answered with that, as a connection would."""
        if not self._refuses(sender, uuid):
            self.raft.step(sender, message, self.clock())
            self.pump()

    def greeted(self, sender: NodeId, uuid: str) -> None:
        """A connection is made."""
        self._refuses(sender, uuid)

    def _refuses(self, sender: NodeId, uuid: str) -> bool:
        if uuid not in self.config.removed:
            return False
        peer = self.peers[int(sender)]
        told = lambda: peer.refused(uuid, f"node {self.node} says so")  # noqa: E731
        self.network.send(int(self.node), int(sender), peer.actor, told)
        return True

    def dial(self) -> None:
        """Without a leader every peer is tried, as connections are: one may say that it is none
        any more."""
        if self._leader != NO_NODE:
            return
        me, uuid = self.node, self.uuid
        for node_id, peer in self.peers.items():
            greet = partial(peer.greeted, me, uuid)
            self.network.send(int(me), node_id, peer.actor, greet)

    def refused(self, uuid: str, why: str) -> None:
        """A peer has said that the member of this state directory was removed."""
        if uuid == self.uuid:
            self.told_removed = self.told_removed or why

    def removed(self) -> str:
        """How it is known that this member was removed; '' if it was not."""
        if any(peer.uuid == self.uuid for peer in self.config.peers):
            return self.told_removed
        return "its own log says so" if self.uuid in self.config.removed else self.told_removed

    def die(self) -> None:
        """What was written and not synced may have reached the disk, in order."""
        kept = self.rng.randint(0, len(self._batches))
        for ready in self._batches[:kept]:
            self.disk.write(ready)

    @property
    def _hooked(self) -> GroupHooks:
        assert self.hooks is not None
        return self.hooks

    def _post(self, to: NodeId, message: Message) -> None:
        peer = self.peers.get(int(to))
        if peer is None:
            return  # admitted, and its daemon has never run
        me, uuid = self.node, self.uuid
        self.network.send(int(me), int(to), peer.actor, lambda: peer.receive(me, uuid, message))

    def _synced(self) -> None:
        ready = self._batches.pop(0)
        self.disk.write(ready)
        for outgoing in ready.send_after_sync:
            self._post(outgoing.to, outgoing.message)
        assert ready.token is not None
        self.raft.persisted(ready.token, self.clock())
        self.pump()

    def _apply(self, entry: Entry) -> None:
        if entry.config is not None:
            self.config = entry.config
        self._hooked.apply(entry)
        mine = entry.origin.session == self.boot and entry.kind is EntryKind.COMMAND
        waiter = self._waiting.pop(entry.origin.serial, None) if mine else None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _look(self) -> None:
        leader = self.raft._parts.state.leader
        if leader != self._leader:
            self._leader = leader
            self._hooked.coordinator(leader)
        lease = (self.raft.holder.epoch, self.raft.holder.deadline_ns)
        if lease != self._lease:
            self._lease = lease
            self._hooked.lease(*lease)

    def _tick_later(self) -> None:
        delay_s = self.clock.delay_s(self.raft.next_deadline()) + self.rng.uniform(0, 0.001)
        self.actor.later(delay_s, self._tick)

    def _tick(self) -> None:
        self.raft.tick(self.clock())
        self.pump()
        self._tick_later()

    # --- what the link asks ------------------------------------------------------------------

    def status(self) -> Any:
        status = self.raft.status()
        return SimpleNamespace(
            role=status.role,
            leader=status.leader,
            term=status.term,
            commit=status.commit,
            applied=status.applied,
            last_index=status.last_index,
            config=status.config,
            committed_config=status.committed_config,
            messages_taken=0,
            heartbeats_sent=0,
            elections_begun=0,
        )

    async def propose(self, data: bytes, timeout_s: float) -> None:
        """Committed and applied here. Raises ProposalUnknown, ProposalRefused."""
        self._serial += 1
        serial = self._serial
        floor = min(self._waiting, default=serial) - 1
        origin = Origin(session=self.boot, serial=serial, floor=floor)
        waiter = self._waiting[serial] = asyncio.get_running_loop().create_future()
        asked = False
        try:
            async with asyncio.timeout(timeout_s):
                while not waiter.done():
                    asked |= self._ask(data, origin)
                    await asyncio.wait({waiter}, timeout=ASK_AGAIN_S)
        except TimeoutError:
            if asked:
                raise ProposalUnknown("no answer in time") from None
            raise ProposalRefused("no_leader") from None  # Raft's word
        finally:
            self._waiting.pop(serial, None)

    def _ask(self, data: bytes, origin: Origin) -> bool:
        leader = int(self.raft._parts.state.leader)
        if not leader:
            return False
        if leader == int(self.node):
            self.take(data, origin)
            return True
        peer = self.peers[leader]
        self.network.send(int(self.node), leader, peer.actor, lambda: peer.take(data, origin))
        return True

    def take(self, data: bytes, origin: Origin) -> None:
        """Append a command, if this member can."""
        try:
            self.raft.propose(data, self.clock(), origin)
        except ProposalRefused:
            return
        finally:
            self.pump()

    def append_grant(self, grant: Grant) -> None:
        try:
            self.raft.propose_grant(grant, self.clock())
        finally:
            self.pump()

    async def read_barrier(self, timeout_s: float) -> None:
        """Everything committed before the call is applied here. Raises ReadFailed."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._serial += 1
                    waiter = asyncio.get_running_loop().create_future()
                    self._reads[self._serial] = waiter
                    self.raft.read_index(self._serial, self.clock())
                    self.pump()
                    await asyncio.wait({waiter}, timeout=READ_S)
                    if waiter.done() and waiter.result() is not None:
                        return
                    await asyncio.sleep(READ_S / 3)
        except TimeoutError:
            raise ReadFailed("no answer in time") from None

    def transfer(self, to: NodeId) -> None:
        try:
            self.raft.transfer(to, self.clock())
        finally:
            self.pump()

    async def change(self, change: Change, timeout_s: float) -> None:
        """On the leader. Committed, and left if it was joint. Raises ProposalUnknown,
        ProposalRefused."""
        try:
            self.raft.change(change, self.clock())
        finally:
            self.pump()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while loop.time() < until_s:
            status = self.raft.status()
            if status.config == status.committed_config and not status.config.outgoing:
                return
            await asyncio.sleep(POLL_S)
        raise ProposalUnknown("no answer in time")


class _Holder:
    """The holder's half on this member."""

    def __init__(self, node: GroupNode) -> None:
        self._node = node

    @property
    def epoch(self) -> int:
        return self._node.raft.holder.epoch

    @property
    def deadline_ns(self) -> int:
        return self._node.raft.holder.deadline_ns

    def renew(self) -> bool:
        node = self._node
        asked = node.raft.holder.renew(node.clock())
        node.pump()
        return asked

    def release(self, evidence: bytes) -> bool:
        node = self._node
        released = node.raft.holder.release(evidence, node.clock())
        node.pump()
        return released


class _Granter:
    """The coordinator's half."""

    def __init__(self, node: GroupNode) -> None:
        self._node = node

    def seal(self, epoch: int) -> None:
        self._node.raft.granter.seal(epoch)

    def unseal(self) -> None:
        self._node.raft.granter.unseal()

    def released(self, epoch: int) -> bytes | None:
        return self._node.raft.granter.released(epoch)

    def may_move_at(self) -> int | None:
        return self._node.raft.granter.may_move_at(self._node.clock())
