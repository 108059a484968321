"""The control file, read by pg_controldata: what a stopped server says of itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn, parse_lsn
from ramd.domain.server import ControlState
from ramd.postgres.site import Site
from ramd.postgres.tools import must_run

TIMEOUT_MS = 20_000
CONTROL_BYTES = 8192
"""Size of the file (pg_control.h, PG_CONTROL_FILE_SIZE)."""

STATES = {
    "shut down": ControlState.SHUT_DOWN,
    "shut down in recovery": ControlState.SHUT_DOWN_IN_RECOVERY,
    "in production": ControlState.IN_PRODUCTION,
    "in archive recovery": ControlState.IN_RECOVERY,
    "in crash recovery": ControlState.IN_RECOVERY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The fields of pg_control we use. LSNs and timelines of recovery are 0 outside of it."""

    system_id: str
    state: ControlState
    checkpoint_lsn: Lsn
    redo_lsn: Lsn
    checkpoint_timeline: int
    recovery_lsn: Lsn
    recovery_timeline: int
    segment_bytes: int

    @property
    def timeline(self) -> int:
        """The latest timeline this server has replayed or written, as far as pg_control knows: a
        primary notes its new timeline there before the first checkpoint on it (xlog.c,
        CreateEndOfRecoveryRecord)."""
        return max(self.checkpoint_timeline, self.recovery_timeline)


def parse_control(text: str) -> Control:
    """Parse the English output of pg_controldata. Raises PostgresError."""
    values = {
        key.strip(): value.strip()
        for key, _, value in (x.partition(":") for x in text.splitlines())
    }
    try:
        return Control(
            system_id=str(int(values["Database system identifier"])),
            state=STATES.get(values["Database cluster state"], ControlState.OTHER),
            checkpoint_lsn=parse_lsn(values["Latest checkpoint location"]),
            redo_lsn=parse_lsn(values["Latest checkpoint's REDO location"]),
            checkpoint_timeline=int(values["Latest checkpoint's TimeLineID"]),
            recovery_lsn=parse_lsn(values["Minimum recovery ending location"]),
            recovery_timeline=int(values["Min recovery ending loc's timeline"]),
            segment_bytes=int(values["Bytes per WAL segment"]),
        )
    except (KeyError, ValueError) as error:
        raise PostgresError(f"pg_controldata says nothing that makes sense: {error}") from error


async def read_control(site: Site) -> Control:
    """The control file of the data directory. Raises PostgresError with the tool's words."""
    argv = [site.binaries.tool("pg_controldata"), "-D", str(site.data_dir)]
    return parse_control(await must_run(argv, site.account, timeout_ms=TIMEOUT_MS))


class ControlFile:
    """The control file of one directory, which is not given to the program again while its bytes
    are the same: each change of it by a server writes a time that it has not borne before."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: tuple[bytes, Control] | None = None
        self._ahead: asyncio.Task[None] | None = None

    async def read(self) -> Control:
        """What it says now. Raises PostgresError with the program's words."""
        if self._ahead is not None:
            await asyncio.wait({self._ahead})
        found = self._bytes()
        if self._known is not None and found and self._known[0] == found:
            return self._known[1]
        control = await read_control(self._site)
        # By the bytes of before: if they have changed meanwhile, nothing will ever equal them.
        self._known = found, control
        return control

    def read_ahead(self) -> None:
        """Begin to read it, for whoever asks later; what goes wrong is said to them."""
        if self._ahead is None or self._ahead.done():
            self._ahead = asyncio.ensure_future(self._try())

    async def _try(self) -> None:
        found = self._bytes()
        if found and (self._known is None or self._known[0] != found):
            try:
                self._known = found, await read_control(self._site)
            except (PostgresError, OSError):
                return

    def _bytes(self) -> bytes:
        """b"" if it cannot be read, or is not whole."""
        try:
            with (self._site.data_dir / "global" / "pg_control").open("rb") as file:
                found = file.read(CONTROL_BYTES)
        except OSError:
            return b""
        return found if len(found) == CONTROL_BYTES else b""
