"""WAL that goes from one simulated host to another in a failover: daemons' calls, and the archive.

Bytes travel; what they stand for is looked up in `LENT`, so that a record stays one object wherever
it is. Start reading at `SimExchange`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from pgraft.core.types import NodeId
from pgraft.net.channel import CallRefused, PeerLost
from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Position
from ramd.domain.server import WalExchange
from tests.support.ha_wal import Record

if TYPE_CHECKING:
    from tests.support.ha_group import GroupNode
    from tests.support.ha_server import SimServer

POLL_S = 0.01
TOKEN_BYTES = 8
LENT: dict[bytes, list[Record]] = {}

Handler: TypeAlias = Callable[[NodeId, bytes], Awaitable[bytes]]


class Calls:
    """The part of a channel that daemons ask each other by; `peers` has that of every node."""

    def __init__(self, node: GroupNode, peers: Callable[[int], Calls | None]) -> None:
        self._node = node
        self._peers = peers
        self._handlers: dict[str, Handler] = {}

    def register(self, method: str, handler: Handler) -> None:
        self._handlers[method] = handler

    async def call(self, to: NodeId, method: str, payload: bytes, timeout_s: float) -> bytes:
        other = self._peers(int(to))
        if other is None:
            raise PeerLost(f"node {to} is not connected")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def asked() -> None:
            _ = other._node.actor.begin(other._answer(self, answer, method, payload))

        self._send(other, asked)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise PeerLost(f"node {to} did not answer") from None

    async def _answer(
        self, caller: Calls, answer: asyncio.Future[bytes], method: str, payload: bytes
    ) -> None:
        def settle(act: Callable[[Any], None], what: Any) -> None:
            self._send(caller, lambda: None if answer.done() else act(what))

        try:
            settle(answer.set_result, await self._handlers[method](caller._node.node, payload))
        except CallRefused as refused:
            settle(answer.set_exception, refused)

    def _send(self, other: Calls, deliver: Callable[[], None]) -> None:
        me, to = int(self._node.node), int(other._node.node)
        self._node.network.send(me, to, other._node.actor, deliver)


class SimExchange(WalExchange):
    """Over the directory of a host. Incomplete records have no bytes to speak of."""

    def __init__(self, server: SimServer) -> None:
        self._server = server
        self._kept: list[Record] = []

    async def read(self, at: Position, size: int) -> bytes:
        await self._server.enter("wal.read")
        disk = self._server.host.disk
        if at.timeline != disk.timeline:
            raise PostgresError("it is gone")
        rng = self._server.host.world.rng
        token = rng.getrandbits(8 * TOKEN_BYTES).to_bytes(TOKEN_BYTES, "big")
        data = token.ljust(size, b"\0")[:size]
        LENT[data] = [r for r in disk.wal[: disk.flushed] if at.lsn < r.end <= at.lsn + size]
        return data

    async def begin(self, at: Position) -> Lsn:
        await self._server.enter("wal.begin")
        self._kept = []
        return Lsn(self._server.host.disk.end)

    async def keep(self, at: Position, data: bytes) -> None:
        await self._server.enter("wal.keep")
        self._kept += LENT.pop(data)

    async def replay(self, upto: Lsn, *, timeout_ms: int) -> None:
        await self._server.enter("wal.replay")
        server, disk = self._server.must_run(), self._server.host.disk
        assert not server.primary
        server.given = True
        server.actor.later(self._server.host.reload_s(), server.take_given, list(self._kept))
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_ms / 1000
        while disk.lsn_at(server.replayed) < upto:
            if server is not self._server.host.server or loop.time() > until_s:
                raise PostgresError("it is not replayed")
            await asyncio.sleep(POLL_S)

    async def end(self) -> None:
        await self._server.enter("wal.end")
        self._kept = []
        if self._server.running:
            self._server.must_run().given = False

    async def doubt(self) -> str:
        return self._server.host.said
