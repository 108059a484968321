"""Connections of one member over TCP: one dialed to each peer to send, one accepted to receive.

Lives here: listening, dialing again, which connection counts. Must not live here: the hello and the
bytes of a connection (`hello`, `connection`). Start reading at `TcpTransport`, then `_Link.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pgraft.core.types import Append, NodeId
from pgraft.identity import Founder, Identity, Stage
from pgraft.net.connection import Connection
from pgraft.net.hello import (
    NONCE_BYTES,
    Acceptor,
    Dialer,
    Hello,
    HelloRefused,
    Refuse,
    check_secret,
)
from pgraft.net.transport import ListenError, Peer, Refusal, Refusals, Sink
from pgraft.wire import Frame, encode, encode_append, is_bulk

_LOG = logging.getLogger("pgraft.net")
UNPROVEN_MAX: Final = 64
"""Accepted connections that have not completed their hello; further ones are closed at once."""
CONNECT_TIMEOUT_S: Final = 2.0
_BACKOFF_MIN_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0
_FIRST_REDIAL_MAX_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a peer listens. The host may be a name: it is resolved again at each connection."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """`host:port`, with `[…]` around an IPv6 host. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"'{text}' is not host:port")
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))


def addresses(founders: tuple[Founder, ...], myself: NodeId) -> dict[NodeId, Address]:
    """The addresses of all members but this one. Raises ValueError."""
    return {f.node: parse_address(f.address) for f in founders if f.node != myself}


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    """`listen` is where this member accepts; `peers` are those it dials; `secret` the cluster's."""

    listen: Address
    peers: Mapping[NodeId, Address]
    secret: bytes


@dataclass(slots=True)
class _Shared:
    """What the listener and the links have in common."""

    identity: Identity
    secret: bytes
    refusals: Refusals
    rng: random.Random
    sink: Sink | None = None

    def refused(self, refusal: Refusal) -> None:
        self.refusals.note(refusal)
        if self.sink is not None:
            self.sink.on_refused(refusal)

    def met(self, hello: Hello) -> None:
        if self.sink is not None:
            peer = Peer(
                node=hello.node,
                uuid=hello.uuid,
                stage=hello.stage,
                cluster_id=hello.cluster_id,
            )
            self.sink.on_peer(peer)


class _Link:
    """The outgoing connection to one peer, made again for as long as `run` runs."""

    def __init__(self, shared: _Shared, peer: NodeId, address: Address) -> None:
        self.connection: Connection | None = None
        self._shared = shared
        self._peer = peer
        self._address = address
        self._reported: bool | None = None
        self._ended = asyncio.Event()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Dial, wait for the end, dial again: 50 ms to 1 s apart, at once when the peer calls."""
        delay_s = _BACKOFF_MIN_S
        while True:  # ends by cancellation; paced by the waits below
            self._wake.clear()
            if await self._once():
                delay_s = _BACKOFF_MIN_S
                pause_s = self._shared.rng.uniform(0, _FIRST_REDIAL_MAX_S)
            else:
                pause_s = delay_s * self._shared.rng.uniform(0.5, 1.0)
                delay_s = min(delay_s * 2, _BACKOFF_MAX_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def wake(self) -> None:
        """There is reason to believe that the next try succeeds: do not wait for it."""
        self._wake.set()

    async def _once(self) -> bool:
        """One connection from dialing to its end; whether it ever opened."""
        identity = self._shared.identity
        nonce = secrets.token_bytes(NONCE_BYTES)
        side = Dialer(identity, self._shared.secret, nonce=nonce, expected=self._peer)
        connection = Connection(side, identity.stage, self)
        self._ended.clear()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: connection, self._address.host, self._address.port
                )
        except ConnectionRefusedError:
            self._report(False)
            return False
        except (OSError, UnicodeError) as error:  # the latter: a host that can be no name
            _LOG.debug("node %d cannot be reached: %s", self._peer, error)
            return False
        try:
            await self._ended.wait()
        finally:
            connection.close()
            await self._ended.wait()  # bounded: an aborted connection ends in the next turn
        was_open = self.connection is connection
        self.connection = None
        if was_open:
            self._report(False)
        return was_open

    def _report(self, up: bool) -> None:
        if self._reported is up:
            return
        self._reported = up
        _LOG.info("connection to node %d is %s", self._peer, "up" if up else "down")
        if self._shared.sink is not None:
            self._shared.sink.on_link(self._peer, up)

    # pgraft.net.connection.ConnectionEvents

    def opened(self, connection: Connection, peer: Hello) -> None:
        if self._shared.identity.stage is Stage.STARTED and _predates_start(connection):
            connection.close()  # started during the hello; the next one tells it
            return
        self.connection = connection
        self._shared.met(peer)
        self._report(True)

    def frame(self, connection: Connection, frame: Frame) -> None:
        raise AssertionError("frames come only on accepted connections")

    def refused(self, refusal: Refusal) -> None:
        self._shared.refused(refusal)

    def closed(self, connection: Connection) -> None:
        self._ended.set()


def _predates_start(connection: Connection) -> bool:
    """Whether neither side's hello said that the group has started."""
    peer = connection.peer()
    theirs = Stage.BLANK if peer is None else peer.stage
    return Stage.STARTED not in (connection.stage, theirs)


