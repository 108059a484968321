"""The connections that a member makes: one to each peer, made again for as long as it is one.

Lives here: dialing, its pace, who is dialed. Must not live here: what is accepted (`listener`).
Start reading at `Links`, then `Link.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Mapping
from typing import Final

from pgraft.core.types import NodeId
from pgraft.identity import Stage
from pgraft.net.address import Address
from pgraft.net.connection import Connection, predates_start
from pgraft.net.handshake import Dialer
from pgraft.net.hello import NONCE_BYTES, Hello
from pgraft.net.local import Local
from pgraft.net.transport import Refusal
from pgraft.wire import Frame

_LOG = logging.getLogger("pgraft.net")
CONNECT_TIMEOUT_S: Final = 2.0
_BACKOFF_MIN_S: Final = 0.05
_BACKOFF_MAX_S: Final = 1.0
_FIRST_REDIAL_MAX_S: Final = 0.02


class Link:
    """The outgoing connection to one peer, made again for as long as `run` runs."""

    def __init__(self, local: Local, peer: NodeId, address: Address) -> None:
        self.connection: Connection | None = None
        self._local = local
        self._peer = peer
        self.address = address
        self._reported: bool | None = None
        self._retired = False
        self._ended = asyncio.Event()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Dial, wait for the end, dial again: 50 ms to 1 s apart, at once when the peer calls."""
        delay_s = _BACKOFF_MIN_S
        while True:  # ends by cancellation; paced by the waits below
            self._wake.clear()
            if await self._once():
                delay_s = _BACKOFF_MIN_S
                pause_s = self._local.rng.uniform(0, _FIRST_REDIAL_MAX_S)
            else:
                pause_s = delay_s * self._local.rng.uniform(0.5, 1.0)
                delay_s = min(delay_s * 2, _BACKOFF_MAX_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def wake(self) -> None:
        """There is reason to believe that the next try succeeds: do not wait for it."""
        self._wake.set()

    def retire(self) -> None:
        """This peer is none any more, or is elsewhere: end the connection, report it, say no more.

        The caller ends `run`.
        """
        if self._reported:
            self._report(False)
        self._retired = True
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    async def _once(self) -> bool:
        """One connection from dialing to its end; whether it ever opened."""
        presence = self._local.presence()
        nonce = secrets.token_bytes(NONCE_BYTES)
        side = Dialer(presence, self._local.secret, nonce=nonce, expected=self._peer)
        connection = Connection(side, presence.identity.stage, self)
        self._ended.clear()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: self._local.layered(connection, accepting=False),
                    self.address.host,
                    self.address.port,
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
        if self._reported is up or self._retired:
            return
        self._reported = up
        _LOG.info("connection to node %d is %s", self._peer, "up" if up else "down")
        if self._local.sink is not None:
            self._local.sink.on_link(self._peer, up)

    # pgraft.net.connection.ConnectionEvents

    def opened(self, connection: Connection, peer: Hello) -> None:
        starting = self._local.identity.stage is Stage.STARTED and predates_start(connection)
        if self._retired or starting or not self._local.belongs(peer):
            connection.close()  # it has changed during the hello; the next one tells it
            return
        self.connection = connection
        self._local.met(peer)
        self._report(True)

    def frame(self, connection: Connection, frame: Frame) -> None:
        raise AssertionError("frames come only on accepted connections")

    def refused(self, refusal: Refusal) -> None:
        self._local.refused(refusal)

    def closed(self, connection: Connection) -> None:
        self._ended.set()


class Links:
    """A link to each peer. Nothing is dialed before `start`."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._links: dict[NodeId, Link] = {}
        self._tasks: dict[NodeId, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._started = False

    def get(self, peer: NodeId) -> Link | None:
        """The link to this peer, if it is one."""
        return self._links.get(peer)

    def start(self) -> None:
        """Dial everybody from now on."""
        self._started = True
        for peer in self._links:
            self._dial(peer)

    def set(self, addresses: Mapping[NodeId, Address]) -> None:
        """Who is dialed from now on, and where. A link that stays as it is goes on."""
        for peer, link in list(self._links.items()):
            if addresses.get(peer) != link.address:
                link.retire()
                del self._links[peer]
                self._end(peer)
        for peer, address in addresses.items():
            if peer not in self._links:
                self._links[peer] = Link(self._local, peer, address)
                if self._started:
                    self._dial(peer)

    def changed(self) -> None:
        """Identity or roster have changed: end what does not fit any more, do not wait to dial."""
        for link in self._links.values():
            link.wake()
            if link.connection is not None and not self._local.fits(link.connection):
                link.connection.close()

    async def close(self) -> None:
        """End every connection and dial no more."""
        self._started = False
        for peer in list(self._tasks):
            self._end(peer)
        if self._ending:
            await asyncio.wait(set(self._ending))

    def _dial(self, peer: NodeId) -> None:
        task = asyncio.get_running_loop().create_task(
            self._links[peer].run(), name=f"dial node {peer}"
        )
        self._tasks[peer] = task

    def _end(self, peer: NodeId) -> None:
        task = self._tasks.pop(peer, None)
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
