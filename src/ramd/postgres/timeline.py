"""Timelines and their history files in pg_wal (timeline.c).

`%08X.history` names, for each ancestor, the LSN at which the next timeline left it. RAMD hands the
numbers out (rule S6); PostgreSQL takes the first number without a history file, so lower numbers
that this server has never seen get an empty one just before a promotion.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn, parse_lsn
from ramd.postgres.account import Account
from ramd.postgres.files import NEW_FILE, sync_dir

NAME = re.compile(r"^([0-9A-F]{8})\.history$")
TIMELINES_MAX = 100_000
"""More than this many numbers at once are never skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """`timeline` was left at `lsn`."""

    timeline: int
    lsn: Lsn


def file_name(timeline: int) -> str:
    return f"{timeline:08X}.history"


def parse_history(text: str) -> tuple[Fork, ...]:
    """The ancestors, oldest first; none for an empty file. Raises PostgresError."""
    forks = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            forks.append(Fork(timeline=int(words[0]), lsn=parse_lsn(words[1])))
        except (IndexError, ValueError) as error:
            raise PostgresError(f"not a line of a timeline history: {line}") from error
    return tuple(forks)


def read_history(wal_dir: Path, timeline: int) -> tuple[Fork, ...]:
    """Ancestors of `timeline`; none if it has no history file, as timeline 1."""
    try:
        return parse_history((wal_dir / file_name(timeline)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()


def fork_from(ancestors: tuple[Fork, ...], timeline: int) -> Lsn | None:
    """Where a server with these ancestors left `timeline`, None if it never was on it."""
    return next((fork.lsn for fork in ancestors if fork.timeline == timeline), None)


def known_timelines(wal_dir: Path) -> dict[int, int]:
    """Number of every history file there is, and its size in bytes."""
    found = {}
    for entry in os.scandir(wal_dir):
        match = NAME.match(entry.name)
        if match:
            found[int(match[1], 16)] = entry.stat().st_size
    return found


def write_placeholders(wal_dir: Path, account: Account, current: int, wanted: int) -> list[Path]:
    """Empty history files for the numbers between that have none, so that a server on `current`
    picks `wanted`. Raises PostgresError if it cannot come out so. The caller makes them durable."""
    known = known_timelines(wal_dir)
    if wanted <= current:
        raise PostgresError(f"timeline {wanted} is not after the present one, {current}")
    if wanted - current > TIMELINES_MAX:
        raise PostgresError(f"timeline {wanted} is too far from the present one, {current}")
    if wanted in known:
        raise PostgresError(f"timeline {wanted} exists already on this server")
    made = []
    for number in range(current + 1, wanted):
        if number not in known:
            path = wal_dir / file_name(number)
            descriptor = os.open(path, NEW_FILE, 0o600)
            account.give(descriptor)
            os.close(descriptor)
            made.append(path)
    return made


def make_durable(paths: list[Path]) -> None:
    """Flush the files and their names: replicas of this server will ask it for them."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if paths:
        sync_dir(paths[0].parent)


def drop_placeholders(wal_dir: Path) -> list[int]:
    """Remove empty history files above the last real one.

    They are of a promotion that never happened. A replica that starts takes the highest number for
    its goal, finds it in no history and refuses (xlogrecovery.c, "is not a child of this server").
    """
    known = known_timelines(wal_dir)
    real = max((number for number, size in known.items() if size), default=0)
    dropped = sorted(number for number, size in known.items() if not size and number > real)
    for number in dropped:
        (wal_dir / file_name(number)).unlink(missing_ok=True)
    return dropped
