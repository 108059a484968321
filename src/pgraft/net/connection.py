"""One TCP connection between two members: hello, then frames one way, then its end.

Lives here: the asyncio protocol of both sides. Must not live here: which connections there are and
who dials again (`tcp`), TLS (`tls` is a layer around this), what waits to be sent (`outbox`), what
frames mean. Start reading at `Connection.data_received`.

Frames flow from the dialer to the acceptor only. The acceptor sends nothing after its proof, so
anything it does send ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final, Protocol, cast

from pgraft.core.types import NodeId
from pgraft.identity import JoinAnswer, Stage
from pgraft.net.handshake import Acceptor, Dialer, refusal
from pgraft.net.hello import HELLO_BYTES_MAX, Hello, HelloError, HelloRefused, Refuse, pack
from pgraft.net.outbox import Outbox
from pgraft.net.tls import MISMATCH, Inner, is_tls
from pgraft.net.transport import Refusal
from pgraft.wire import (
    PART_BYTES_MAX,
    TRAVELLING_BYTES_MAX,
    Assembly,
    Frame,
    FrameDecoder,
    WireError,
    decode,
)

HELLO_TIMEOUT_S: Final = 3.0
USER_TIMEOUT_MS: Final = 5000
"""Unacknowledged data, or three unanswered keepalives, for this long end the connection."""
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""Linux: how much may wait in the kernel; else megabytes of a snapshot would be ahead of a beat."""


class ConnectionEvents(Protocol):
    """Who is told about a connection."""

    def opened(self, connection: Connection, peer: Hello) -> None:
        """The hello is complete. An acceptor may raise HelloRefused: its proof has not left.

        Not called on an accepted connection that only asked to join: the answer ends it.
        """
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


