"""Promotion onto a timeline that was chosen elsewhere (rule S6).

A file and a signal, as pg_ctl does, but watched more closely than its ten looks a second: in the
page where the server has one, else by SQL. Start reading at `promote`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Protocol

from ramd.domain.errors import PostgresError
from ramd.domain.fence import Fence
from ramd.domain.server import Promotion
from ramd.postgres.child import Watched
from ramd.postgres.files import MARK_FILE, remove_file
from ramd.postgres.probe import Link, identify
from ramd.postgres.session import SessionError
from ramd.postgres.site import Site
from ramd.postgres.timeline import make_durable, read_history, write_placeholders

POLL_S = 0.01
PAGE_POLL_S = 0.002
QUESTION_MS = 1000

RECOVERING = """
SELECT pg_is_in_recovery(),
  CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END
"""


class Eyes(Protocol):
    """How a promotion is watched."""

    poll_s: float

    async def timeline(self) -> int:
        """The timeline that the server is on, replica or primary. Raises SessionError."""

    async def timeline_as_primary(self) -> int | None:
        """On which timeline the server writes; None while it is in recovery or not to be seen."""


class SqlEyes(Eyes):
    """By asking it."""

    poll_s = POLL_S

    def __init__(self, link: Link) -> None:
        self._link = link

    async def timeline(self) -> int:
        async with self._link.session(timeout_ms=QUESTION_MS) as session:
            return (await identify(session, timeout_ms=QUESTION_MS)).timeline

    async def timeline_as_primary(self) -> int | None:
        try:
            rows = await self._link.query(RECOVERING, timeout_ms=QUESTION_MS)
        except SessionError:
            return None
        recovering, file_name = rows[0]
        return int(file_name[:8], 16) if recovering == "f" and file_name else None


class PageEyes(Eyes):
    """By looking into the page, which its worker writes every ten milliseconds."""

    poll_s = PAGE_POLL_S

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    async def timeline(self) -> int:
        async with asyncio.timeout(QUESTION_MS / 1000):
            while (pulse := self._fence.pulse()) is None or not pulse.timeline:
                await asyncio.sleep(self.poll_s)
        return pulse.timeline

    async def timeline_as_primary(self) -> int | None:
        pulse = self._fence.pulse()
        return None if pulse is None or pulse.in_recovery else pulse.timeline or None


async def promote(
    site: Site, eyes: Eyes, postmaster: Watched, timeline: int, *, timeout_ms: int
) -> Promotion:
    """Raises PostgresError if the server ends, takes too long, or comes out on another timeline.

    A server that is primary on that timeline already is left alone: asking twice is harmless.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    actual = await eyes.timeline_as_primary()
    if actual is None:
        made = write_placeholders(site.wal_dir, site.account, await eyes.timeline(), timeline)
        ask(site, postmaster)
        await asyncio.to_thread(make_durable, made)
        actual = await outcome(eyes, postmaster, deadline)
    if actual is None:
        remove_file(site.data_dir / "promote")
        raise PostgresError(f"promotion to timeline {timeline} took longer than {timeout_ms} ms")
    return proven(site, actual, timeline)


def ask(site: Site, postmaster: Watched) -> None:
    """The file is what is asked, the signal makes the server look (xlogrecovery.c, promotion)."""
    descriptor = os.open(site.data_dir / "promote", MARK_FILE, 0o600)
    site.account.give(descriptor)
    os.close(descriptor)
    postmaster.send(signal.SIGUSR1)


async def outcome(eyes: Eyes, postmaster: Watched, deadline: float) -> int | None:
    """The timeline of the new primary, None if it is not one by the deadline (loop time)."""
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        if not postmaster.alive:
            raise PostgresError("the server ended while it was being promoted")
        actual = await eyes.timeline_as_primary()
        if actual is not None:
            return actual
        await asyncio.sleep(eyes.poll_s)
    return None


def proven(site: Site, actual: int, wanted: int) -> Promotion:
    """What the server's own history file says of the timeline it is on. Raises PostgresError if
    that is not the one it was told to take."""
    if actual != wanted:
        raise PostgresError(f"the server took timeline {actual} instead of {wanted}")
    ancestors = read_history(site.wal_dir, actual)
    if not ancestors:
        raise PostgresError(f"timeline {actual} has no history")
    parent = ancestors[-1]
    return Promotion(timeline=actual, parent_timeline=parent.timeline, fork_lsn=parent.lsn)
