"""WAL that goes from one fake server to another: bytes say nothing, positions all.

Start reading at `FakeExchange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Position
from ramd.domain.server import WalExchange

if TYPE_CHECKING:
    from tests.support.fake_server import FakeServer

SEGMENT = 1000


class FakeExchange(WalExchange):
    """Of one `FakeServer`. `kept`: (from, to) of what came since `begin`, without a gap."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.kept: tuple[int, int] | None = None
        self.given = False
        self.doubted = ""
        self.odd: bytes | None = None
        """What the next `read` brings instead."""

    async def read(self, at: Position, size: int) -> bytes:
        await self._server.enter("wal.read", "probe")
        disk = self._server.disk
        if at.timeline != disk.timeline or not at.lsn < disk.end:
            raise PostgresError("it is gone")
        if self.odd is not None:
            odd, self.odd = self.odd, None
            return odd
        return bytes(min(size, SEGMENT - at.lsn % SEGMENT))

    async def begin(self, at: Position) -> Lsn:
        await self._server.enter("wal.begin", "probe")
        start = at.lsn - at.lsn % SEGMENT
        self.kept = (start, start)
        return Lsn(start)

    async def keep(self, at: Position, data: bytes) -> None:
        await self._server.enter("wal.keep", "probe")
        assert self.kept is not None
        assert self.kept[1] == at.lsn, "what is kept has no gap"
        self.kept = (self.kept[0], at.lsn + len(data))

    async def replay(self, upto: Lsn, *, timeout_ms: int) -> None:
        self.given = True
        await self._server.enter("wal.replay", "probe")
        assert self.kept is not None
        disk = self._server.disk
        assert self.kept[0] <= disk.end
        disk.end = max(disk.end, min(self.kept[1], upto))
        if disk.end < upto:
            raise PostgresError(f"replay came to {disk.end} only")

    async def end(self) -> None:
        await self._server.enter("wal.end", "probe")
        self.given = False
        self.kept = None

    async def doubt(self) -> str:
        return self.doubted
