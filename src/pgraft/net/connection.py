"""One TCP connection between two members: hello, then frames one way, then its end.

Lives here: the asyncio protocol of both sides and its bounded send queue. Must not live here: which
connections there are and who dials again (`tcp`), what frames mean.
Start reading at `Connection.data_received`.

Frames flow from the dialer to the acceptor only. The acceptor sends nothing after its proof, so
anything it does send ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import Final, Protocol, cast

from pgraft.identity import Stage
from pgraft.net.hello import (
    HELLO_BYTES_MAX,
    Acceptor,
    Dialer,
    Hello,
    HelloError,
    HelloRefused,
    refusal,
)
from pgraft.net.transport import Refusal
from pgraft.wire import APPLICATION_BYTES_MAX, Frame, FrameDecoder, WireError, decode

CONTROL_FRAMES_MAX: Final = 1024
BULK_FRAMES_MAX: Final = 128
BULK_BYTES_MAX: Final = 8 << 20
HELLO_TIMEOUT_S: Final = 3.0
USER_TIMEOUT_MS: Final = 5000
"""Unacknowledged data, or three unanswered keepalives, for this long end the connection."""
_WRITE_BUFFER_HIGH: Final = 64 << 10
_WRITE_BUFFER_LOW: Final = 16 << 10


class Outbox:
    """What waits to be sent on one connection: control ahead of bulk, newest dropped when full."""

    __slots__ = ("_bulk", "_bulk_bytes", "_control", "_paused", "transport")

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_HIGH, low=_WRITE_BUFFER_LOW)
        self.transport = transport
        self._paused = False
        self._control: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._bulk_bytes = 0

    def push(self, data: bytes, *, bulk: bool) -> bool:
        """Send now or as soon as the socket takes more. False: the queue is full, it was dropped.

        An append that is dropped will be sent again by Raft; a dropped beat is followed by another.
        """
        if not self._paused and not self._bulk and not self._control:
            self.transport.write(data)
            return True
        if not bulk:
            if len(self._control) >= CONTROL_FRAMES_MAX:
                return False
            self._control.append(data)
            return True
        if len(self._bulk) >= BULK_FRAMES_MAX or self._bulk_bytes + len(data) > BULK_BYTES_MAX:
            return False
        self._bulk.append(data)
        self._bulk_bytes += len(data)
        return True

    def pause(self) -> None:
        """The socket takes no more for now."""
        self._paused = True

    def resume(self) -> None:
        """The socket takes more: send what waits until it is full again."""
        self._paused = False
        while not self._paused and (self._control or self._bulk):  # bounded by the queues
            if self._control:
                self.transport.write(self._control.popleft())
            else:
                data = self._bulk.popleft()
                self._bulk_bytes -= len(data)
                self.transport.write(data)


class ConnectionEvents(Protocol):
    """Who is told about a connection."""

    def opened(self, connection: Connection, peer: Hello) -> None:
        """The hello is complete. An acceptor may raise HelloRefused: its proof has not left."""
        ...

    def frame(self, connection: Connection, frame: Frame) -> None:
        """One frame, in order; only on accepted connections, only after `opened`."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """The hello failed; `closed` follows."""
        ...

    def closed(self, connection: Connection) -> None:
        """The connection is gone. Called exactly once, also if it never opened."""
        ...


class Connection(asyncio.Protocol):
    """Either side of one connection. `stage` is the one this side presented in its hello.

    `is_open`: the hello is complete on this side and the connection has not ended.
    """

    def __init__(self, side: Dialer | Acceptor, stage: Stage, events: ConnectionEvents) -> None:
        self.stage = stage
        self.is_open = False
        self.is_unwanted = False
        self._side = side
        self._events = events
        self._frames = FrameDecoder(HELLO_BYTES_MAX)
        self._outbox: Outbox | None = None
        self._timer: asyncio.TimerHandle | None = None

    def peer(self) -> Hello | None:
        """What the other side presented; to be believed only while `is_open`."""
        return self._side.peer

    def send(self, data: bytes, *, bulk: bool) -> bool:
        """Queue one encoded frame. False: not open, or full."""
        if not self.is_open or self._outbox is None:
            return False
        return self._outbox.push(data, bulk=bulk)

    def close(self) -> None:
        """End it, or let it end as soon as it is made. Data not yet taken by the socket is lost."""
        self.is_unwanted = True
        if self._outbox is not None:
            self._outbox.transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the hello."""
        stream = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._outbox = Outbox(stream)
        if self.is_unwanted:
            stream.abort()
            return
        _set_options(stream.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HELLO_TIMEOUT_S, self._hello_timeout)
        if isinstance(self._side, Dialer):
            stream.write(self._side.begin())

    def data_received(self, data: bytes) -> None:
        """Cut into frames; until the hello is complete nothing but the hello is understood."""
        try:
            for body in self._frames.feed(data):
                if self._outbox is None or self._outbox.transport.is_closing():
                    return
                if not self.is_open:
                    self._hello(body)
                elif isinstance(self._side, Dialer):
                    raise WireError("the accepting side sent a frame")
                else:
                    self._events.frame(self, decode(body))
        except HelloRefused as refused:
            self.is_open = False
            if self._outbox is not None:
                self._outbox.transport.write(refusal(refused))
            self._refuse(refused.refuse.code, str(refused), by_peer=refused.by_peer)
        except (HelloError, WireError) as error:
            self._refuse("garbage", f"{self._name()}: {error}", by_peer=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        self.is_open = False
        self._outbox = None
        if self._timer is not None:
            self._timer.cancel()
        self._events.closed(self)

    def pause_writing(self) -> None:
        """Flow control of the socket."""
        if self._outbox is not None:
            self._outbox.pause()

    def resume_writing(self) -> None:
        """Flow control of the socket."""
        if self._outbox is not None:
            self._outbox.resume()

    def _hello(self, body: bytes) -> None:
        answer, done = self._side.receive(body)
        if done:
            peer = self._side.peer
            assert peer is not None
            self.is_open = True
            self._events.opened(self, peer)
            self._frames.set_limit(APPLICATION_BYTES_MAX)
            if self._timer is not None:
                self._timer.cancel()
        if answer and self._outbox is not None:
            self._outbox.transport.write(answer)

    def _hello_timeout(self) -> None:
        self._refuse("timeout", f"{self._name()}: no complete hello in {HELLO_TIMEOUT_S:g} s")

    def _refuse(self, code: str, text: str, *, by_peer: bool = False) -> None:
        node = self._side.peer_node()
        self._events.refused(Refusal(node=node, code=code, text=text, by_peer=by_peer))
        if self._outbox is not None:
            # close(), not abort(): the refusal must still reach the other side.
            self._outbox.transport.close()

    def _name(self) -> str:
        transport = None if self._outbox is None else self._outbox.transport
        address = None if transport is None else transport.get_extra_info("peername")
        host = address[0] if isinstance(address, tuple) else "unknown address"
        return f"peer at {host}"


def _set_options(sock: socket.socket | None) -> None:
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
    )
    with contextlib.suppress(OSError):  # a connection that is already gone ends by itself
        for level, option, value in options:
            sock.setsockopt(level, option, value)
