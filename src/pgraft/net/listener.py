"""The connections that a member accepts: one that counts per peer, and those still in their hello.

Lives here: listening and which accepted connection counts. Must not live here: dialing (`link`).
Start reading at `Listener`.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from pgraft.core.types import NodeId
from pgraft.net.address import Address
from pgraft.net.connection import Connection
from pgraft.net.handshake import Acceptor
from pgraft.net.hello import NONCE_BYTES, Hello, HelloRefused, Refuse
from pgraft.net.link import Links
from pgraft.net.local import Local
from pgraft.net.transport import ListenError, Refusal
from pgraft.wire import Frame

UNPROVEN_MAX: Final = 64
"""Accepted connections that have not completed their hello; for a further one the oldest goes."""


class Listener:
    """The accepted connections: one that counts per peer, and those still in their hello."""

    def __init__(self, local: Local, links: Links) -> None:
        self._local = local
        self._links = links
        self._server: asyncio.Server | None = None
        self._accepted: dict[NodeId, Connection] = {}
        self._all: dict[Connection, None] = {}  # by age
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

    def changed(self) -> None:
        """Identity or roster have changed: end what does not fit any more."""
        for connection in list(self._all):
            if not self._local.fits(connection):
                connection.close()

    def _accept(self) -> asyncio.Protocol:
        presence = self._local.presence()
        nonce = secrets.token_bytes(NONCE_BYTES)
        side = Acceptor(presence, self._local.secret, nonce=nonce, host=self._local)
        connection = Connection(side, presence.identity.stage, self)
        connection.is_unwanted = self._closed
        if not self._closed:
            # A connection that the loop accepts while the server closes may never be made, and so
            # never end: nobody must wait for it.
            self._make_room()
            self._all[connection] = None
        return self._local.layered(connection, accepting=True)

    def _make_room(self) -> None:
        """End the oldest connection that has not said who it is, if there are too many of them.

        The oldest, because a member is done in a moment: it gets in beside any number that wait.
        """
        unproven = [c for c in self._all if not c.is_open and not c.is_unwanted]
        if len(unproven) >= UNPROVEN_MAX:
            unproven[0].close()
            text = f"{len(unproven)} connections have not said who they are: the oldest was ended"
            self._local.refused(Refusal(node=NodeId(0), code="flood", text=text, by_peer=False))

    # pgraft.net.connection.ConnectionEvents

    def opened(self, connection: Connection, peer: Hello) -> None:
        if not self._local.belongs(peer):
            connection.close()  # it has changed during the hello; the next one tells it
            return
        old = self._accepted.get(peer.node)
        if old is not None:
            before = old.peer()
            # Of two members of one node id the one that was admitted later is the true one.
            other = before is not None and before.uuid != peer.uuid
            if other and before is not None and peer.since <= before.since:
                text = f"node {peer.node} is connected as member {before.uuid}, and now also as "
                raise HelloRefused(
                    Refuse(code="duplicate_node", text=text + peer.uuid), f"node {peer.node}"
                )
            old.close()
        self._accepted[peer.node] = connection
        self._local.met(peer)
        link = self._links.get(peer.node)
        if link is not None:
            link.wake()

    def frame(self, connection: Connection, frame: Frame) -> None:
        peer = connection.peer()
        if self._local.sink is not None and peer is not None:
            self._local.sink.on_frame(peer.node, frame)

    def refused(self, refusal: Refusal) -> None:
        self._local.refused(refusal)

    def closed(self, connection: Connection) -> None:
        self._all.pop(connection, None)
        if not self._all:
            self._drained.set()
        peer = connection.peer()
        if peer is not None and self._accepted.get(peer.node) is connection:
            del self._accepted[peer.node]
