"""What can be asked of any member: commands, changes of membership, grants, reads, a handover.

Lives here: forwarding to the leader, trying again, the meaning of "unknown". Must not live here:
rules of Raft (`pgraft.core`), turning the core (`driver`), what commands mean. Start reading at
`Asking.propose`.

A command is proposed again whenever its outcome may have been lost, under the same origin, by which
the group applies it once. A change of membership is not: it is asked again only where the try
before certainly had no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from pgraft.core.types import (
    NO_NODE,
    Change,
    Config,
    Grant,
    Index,
    NodeId,
    Origin,
    ProposalRefused,
    Term,
)
from pgraft.net.channel import CallRefused, Channel, PeerLost, PeerUnavailable
from pgraft.node.driver import Driver
from pgraft.node.origins import Origins
from pgraft.node.waiting import TooMany, Waiting
from pgraft.wire import ENTRY_BYTES_MAX

_COMMAND: Final = "pgraft.command"
_CHANGE: Final = "pgraft.change"
_RETRY_S: Final = 0.05
"""Between two tries; a change of leader ends the wait at once."""
_PLACE_S: Final = 1.0
"""How long an answer to a forwarded command is waited for, before it is sent again."""
_AGAIN: Final = frozenset(
    {"not_leader", "transferring", "stopped", "busy", "unknown_method", "overwritten"}
)
"""Refusals after which another node, or the same a little later, may accept."""
_CHANGE_AGAIN: Final = _AGAIN | {"not_ready", "change_in_flight"}
CHANGE_S_MAX: Final = 60.0
_COMMANDS: Final = msgspec.msgpack.Decoder(tuple[bytes, Origin])
_CHANGES: Final = msgspec.msgpack.Decoder(tuple[Change, float])
_PLACE: Final = msgspec.msgpack.Decoder(tuple[int, int])
_CONFIG: Final = msgspec.msgpack.Decoder(Config)
_encode: Final = msgspec.msgpack.encode


class ProposalUnknown(Exception):
    """The outcome is not known: the proposal may have been committed, or may yet be."""


class ReadFailed(Exception):
    """The read could not be confirmed in time; nothing happened."""


class KnownLeader:
    """Whom this node believes to lead, and a way to wait until that changes."""

    def __init__(self) -> None:
        self.node = NO_NODE
        self._next: asyncio.Future[None] | None = None

    def set(self, node: NodeId) -> bool:
        """Take the news; False if it is none."""
        if node == self.node:
            return False
        self.node = node
        if self._next is not None:
            self._next.set_result(None)
            self._next = None
        return True

    def next(self) -> asyncio.Future[None]:
        """Done at the next change. Shared: do not cancel it."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next


async def _first(futures: Iterable[asyncio.Future[Any]], timeout_s: float) -> None:
    await asyncio.wait(
        set(futures), timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED
    )


def _leave(future: asyncio.Future[Any]) -> None:
    """Wait for it no longer; what it brought, if it did, counts as seen."""
    if not future.cancel() and not future.cancelled():
        future.exception()


class _Deadline:
    """Seconds of the loop's clock that are left."""

    def __init__(self, timeout_s: float) -> None:
        self._time = asyncio.get_running_loop().time
        self._end = self._time() + timeout_s

    @property
    def left_s(self) -> float:
        return self._end - self._time()

    @property
    def pause_s(self) -> float:
        return min(_RETRY_S, self.left_s)


