"""One member of a group, for its host: propose, read, lease, and word of what happens.

Lives here: the asynchronous API, forwarding of proposals to the leader, the meaning of "unknown".
Must not live here: rules of Raft (`pgraft.core`), turning the core (`driver`), what commands mean.
Start reading at `Node.propose`, then `open_node`.

Everything here runs in the event loop that called `start`; only the log has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from pgraft.core.raft import Raft
from pgraft.core.types import (
    NO_NODE,
    CoreEvent,
    Entry,
    EventKind,
    Grant,
    Index,
    Nanos,
    NodeId,
    ProposalRefused,
    Recovered,
    Term,
    Timing,
)
from pgraft.identity import Identity, Stage
from pgraft.net.channel import CallRefused, Channel, PeerLost, PeerUnavailable
from pgraft.node.counts import NodeStatus, node_status
from pgraft.node.driver import Driver, DriverEvents, LoopLag, boottime_ns
from pgraft.node.lease import GranterHandle, HolderHandle
from pgraft.node.waiting import TooMany, Waiting
from pgraft.storage.disk import Disk
from pgraft.storage.replay import recover
from pgraft.storage.segment import Owner
from pgraft.storage.wal import Wal
from pgraft.wire import ENTRY_BYTES_MAX

_PROPOSE: Final = "pgraft.propose"
_RETRY_S: Final = 0.05
"""Between tries when a try certainly had no effect; a change of leader ends the wait at once."""
_AGAIN: Final = frozenset({"not_leader", "transferring", "stopped", "busy", "unknown_method"})
"""Refusals after which another node, or the same a little later, may accept."""
_PLACE: Final = msgspec.msgpack.Decoder(tuple[int, int])


class ProposalUnknown(Exception):
    """The outcome is not known: the proposal may have been committed, or may yet be."""


class ReadFailed(Exception):
    """The read could not be confirmed in time; nothing happened."""


class NodeFailed(Exception):
    """The member has stopped for good. `__cause__` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the host is told, in the event loop. None of these may block.

    `apply` gets every committed entry of the log exactly once per run, in order, from index 1; it
    must not fail: an exception stops the member.
    """

    apply: Callable[[Entry], None]
    on_event: Callable[[CoreEvent], None] | None = None
    on_leader_change: Callable[[NodeId], None] | None = None
    on_failed: Callable[[BaseException], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """`boot` is drawn anew by each run of the daemon; `released_epoch` is what it had stored."""

    timing: Timing
    rng: random.Random
    boot: int
    released_epoch: int = 0
    clock: Callable[[], Nanos] = boottime_ns


class _KnownLeader:
    """Whom this node believes to lead, and a way to wait until that changes."""

    def __init__(self) -> None:
        self.node = NO_NODE
        self._changed = asyncio.Event()

    def set(self, node: NodeId) -> bool:
        """Take the news; False if it is none."""
        if node == self.node:
            return False
        self.node = node
        self._changed.set()
        return True

    def watch(self) -> None:
        """From now on a change ends `change`."""
        self._changed.clear()

    async def change(self, timeout_s: float) -> None:
        """Wait for a change since `watch`, at most this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()


