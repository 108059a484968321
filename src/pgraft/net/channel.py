"""Frames of one member, given to those who wait for them; calls with answers, beside Raft.

Lives here: dispatch of incoming frames, `cast` and `call`, the handlers of methods. Must not live
here: sockets, Raft, the meaning of any payload. Start reading at `Channel`.

An answer travels on the answerer's own connection to the caller and is matched by its id. Ids start
at a random place in each process, so an answer meant for a predecessor matches nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pgraft.core.types import Index, Message, NodeId, Term
from pgraft.identity import JoinAnswer, JoinRequest
from pgraft.net.transport import Peer, Refusal, Transport
from pgraft.wire import (
    NAME_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    TEXT_CHARS_MAX,
    Call,
    CallError,
    Cast,
    Frame,
    Reply,
)

_LOG = logging.getLogger("pgraft.net")
OUTSTANDING_MAX: Final = 256
"""Calls of this member that wait for an answer, over all peers."""
SERVED_MAX: Final = 128
"""Calls of others being answered at once; further ones get the error "busy"."""

REPLY_WAIT_S: Final = 1.0
"""How long an answer waits for this node's own connection to the caller."""

CallHandler: TypeAlias = Callable[[NodeId, bytes], Awaitable[bytes]]
CastHandler: TypeAlias = Callable[[NodeId, bytes], None]


class PeerError(Exception):
    """Base of what a call can raise."""


class PeerUnavailable(PeerError):
    """The call was not sent: no connection, or too many calls wait. It had no effect."""


class PeerLost(PeerError):
    """The call was sent and no answer came, in time or at all. Whether it had effect is unknown."""