class _Listener:
    """The accepted connections: one that counts per peer, and those still in their hello."""

    def __init__(self, shared: _Shared, links: Mapping[NodeId, _Link]) -> None:
        self._shared = shared
        self._links = links
        self._server: asyncio.Server | None = None
        self._accepted: dict[NodeId, Connection] = {}
        self._all: set[Connection] = set()
        self._drained = asyncio.Event()
        self._closed = False

    async def start(self, listen: Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, listen.host, listen.port)
        except OSError as error:
            raise ListenError(
                f"cannot listen for peers on {listen.host}:{listen.port}: {error.strerror or error}"
            ) from error

    async def close(self) -> None:
        self._closed = True
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._all):
            connection.close()
        if self._all:
            self._drained.clear()
            await self._drained.wait()  # bounded: aborted connections end in the next turn
        await self._server.wait_closed()

    def started(self) -> None:
        """This member has started: close what was accepted before any side had."""
        for connection in list(self._all):
            if _predates_start(connection):
                connection.close()

    def _accept(self) -> Connection:
        identity = self._shared.identity
        side = Acceptor(identity, self._shared.secret, nonce=secrets.token_bytes(NONCE_BYTES))
        connection = Connection(side, identity.stage, self)
        unproven = sum(1 for c in self._all if not c.is_open)
        connection.is_unwanted = self._closed or unproven >= UNPROVEN_MAX
        self._all.add(connection)
        return connection

    # pgraft.net.connection.ConnectionEvents

    def opened(self, connection: Connection, peer: Hello) -> None:
        old = self._accepted.get(peer.node)
        if old is not None:
            before = old.peer()
            if before is not None and before.uuid != peer.uuid:
                text = f"node {peer.node} is connected as member {before.uuid}, and now also as "
                raise HelloRefused(
                    Refuse(code="duplicate_node", text=text + peer.uuid), f"node {peer.node}"
                )
            old.close()
        self._accepted[peer.node] = connection
        self._shared.met(peer)
        link = self._links.get(peer.node)
        if link is not None:
            link.wake()

    def frame(self, connection: Connection, frame: Frame) -> None:
        peer = connection.peer()
        if self._shared.sink is not None and peer is not None:
            self._shared.sink.on_frame(peer.node, frame)

    def refused(self, refusal: Refusal) -> None:
        self._shared.refused(refusal)

    def closed(self, connection: Connection) -> None:
        self._all.discard(connection)
        if not self._all:
            self._drained.set()
        peer = connection.peer()
        if peer is not None and self._accepted.get(peer.node) is connection:
            del self._accepted[peer.node]


class TcpTransport:
    """`pgraft.net.transport.Transport` over TCP. Raises ValueError for too short a secret."""

    def __init__(self, identity: Identity, options: TcpOptions, rng: random.Random) -> None:
        check_secret(options.secret)
        self._listen = options.listen
        self._shared = _Shared(
            identity=identity,
            secret=options.secret,
            refusals=Refusals(lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)),
            rng=rng,
        )
        self._links = {
            peer: _Link(self._shared, peer, address) for peer, address in options.peers.items()
        }
        self._listener = _Listener(self._shared, self._links)
        self._dialing: list[asyncio.Task[None]] = []
        self._dropped = 0

    async def start(self, sink: Sink) -> None:
        """Listen, then dial every peer. Raises ListenError with nothing left open."""
        self._shared.sink = sink
        await self._listener.start(self._listen)
        loop = asyncio.get_running_loop()
        self._dialing = [
            loop.create_task(link.run(), name=f"dial node {peer}")
            for peer, link in self._links.items()
        ]

    def send(self, to: NodeId, frame: Frame) -> bool:
        """See Transport.send. An append too long for one frame is shortened, not refused."""
        link = self._links.get(to)
        if link is None or link.connection is None:
            return False
        data = encode_append(frame) if isinstance(frame, Append) else encode(frame)
        sent = link.connection.send(data, bulk=is_bulk(frame))
        self._dropped += not sent
        return sent

    def linked(self, to: NodeId) -> bool:
        """Whether the outgoing connection to this peer is usable."""
        link = self._links.get(to)
        return link is not None and link.connection is not None

    def set_identity(self, identity: Identity) -> None:
        """See Transport.set_identity."""
        self._shared.identity = identity
        for link in self._links.values():
            link.wake()
        if identity.stage is Stage.STARTED:
            self._listener.started()
            for link in self._links.values():
                if link.connection is not None and _predates_start(link.connection):
                    link.connection.close()

    def refusals(self) -> Mapping[str, int]:
        """How many connections were refused since the start, by code."""
        return self._shared.refusals.counts()

    def dropped(self) -> int:
        """How many frames were dropped because a queue was full."""
        return self._dropped

    async def close(self) -> None:
        """End every connection and stop listening."""
        self._shared.sink = None
        for task in self._dialing:
            task.cancel()
        if self._dialing:
            await asyncio.wait(self._dialing)
        self._dialing = []
        await self._listener.close()
