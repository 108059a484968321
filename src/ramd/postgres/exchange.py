"""WAL files that go from one node to another, and how a replica is given those that came.

They come as an archive would: a `restore_command` that hands out what is in one directory, which
holds nothing but them. PostgreSQL copies a segment, checks each record, and keeps the file durably
in pg_wal (xlogarchive.c). Start reading at `Exchange`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn, format_lsn, parse_lsn
from ramd.domain.observation import Position
from ramd.postgres.conf import fetched_dir
from ramd.postgres.files import on_disk
from ramd.postgres.probe import Link
from ramd.postgres.session import SessionError
from ramd.postgres.site import Site, private_dir
from ramd.postgres.wal import SEGMENT, segment_name

POLL_S = 0.01
QUESTION_MS = 1_000
LOG_BYTES = 256 << 10
STARTED = b"starting PostgreSQL "
FAILED = re.compile(
    rb"PANIC:  .*?(could not (?:fsync|fdatasync|flush|sync)\b|Input/output error)[^\n]*"
)
KEPT_FILE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """`ramd.domain.server.WalExchange` on a real server. `give` makes its configuration say whether
    it is given what came, and tells it if it runs; `log` is where it wrote what it had to say."""

    site: Site
    link: Link
    give: Callable[[bool], Awaitable[None]]
    log: Callable[[], str]

    async def read(self, at: Position, size: int) -> bytes:
        """See WalExchange."""
        return await asyncio.to_thread(self._read, at, size)

    @property
    def _kept_dir(self) -> Path:
        return fetched_dir(self.site)

    def _read(self, at: Position, size: int) -> bytes:
        segment = segment_bytes(self.site.wal_dir)
        path = self.site.wal_dir / segment_name(at.timeline, at.lsn, segment)
        offset = at.lsn % segment
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PostgresError(f"WAL file {path.name} is gone") from None
        try:
            data = os.pread(descriptor, min(size, segment - offset), offset)
        finally:
            os.close(descriptor)
        if not data:
            raise PostgresError(f"WAL file {path.name} ends before {format_lsn(at.lsn)}")
        return data

    async def begin(self, at: Position) -> Lsn:
        """See WalExchange."""

        def make_room() -> int:
            self._clear()
            private_dir(self._kept_dir, self.site.account)
            return segment_bytes(self.site.wal_dir)

        segment = await on_disk(make_room)
        return Lsn(at.lsn - at.lsn % segment)

    async def keep(self, at: Position, data: bytes) -> None:
        """See WalExchange. Not durable: PostgreSQL makes its own copy so."""
        await on_disk(lambda: self._keep(at, data))

    def _keep(self, at: Position, data: bytes) -> None:
        segment = segment_bytes(self.site.wal_dir)
        offset = at.lsn % segment
        path = self._kept_dir / segment_name(at.timeline, at.lsn, segment)
        descriptor = os.open(path, KEPT_FILE, 0o600)
        try:
            self.site.account.give(descriptor)
            os.ftruncate(descriptor, segment)
            view = memoryview(data)[: segment - offset]
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(descriptor)

    async def replay(self, upto: Lsn, *, timeout_ms: int) -> None:
        """See WalExchange."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_ms / 1000
        await self.give(True)
        while (replayed := await self._replayed()) < upto:
            if loop.time() >= deadline:
                raise PostgresError(
                    f"replay came to {format_lsn(replayed)}, not to {format_lsn(upto)}"
                )
            await asyncio.sleep(POLL_S)

    async def end(self) -> None:
        """See WalExchange."""
        await self.give(False)
        await on_disk(self._clear)

    async def doubt(self) -> str:
        """See WalExchange. Only of a server whose log is the one we read."""
        return await asyncio.to_thread(self._doubt)

    def _doubt(self) -> str:
        path = self.site.log_file
        if self.log() != os.path.realpath(path):
            return "where its server wrote its log is not known"
        try:
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                said = file.read(LOG_BYTES)
        except OSError as error:
            return f"the log of its server cannot be read: {error.strerror}"
        found = FAILED.search(said, max(0, said.rfind(STARTED)))
        return f"its server said: {found[0].decode(errors='replace')[:100]}" if found else ""

    async def _replayed(self) -> Lsn:
        try:
            rows = await self.link.query("SELECT pg_last_wal_replay_lsn()", timeout_ms=QUESTION_MS)
        except SessionError as error:
            raise PostgresError(f"the replica does not answer: {error.message}") from error
        return parse_lsn(rows[0][0]) if rows[0][0] is not None else Lsn(0)

    def _clear(self) -> None:
        if self._kept_dir.is_dir() and not self._kept_dir.is_symlink():
            shutil.rmtree(self._kept_dir)


def segment_bytes(wal_dir: Path) -> int:
    """The size of every WAL file of this server. Raises PostgresError if there is none."""
    with os.scandir(wal_dir) as entries:
        for entry in entries:
            if SEGMENT.match(entry.name):
                return entry.stat().st_size
    raise PostgresError(f"there is no WAL file in {wal_dir}")
