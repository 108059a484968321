"""A session that is closed while somebody waits on it leaves nothing behind in the event loop."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from ramd.postgres.session import Session, SessionError
from tests.support.wait import wait_for_async

GREETING = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"
"""AuthenticationOk, ReadyForQuery: all that libpq wants to hear."""


class Mute:
    """A server that lets clients in and never answers a question."""

    def __init__(self) -> None:
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        writer.write(GREETING)
        while await reader.read(1000):
            self.asked += 1
        writer.close()


async def test_closing_a_session_ends_the_wait_of_whoever_asks(tmp_path: Path) -> None:
    mute = Mute()
    server = await asyncio.start_unix_server(mute.serve, tmp_path / ".s.PGSQL.5432")
    info = f"host={tmp_path} port=5432 user=x dbname=x gssencmode=disable sslmode=disable"
    session = await Session.open(info, timeout_ms=5000)
    asking = asyncio.ensure_future(session.query("SELECT 1", timeout_ms=60_000))

    async def asked() -> bool:
        return mute.asked > 0

    await wait_for_async(asked, 5.0, "the question arrived")
    session.close()
    # The number of the closed descriptor is given to the next one that is opened.
    ours, other = socket.socketpair()
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(ours.fileno(), readable.set)
    with pytest.raises(SessionError, match="closed"):
        async with asyncio.timeout(5):
            await asking
    other.send(b"x")
    async with asyncio.timeout(5):
        await readable.wait()
    asyncio.get_running_loop().remove_reader(ours.fileno())
    ours.close()
    other.close()
    server.close()