class Asking:
    """The side of a member that its host asks."""

    def __init__(self, channel: Channel, driver: Driver) -> None:
        self.channel = channel
        self._driver = driver
        self._waiting = Waiting()
        self._known = KnownLeader()
        self._origins = Origins()

    async def propose(self, data: bytes, timeout_s: float) -> Index:
        """The entry's index, once it is committed and applied on this node. Any node may be asked.

        It is applied at most once, however often it had to be sent. Raises ProposalRefused when it
        certainly was not and will not be committed (too_large, no_leader, overloaded, …), and
        ProposalUnknown when that cannot be said and the time has run out.
        """
        if len(data) > ENTRY_BYTES_MAX:
            raise ProposalRefused("too_large", self._known.node)
        origin = self._origins.open()
        try:
            applied = self._waiting.origin(origin.session, origin.serial)
        except TooMany:
            self._origins.close(origin)
            raise ProposalRefused("overloaded", self._known.node) from None
        try:
            return await self._propose(data, origin, applied, _Deadline(timeout_s))
        finally:
            self._origins.close(origin)
            _leave(applied)

    async def change(self, change: Change, timeout_s: float) -> Config:
        """The configuration after `change`, committed and, if it was joint, left. Any node may be
        asked; at most `CHANGE_S_MAX` seconds. While another change is under way it waits its turn.

        ProposalRefused (reasons: see Raft.change) when it certainly had no effect; ProposalUnknown
        when the leader was lost or the time ran out: look at the configuration then.
        """
        deadline = _Deadline(min(timeout_s, CHANGE_S_MAX))
        refused = ProposalRefused("no_leader")
        while (left_s := deadline.left_s) > 0:  # bounded by the deadline
            turn, leader = self._known.next(), self._known.node
            try:
                if leader == self.channel.node:
                    return await self._change(change, left_s)
                if leader != NO_NODE:
                    payload = _encode((change, left_s))
                    answer = await self.channel.call(leader, _CHANGE, payload, left_s)
                    return _CONFIG.decode(answer)
            except ProposalRefused as error:
                refused = error
            except CallRefused as error:
                if error.code == "unknown":
                    raise ProposalUnknown(error.message) from error
                refused = ProposalRefused(error.code, self._known.node)
            except PeerUnavailable:
                refused = ProposalRefused("no_connection", leader)
            except (PeerLost, msgspec.MsgspecError) as error:
                raise ProposalUnknown(f"no answer of node {leader}: {error}") from error
            if refused.reason not in (*_CHANGE_AGAIN, "no_leader", "no_connection"):
                raise refused
            await _first([turn], deadline.pause_s)
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
        return await self._committed(term, index, timeout_s)

    async def change_ttl(self, epoch: int, ttl_ns: int, timeout_s: float) -> Index:
        """From its commit on renewals of `epoch` last `ttl_ns`. Only on the leader.

        ProposalRefused (reasons: see Raft.change_ttl) or ProposalUnknown.
        """
        self._require_running()
        term, index = self._driver.raft.change_ttl(epoch, ttl_ns, self._driver.clock())
        self._driver.wake()
        return await self._committed(term, index, timeout_s)

    async def read_barrier(self, timeout_s: float) -> Index:
        """Return once this node has applied all that was committed before this call (ReadIndex).

        Raises ReadFailed when no leader confirmed it in time.
        """
        deadline = _Deadline(timeout_s)
        while (left_s := deadline.left_s) > 0:  # bounded by the deadline
            turn = self._known.next()
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
            await _first([turn], deadline.pause_s)
        raise ReadFailed("no leader confirmed the read in time")

    def transfer(self, to: NodeId) -> None:
        """Begin to hand leadership to `to`; whether it worked shows in a change of leader.

        Raises ProposalRefused: not_leader, transferring, not_a_voter.
        """
        self._require_running()
        self._driver.raft.transfer(to, self._driver.clock())
        self._driver.wake()

    def step_down(self, why: str) -> None:
        """Give up leading, if this member leads; `why` is told with the event."""
        if self._driver.running:
            self._driver.raft.step_down(why, self._driver.clock())
            self._driver.wake()

    def _serve(self) -> None:
        self.channel.register(_COMMAND, self._serve_command)
        self.channel.register(_CHANGE, self._serve_change)

    async def _propose(
        self, data: bytes, origin: Origin, applied: asyncio.Future[Index], deadline: _Deadline
    ) -> Index:
        """Place it wherever the leader is, until it is applied here or the time has run out."""
        refused = ProposalRefused("no_leader")
        unknown: ProposalUnknown | None = None
        self._require_running()
        while (left_s := deadline.left_s) > 0:  # bounded by the deadline
            turn, leader = self._known.next(), self._known.node
            try:
                if leader != NO_NODE:
                    place_s = min(left_s, _PLACE_S)
                    term, index = await self._place(leader, data, origin, place_s)
                    unknown = ProposalUnknown(f"entry {index} was not applied in time")
                    here = self._waiting.entry(term, index)
                    await _first([applied, here, turn], deadline.left_s)
                    _leave(here)
            except ProposalRefused as error:
                if error.reason not in _AGAIN and unknown is None:
                    raise
                refused = error
            except PeerUnavailable:
                refused = ProposalRefused("no_connection", leader)
            except TooMany:
                unknown = ProposalUnknown("too many callers wait to learn of their entries")
                await _first([applied, turn], deadline.left_s)
            except ProposalUnknown as error:
                unknown = error
            await _first([applied, turn], deadline.pause_s)
            if applied.done():
                return applied.result()
        raise unknown or refused

    async def _place(
        self, leader: NodeId, data: bytes, origin: Origin, left_s: float
    ) -> tuple[Term, Index]:
        """Where the leader put the entry. It may still be overwritten."""
        if leader == self.channel.node:
            return self._append(data, origin)
        try:
            answer = await self.channel.call(leader, _COMMAND, _encode((data, origin)), left_s)
            term, index = _PLACE.decode(answer)
        except CallRefused as refused:
            raise ProposalRefused(refused.code, self._known.node) from refused
        except PeerLost as lost:
            raise ProposalUnknown(str(lost)) from lost
        except msgspec.MsgspecError as error:
            raise ProposalUnknown(f"node {leader} answered garbage") from error
        return Term(term), Index(index)

    def _append(self, data: bytes, origin: Origin) -> tuple[Term, Index]:
        self._require_running()
        placed = self._driver.raft.propose(data, self._driver.clock(), origin)
        self._driver.wake()
        return placed

    async def _change(self, change: Change, timeout_s: float) -> Config:
        self._require_running()
        deadline = _Deadline(timeout_s)
        term, index = self._driver.raft.change(change, self._driver.clock())
        self._driver.wake()
        await self._committed(term, index, timeout_s)
        try:
            async with asyncio.timeout(deadline.left_s):
                return await self._waiting.settled(index)
        except (TimeoutError, TooMany):
            raise ProposalUnknown(f"the change at {index} was not completed in time") from None

    async def _committed(self, term: Term, index: Index, timeout_s: float) -> Index:
        try:
            async with asyncio.timeout(timeout_s):
                if await self._waiting.entry(term, index):
                    return index
        except TimeoutError:
            raise ProposalUnknown(f"entry {index} was not applied in time") from None
        except TooMany:
            raise ProposalUnknown(f"too many callers wait to learn of entry {index}") from None
        raise ProposalRefused("overwritten", self._known.node)

    async def _serve_command(self, sender: NodeId, payload: bytes) -> bytes:
        try:
            data, origin = _COMMANDS.decode(payload)
        except msgspec.MsgspecError as error:
            raise CallRefused("garbage", f"no command: {error}") from error
        if len(data) > ENTRY_BYTES_MAX:
            raise CallRefused("too_large", f"at most {ENTRY_BYTES_MAX} bytes")
        try:
            return _encode(self._append(data, origin))
        except ProposalRefused as refused:
            raise CallRefused(refused.reason, f"leader: {refused.leader}") from refused

    async def _serve_change(self, sender: NodeId, payload: bytes) -> bytes:
        try:
            change, timeout_s = _CHANGES.decode(payload)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CallRefused("garbage", f"no change: {error}") from error
        try:
            return _encode(await self._change(change, min(timeout_s, CHANGE_S_MAX)))
        except ProposalRefused as refused:
            raise CallRefused(refused.reason, f"leader: {refused.leader}") from refused
        except ProposalUnknown as unknown:
            raise CallRefused("unknown", str(unknown)) from unknown

    def _require_running(self) -> None:
        if not self._driver.running:
            raise ProposalRefused("stopped")
