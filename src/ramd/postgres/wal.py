"""WAL files of a stopped server: their names, and where valid WAL ends (read with pg_waldump)."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn, format_lsn, parse_lsn
from ramd.domain.observation import Position
from ramd.postgres.control import Control
from ramd.postgres.site import Site
from ramd.postgres.timeline import fork_from, known_timelines, read_history
from ramd.postgres.tools import run_tool

STATS = re.compile(r"WAL statistics between ([0-9A-F]+/[0-9A-F]+) and ([0-9A-F]+/[0-9A-F]+)")
SEGMENT = re.compile(r"^([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})$")
PAGE_HEAD = struct.Struct("=HHIQ")
"""Magic, flags, timeline and address of a page of WAL (xlog_internal.h, XLogPageHeaderData)."""
BRANCHES_MAX = 8


def segment_name(timeline: int, lsn: Lsn, segment_bytes: int) -> str:
    """Name of the file that holds `lsn` (xlog_internal.h, XLogFileName)."""
    number = lsn // segment_bytes
    per_id = (1 << 32) // segment_bytes
    return f"{timeline:08X}{number // per_id:08X}{number % per_id:08X}"


def segment_start(name: str, segment_bytes: int) -> tuple[int, Lsn] | None:
    """Timeline and first LSN of a WAL file, None if it is not one."""
    match = SEGMENT.match(name)
    if not match:
        return None
    timeline, high, low = (int(group, 16) for group in match.groups())
    return timeline, Lsn((high << 32) + low * segment_bytes)


def wal_names(wal_dir: Path) -> frozenset[str]:
    """The WAL files that are there; none if that cannot be read."""
    try:
        return frozenset(path.name for path in wal_dir.iterdir() if SEGMENT.match(path.name))
    except OSError:
        return frozenset()


def missing_file(wal_dir: Path, names: frozenset[str], control: Control) -> str:
    """The first file that recovery from the last checkpoint would need and that is not there,
    though a later one was written; '' if there is none such.

    `names` are from before `control` was read: what is needed from then on was there, or nothing
    after it had been written. Files come to be in their order, each durably before it is used
    (xlog.c, XLogFileInit, InstallXLogFileSegment), so a lost host leaves no such hole, either.
    """
    size, timeline = control.segment_bytes, control.checkpoint_timeline
    starts = [segment_start(name, size) for name in names]
    there = {start[1] for start in starts if start is not None and start[0] == timeline}
    at = Lsn(control.redo_lsn - control.redo_lsn % size)
    while at in there:
        at = Lsn(at + size)
    later = sorted(start for start in there if start > at)
    if any(written(wal_dir / segment_name(timeline, start, size), start) for start in later):
        return segment_name(timeline, at, size)
    return ""


def written(path: Path, start: Lsn) -> bool:
    """WAL of `start` on was written here: not so in a file that only waits to be used, which is
    empty, or says the address it had when it was used before (xlog_internal.h)."""
    try:
        with path.open("rb") as file:
            head = file.read(PAGE_HEAD.size)
    except OSError:
        return False
    return len(head) == PAGE_HEAD.size and bool(PAGE_HEAD.unpack(head)[-1] == start)


async def end_of_wal(site: Site, control: Control, *, timeout_ms: int) -> Position | None:
    """End of the last valid record on the newest timeline of this stopped server, None if none is
    found in time. `control`, what its control file says, may not know of a timeline whose WAL was
    received just before the end, so branches that leave the known one are tried first, newest
    first."""
    for timeline, start in branches(site.wal_dir, control):
        limit = last_byte(site.wal_dir, timeline, start, control.segment_bytes)
        try:
            end = await scan(site, Position(timeline=timeline, lsn=start), limit, timeout_ms)
        except PostgresError:
            return None  # not read to its end in time: an older branch would be a wrong answer
        if end is not None:
            return Position(timeline=timeline, lsn=end)
    return None


def branches(wal_dir: Path, control: Control) -> list[tuple[int, Lsn]]:
    """(timeline, where to begin reading), newest timeline first."""
    found = []
    for timeline in sorted({*known_timelines(wal_dir), control.timeline}, reverse=True):
        start = control.redo_lsn
        if timeline != control.checkpoint_timeline:
            ancestors = read_history(wal_dir, timeline)
            fork = fork_from(ancestors, control.checkpoint_timeline)
            if fork is None or fork < control.redo_lsn:
                continue
            start = ancestors[-1].lsn
        if (wal_dir / segment_name(timeline, start, control.segment_bytes)).exists():
            found.append((timeline, start))
    return found[:BRANCHES_MAX]


def last_byte(wal_dir: Path, timeline: int, start: Lsn, segment_bytes: int) -> Lsn:
    """Where the unbroken run of WAL files from `start` on ends. Without this bound pg_waldump waits
    five seconds for the next file, and then fails."""
    end = start - start % segment_bytes
    while (wal_dir / segment_name(timeline, Lsn(end), segment_bytes)).exists():
        end += segment_bytes
    return Lsn(end)


async def scan(site: Site, start: Position, limit: Lsn, timeout_ms: int) -> Lsn | None:
    """End of the valid records from `start` to `limit`; None if there is not one. Raises
    PostgresError when time is up."""
    argv = [
        site.binaries.tool("pg_waldump"),
        f"--path={site.wal_dir}",
        f"--timeline={start.timeline}",
        f"--start={format_lsn(start.lsn)}",
        f"--end={format_lsn(limit)}",
        "--stats",
    ]
    said = await run_tool(argv, site.account, timeout_ms=timeout_ms)
    match = STATS.search(said.output)
    return parse_lsn(match[2]) if match else None