class Connection(Inner):
    """Either side of one connection. `stage` is the one this side presented in its hello.

    `is_open`: the hello is complete on this side and the connection has not ended.
    """

    def __init__(self, side: Dialer | Acceptor, stage: Stage, events: ConnectionEvents) -> None:
        self.stage = stage
        self.is_open = False
        self.is_unwanted = False
        self._side = side
        self._events = events
        self._reader = _Reader()
        self._socket = _Socket()
        self._outbox: Outbox | None = None

    def peer(self) -> Hello | None:
        """What the other side presented; to be believed only while `is_open`."""
        return self._side.peer

    def send(self, data: bytes, *, bulk: bool) -> bool:
        """Queue one encoded frame. False: not open, or full."""
        if not self.is_open or self._outbox is None:
            return False
        return self._outbox.push(data, bulk=bulk)

    def answer(self) -> JoinAnswer | None:
        """The answer to this side's request to join, once `opened`."""
        return self._side.answer if isinstance(self._side, Dialer) else None

    def close(self) -> None:
        """End it, or let it end as soon as it is made. Data not yet taken by the socket is lost."""
        self.is_unwanted = True
        if self._socket.transport is not None:
            self._socket.transport.abort()

    # Called by the layer of TLS; without one, by `connection_made`.

    def connecting(self, transport: asyncio.Transport) -> None:
        """The socket is there: from now on the hello has its time, that of TLS included."""
        self._socket.transport = transport
        if self.is_unwanted:
            transport.abort()
            return
        _set_options(transport.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._socket.timer = loop.call_later(HELLO_TIMEOUT_S, self._hello_timeout)

    def certified(self, nodes: frozenset[NodeId]) -> None:
        """The hello must agree with the certificate."""
        self._side.certified(nodes)

    def tls_failed(self, why: str, *, plain: bool) -> None:
        """Count it and say it; a peer without TLS is told in the words that it understands."""
        if plain and isinstance(self._side, Acceptor) and self._socket.transport is not None:
            said = Refuse(code="tls", text=f"this node speaks TLS only: {MISMATCH}")
            self._socket.transport.write(pack(said))
        self.is_open = False
        self._report("tls", f"{self._socket.name()}: {why}")

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the hello."""
        stream = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if self._socket.transport is None:
            self.connecting(stream)
        self._outbox = Outbox(stream)
        if isinstance(self._side, Dialer) and not self.is_unwanted:
            stream.write(self._side.begin())

    def data_received(self, data: bytes) -> None:
        """Cut into frames; until the hello is complete nothing but the hello is understood."""
        try:
            for body in self._reader.feed(data):
                if self._outbox is None or self._outbox.transport.is_closing():
                    return
                if not self.is_open:
                    self._hello(body)
                elif isinstance(self._side, Dialer):
                    raise WireError("the accepting side sent a frame")
                else:
                    self._frame(body)
        except HelloRefused as refused:
            self.is_open = False
            if self._outbox is not None:
                self._outbox.transport.write(refusal(refused))
            self._refuse(refused.refuse.code, str(refused), by_peer=refused.by_peer)
        except (HelloError, WireError) as error:
            self._garbage(data, error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        self.is_open = False
        self._outbox = None
        self._socket.end()
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
        peer = self._side.peer
        asked = done and peer is not None and peer.join is not None
        if done and not asked:
            assert peer is not None
            self.is_open = True
            self._events.opened(self, peer)
            self._reader.frames_follow()
            self._socket.stop_timer()
        if answer and self._outbox is not None:
            self._outbox.transport.write(answer)
            if asked:
                self._outbox.transport.close()

    def _frame(self, body: bytes) -> None:
        whole = self._reader.whole(body)
        if whole is not None:
            self._events.frame(self, decode(whole))

    def _garbage(self, data: bytes, error: Exception) -> None:
        """Neither a hello nor a frame. Never a reason to believe anything the peer says."""
        if self._side.peer is None and is_tls(data):
            self._refuse("tls", f"{self._socket.name()}: it speaks TLS: {MISMATCH}")
        else:
            self._refuse("garbage", f"{self._socket.name()}: {error}")

    def _hello_timeout(self) -> None:
        self._refuse(
            "timeout", f"{self._socket.name()}: no complete hello in {HELLO_TIMEOUT_S:g} s"
        )

    def _refuse(self, code: str, text: str, *, by_peer: bool = False) -> None:
        self._report(code, text, by_peer=by_peer)
        if self._socket.transport is not None:
            # close(), not abort(): the refusal must still reach the other side.
            self._socket.transport.close()

    def _report(self, code: str, text: str, *, by_peer: bool = False) -> None:
        if not self._socket.reported:
            self._socket.reported = True
            node = self._side.peer_node()
            self._events.refused(Refusal(node=node, code=code, text=text, by_peer=by_peer))


class _Reader:
    """From bytes to whole bodies: those of the hello first, then frames and parts of frames."""

    __slots__ = ("_assembly", "_frames")

    def __init__(self) -> None:
        self._frames = FrameDecoder(HELLO_BYTES_MAX)
        self._assembly = Assembly()

    def feed(self, data: bytes) -> Iterator[bytes]:
        return self._frames.feed(data)

    def frames_follow(self) -> None:
        self._frames.set_limit(TRAVELLING_BYTES_MAX)

    def whole(self, body: bytes) -> bytes | None:
        return self._assembly.take(body)


class _Socket:
    """What is below, with or without TLS, the time that the hello has, and whether it was said."""

    __slots__ = ("reported", "timer", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.reported = False

    def name(self) -> str:
        address = None if self.transport is None else self.transport.get_extra_info("peername")
        host = address[0] if isinstance(address, tuple) else "unknown address"
        return f"peer at {host}"

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def end(self) -> None:
        self.stop_timer()
        self.transport = None


def predates_start(connection: Connection) -> bool:
    """Whether neither side's hello said that the group has started."""
    peer = connection.peer()
    theirs = Stage.BLANK if peer is None else peer.stage
    return Stage.STARTED not in (connection.stage, theirs)


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
        (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, PART_BYTES_MAX),
    )
    with contextlib.suppress(OSError):  # a connection that is already gone ends by itself
        for level, option, value in options:
            sock.setsockopt(level, option, value)