class Node:
    """A running member. Made by `open_node`."""

    def __init__(
        self, raft: Raft, wal: Wal, channel: Channel, hooks: Hooks, options: NodeOptions
    ) -> None:
        self.channel = channel
        self._hooks = hooks
        self._waiting = Waiting()
        self._known = _KnownLeader()
        self._failure: asyncio.Future[BaseException] = asyncio.Future()
        self._driver = Driver(
            raft,
            wal,
            channel.transport,
            DriverEvents(
                apply=self._apply,
                read=self._waiting.on_read,
                event=self._event,
                failed=self._failed,
            ),
            clock=options.clock,
            beat_ns=options.timing.heartbeat_ns,
        )
        self.holder = HolderHandle(self._driver)
        """The holder's half of the primary lease."""
        self.granter = GranterHandle(self._driver)
        """The coordinator's half of the primary lease."""

    def start(self) -> None:
        """Begin to vote and to serve. The channel is started by the host, before or after."""
        self.channel.listeners.raft = self._driver.on_message
        self.channel.listeners.link = self._driver.on_link
        self.channel.register(_PROPOSE, self._serve_proposal)
        self._driver.start()

    async def stop(self) -> None:
        """Stop; callers that wait learn that the outcome is unknown. The channel stays open."""
        self.channel.listeners.raft = None
        self.channel.listeners.link = None
        self._waiting.fail(ProposalUnknown("this node is stopping"))
        await self._driver.stop()

    async def watch(self) -> None:
        """Wait until the member stops by itself. Raises NodeFailed then, and never returns."""
        raise NodeFailed("this member has stopped") from await asyncio.shield(self._failure)

    async def propose(self, data: bytes, timeout_s: float) -> Index:
        """The entry's index, once it is committed and applied on this node. Any node may be asked.

        Raises ProposalRefused when it certainly was not and will not be committed (too_large,
        no_leader, overloaded, …), ProposalUnknown when that cannot be said (the leader was lost or
        the time ran out). It is tried again by itself only where the try before had no effect.
        """
        if len(data) > ENTRY_BYTES_MAX:
            raise ProposalRefused("too_large", self._known.node)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        refused = ProposalRefused("no_leader")
        while (left_s := deadline_s - loop.time()) > 0:  # bounded by the deadline
            self._known.watch()
            leader = self._known.node
            try:
                if leader != NO_NODE:
                    term, index = await self._place(leader, data, left_s)
                    if await self._outcome(term, index, deadline_s - loop.time()):
                        return index
                    refused = ProposalRefused("overwritten", self._known.node)
                    continue
            except ProposalRefused as error:
                if error.reason not in _AGAIN:
                    raise
                refused = error
            except PeerUnavailable:
                refused = ProposalRefused("no_connection", leader)
            await self._known.change(min(_RETRY_S, left_s))
        raise refused

    def append_grant(self, grant: Grant) -> tuple[Term, Index]:
        """Where the grant stands in the leader's log; it counts once it is committed.

        Raises ProposalRefused. Reasons: see Raft.propose_grant.
        """
        if len(grant.payload) > ENTRY_BYTES_MAX:
            raise ProposalRefused("too_large", self._known.node)
        self._require_running()
        placed = self._driver.raft.propose_grant(grant, self._driver.clock())
        self._driver.wake()
        return placed

    async def propose_grant(self, grant: Grant, timeout_s: float) -> Index:
        """As `propose`, for a grant, and only on the leader. Reasons: see Raft.propose_grant."""
        term, index = self.append_grant(grant)
        if await self._outcome(term, index, timeout_s):
            return index
        raise ProposalRefused("overwritten", self._known.node)

    async def read_barrier(self, timeout_s: float) -> Index:
        """Return once this node has applied all that was committed before this call (ReadIndex).

        Raises ReadFailed when no leader confirmed it in time.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:  # bounded by the deadline
            self._known.watch()
            try:
                self._require_running()
                context, answer = self._waiting.read()
                self._driver.raft.read_index(context, self._driver.clock())
                self._driver.wake()
                async with asyncio.timeout(left_s):
                    index = await answer
                    if index is not None:
                        await self._waiting.index(index)
                        return index
            except (ProposalRefused, ProposalUnknown, TooMany, TimeoutError) as error:
                raise ReadFailed("the read was not confirmed") from error
            await self._known.change(min(_RETRY_S, left_s))
        raise ReadFailed("no leader confirmed the read in time")

    def transfer(self, to: NodeId) -> None:
        """Begin to hand leadership to `to`; whether it worked shows in a change of leader.

        Raises ProposalRefused: not_leader, transferring, not_a_voter.
        """
        self._require_running()
        self._driver.raft.transfer(to, self._driver.clock())
        self._driver.wake()

    def status(self) -> NodeStatus:
        """A picture of the core, with what was counted since this member was opened, for people
        and metrics; after a failure, how it was then."""
        return node_status(self._driver.raft.status(), self._driver.counts)

    @property
    def node(self) -> NodeId:
        """Which member this is."""
        return self.channel.node

    def leader(self) -> NodeId:
        """The leader this node knows of, NO_NODE if none."""
        return self._known.node

    @property
    def loop_lag(self) -> LoopLag:
        """How long the event loop stood still."""
        return self._driver.lag

    async def _place(self, leader: NodeId, data: bytes, left_s: float) -> tuple[Term, Index]:
        """Where the leader put the entry. It may still be overwritten."""
        if leader == self.channel.node:
            return self._append(data)
        try:
            answer = await self.channel.call(leader, _PROPOSE, data, left_s)
            term, index = _PLACE.decode(answer)
        except CallRefused as refused:
            raise ProposalRefused(refused.code, self._known.node) from refused
        except PeerLost as lost:
            raise ProposalUnknown(str(lost)) from lost
        except msgspec.MsgspecError as error:
            raise ProposalUnknown(f"node {leader} answered garbage") from error
        return Term(term), Index(index)

    def _append(self, data: bytes) -> tuple[Term, Index]:
        self._require_running()
        placed = self._driver.raft.propose(data, self._driver.clock())
        self._driver.wake()
        return placed

    async def _outcome(self, term: Term, index: Index, left_s: float) -> bool:
        try:
            async with asyncio.timeout(left_s):
                return await self._waiting.entry(term, index)
        except TimeoutError:
            raise ProposalUnknown(f"entry {index} was not applied in time") from None
        except TooMany:
            raise ProposalUnknown(f"too many callers wait to learn of entry {index}") from None

    async def _serve_proposal(self, sender: NodeId, data: bytes) -> bytes:
        if len(data) > ENTRY_BYTES_MAX:
            raise CallRefused("too_large", f"at most {ENTRY_BYTES_MAX} bytes")
        try:
            return msgspec.msgpack.encode(self._append(data))
        except ProposalRefused as refused:
            raise CallRefused(refused.reason, f"leader: {refused.leader}") from refused

    def _require_running(self) -> None:
        if not self._driver.running:
            raise ProposalRefused("stopped")

    def _apply(self, entry: Entry) -> None:
        self._hooks.apply(entry)
        self._waiting.on_applied(entry)

    def _set_leader(self, leader: NodeId) -> None:
        if self._known.set(leader) and self._hooks.on_leader_change is not None:
            self._hooks.on_leader_change(leader)

    def _event(self, event: CoreEvent) -> None:
        if event.kind in (EventKind.LEADER_CHANGED, EventKind.ROLE_CHANGED):
            self._set_leader(self._driver.raft.status().leader)
        if self._hooks.on_event is not None:
            self._hooks.on_event(event)

    def _failed(self, error: BaseException) -> None:
        self._waiting.fail(ProposalUnknown(f"this node has stopped: {error}"))
        if not self._failure.done():
            self._failure.set_result(error)
        self._set_leader(NO_NODE)
        if self._hooks.on_failed is not None:
            self._hooks.on_failed(error)


def owner_of(identity: Identity) -> Owner:
    """Whose log a member's log is. The member must have a founding record."""
    assert identity.record is not None
    return Owner(cluster_id=identity.cluster_id, node=identity.node, uuid=identity.uuid)


def open_node(
    disk: Disk, identity: Identity, channel: Channel, hooks: Hooks, options: NodeOptions
) -> Node:
    """The member stored on `disk`, recovered and not yet started.

    Raises StorageError when the log is damaged, missing or another member's. The caller holds the
    lock of the directory, and has formed or joined a group (`pgraft.forming`).
    """
    assert identity.stage is Stage.STARTED
    assert identity.record is not None
    wal, recovery = recover(disk, owner_of(identity))
    recovered = Recovered(
        hard_state=recovery.hard_state,
        entries=recovery.entries,
        config=identity.record.config(),
    )
    raft = Raft(
        identity.node,
        recovered,
        options.timing,
        options.rng,
        options.clock(),
        boot=options.boot,
        released_epoch=options.released_epoch,
    )
    return Node(raft, wal, channel, hooks, options)