class CallRefused(PeerError):
    """The peer answered with an error: `code` is one stable word, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Listeners:
    """Who is told or asked about what is not a call. Each is called in the event loop, at once.

    None of them may raise or block. `join` answers a blank member that asks to be admitted: it may
    say "pending" as often as it likes, and must say "admitted" to one that has been. `durable` is
    the (last term, last index) durable here at that moment; `position` says whether a peer that
    holds its log up to this (term, index) has lost something: true, if the pair is below what it
    was seen to confirm. Such a peer is refused, and told.
    """

    raft: Callable[[NodeId, Message], None] | None = None
    link: Callable[[NodeId, bool], None] | None = None
    peer: list[Callable[[Peer], None]] = field(default_factory=list)
    refused: list[Callable[[Refusal], None]] = field(default_factory=list)
    join: Callable[[JoinRequest], JoinAnswer] | None = None
    durable: Callable[[], tuple[Term, Index]] | None = None
    position: Callable[[NodeId, Term, Index], bool] | None = None

    # What the transport asks (pgraft.net.transport.Host).

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """Ask whoever decides; before there is one the answer is to ask again."""
        if self.join is None:
            return JoinAnswer.pending("the member that was asked is starting")
        return self.join(request)

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """Ask whoever remembers what the peer has confirmed."""
        return self.position is not None and self.position(peer, term, index)

    def held(self) -> tuple[Term, Index] | None:
        """What is durable here, if somebody knows."""
        return None if self.durable is None else self.durable()


@dataclass(frozen=True, slots=True)
class _Waiting:
    peer: NodeId
    answer: asyncio.Future[bytes]


@dataclass(slots=True)
class _Handlers:
    calls: dict[str, CallHandler] = field(default_factory=dict)
    casts: dict[str, CastHandler] = field(default_factory=dict)


class Channel:
    """One member's end of the peer network. Used in one event loop.

    A handler of casts runs inside the dispatch of frames: it must be short and must not raise. A
    handler of calls runs as a task of its own, at most `SERVED_MAX` at a time; what it raises as
    CallRefused travels to the caller, any other exception becomes the error "internal".
    """

    def __init__(self, node: NodeId, transport: Transport) -> None:
        self.node = node
        self.transport = transport
        self.listeners = Listeners()
        self._handlers = _Handlers()
        self._link_up = asyncio.Event()
        self._waiting: dict[int, _Waiting] = {}
        self._next_id = secrets.randbits(48)
        self._served: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the transport. Raises ListenError."""
        await self.transport.start(self)

    async def close(self) -> None:
        """End all calls (callers get PeerLost) and the transport."""
        await self.transport.close()
        self._fail(self._waiting.keys(), "this node is stopping")
        served = list(self._served)
        for task in served:
            task.cancel()
        if served:
            await asyncio.wait(served)

    def register(self, method: str, handler: CallHandler) -> None:
        """Answer calls of `method`. One handler per method; a later one takes its place."""
        self._handlers.calls[_name(method)] = handler

    def register_cast(self, method: str, handler: CastHandler) -> None:
        """Receive casts of `method`. One handler per method; a later one takes its place."""
        self._handlers.casts[_name(method)] = handler

    def cast(self, to: NodeId, method: str, payload: bytes) -> bool:
        """Send without an answer. False when it was certainly not sent. To itself: delivered now.

        Raises ValueError for a payload longer than PAYLOAD_BYTES_MAX.
        """
        _check(payload)
        if to == self.node:
            self._cast(self.node, method, payload)
            return True
        return self.transport.send(to, Cast(method=_name(method), payload=payload))

    async def call(self, to: NodeId, method: str, payload: bytes, timeout_s: float) -> bytes:
        """The peer's answer. A call to this node itself runs the handler directly.

        Raises PeerUnavailable (no effect), PeerLost (unknown), CallRefused (the peer's error), and
        ValueError for a payload longer than PAYLOAD_BYTES_MAX.
        """
        _check(payload)
        if to == self.node:
            return await self._call_self(method, payload, timeout_s)
        if len(self._waiting) >= OUTSTANDING_MAX:
            raise PeerUnavailable(f"{len(self._waiting)} calls already wait for an answer")
        self._next_id += 1
        call_id = self._next_id
        if not self.transport.send(to, Call(id=call_id, method=_name(method), payload=payload)):
            raise PeerUnavailable(f"no connection to node {to}")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = _Waiting(to, answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise PeerLost(f"node {to} did not answer {method} in {timeout_s:g} s") from None
        finally:
            del self._waiting[call_id]

    # What the transport brings (pgraft.net.transport.Sink).

    def on_frame(self, sender: NodeId, frame: Frame) -> None:
        """Give one frame to whom it belongs."""
        if isinstance(frame, Cast):
            self._cast(sender, frame.method, frame.payload)
        elif isinstance(frame, Call):
            self._serve(sender, frame)
        elif isinstance(frame, Reply):
            waiting = self._waiting.get(frame.id)
            if waiting is not None and waiting.peer == sender and not waiting.answer.done():
                waiting.answer.set_result(frame.payload)
        elif isinstance(frame, CallError):
            waiting = self._waiting.get(frame.id)
            if waiting is not None and waiting.peer == sender and not waiting.answer.done():
                waiting.answer.set_exception(CallRefused(frame.code, frame.message))
        elif self.listeners.raft is not None:
            self.listeners.raft(sender, frame)

    def on_link(self, peer: NodeId, up: bool) -> None:
        """Pass the hint on; calls to a peer whose connection is gone end at once."""
        if up:
            self._link_up.set()
        else:
            lost = [id_ for id_, waiting in self._waiting.items() if waiting.peer == peer]
            self._fail(lost, f"the connection to node {peer} was lost")
        if self.listeners.link is not None:
            self.listeners.link(peer, up)

    def on_peer(self, peer: Peer) -> None:
        """Pass it on."""
        for listener in self.listeners.peer:
            listener(peer)

    def on_refused(self, refusal: Refusal) -> None:
        """Pass it on."""
        for listener in self.listeners.refused:
            listener(refusal)

    @property
    def host(self) -> Listeners:
        """Who is asked during a hello."""
        return self.listeners

    def _fail(self, ids: Iterable[int], why: str) -> None:
        for id_ in list(ids):
            answer = self._waiting[id_].answer
            if not answer.done():
                answer.set_exception(PeerLost(why))

    def _cast(self, sender: NodeId, method: str, payload: bytes) -> None:
        handler = self._handlers.casts.get(method)
        if handler is not None:
            handler(sender, payload)
        else:
            _LOG.debug("cast of unknown method %s from node %d", method[:NAME_CHARS_MAX], sender)

    def _serve(self, sender: NodeId, call: Call) -> None:
        handler = self._handlers.calls.get(call.method)
        if handler is None:
            text = f"node {self.node} knows no method {call.method[:NAME_CHARS_MAX]}"
            self.transport.send(sender, _error(call.id, "unknown_method", text))
        elif len(self._served) >= SERVED_MAX:
            text = f"node {self.node} already answers {SERVED_MAX} calls"
            self.transport.send(sender, _error(call.id, "busy", text))
        else:
            task = asyncio.get_running_loop().create_task(self._answer(handler, sender, call))
            self._served.add(task)
            task.add_done_callback(self._served.discard)

    async def _answer(self, handler: CallHandler, sender: NodeId, call: Call) -> None:
        try:
            payload = await handler(sender, call.payload)
            _check(payload)
        except CallRefused as refused:
            await self._reply(sender, _error(call.id, refused.code, refused.message))
        except Exception as error:  # boundary: travels to the caller; must not stop the others
            _LOG.exception("call %s from node %d failed", call.method, sender)
            text = f"{type(error).__name__}: {error}"
            await self._reply(sender, _error(call.id, "internal", text))
        else:
            await self._reply(sender, Reply(id=call.id, payload=payload))

    async def _reply(self, to: NodeId, answer: Reply | CallError) -> None:
        """Send it, also if this node's own connection to the caller is a moment behind."""
        try:
            async with asyncio.timeout(REPLY_WAIT_S):
                while not self.transport.send(to, answer):  # bounded by the timeout
                    if self.transport.linked(to):
                        return  # the queue is full: dropped, as any frame would be
                    self._link_up.clear()
                    await self._link_up.wait()
        except TimeoutError:
            _LOG.debug("an answer to node %d found no connection", to)

    async def _call_self(self, method: str, payload: bytes, timeout_s: float) -> bytes:
        handler = self._handlers.calls.get(method)
        if handler is None:
            raise CallRefused("unknown_method", f"node {self.node} knows no method {method}")
        try:
            async with asyncio.timeout(timeout_s):
                return await handler(self.node, payload)
        except TimeoutError:
            raise PeerLost(f"{method} did not finish in {timeout_s:g} s") from None


def _error(call_id: int, code: str, text: str) -> CallError:
    return CallError(id=call_id, code=code[:NAME_CHARS_MAX], message=text[:TEXT_CHARS_MAX])


def _name(method: str) -> str:
    if not 0 < len(method) <= NAME_CHARS_MAX:
        raise ValueError(f"method name of {len(method)} characters")
    return method


def _check(payload: bytes) -> None:
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"payload of {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX}")
