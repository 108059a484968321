"""Promotion onto a timeline that was chosen elsewhere (rule S6).

A file and a signal, as pg_ctl does, but watched more closely than its ten looks a second.
"""

from __future__ import annotations

import asyncio
import os
import signal

from ramd.domain.errors import PostgresError
from ramd.domain.server import Promotion
from ramd.postgres.child import Watched
from ramd.postgres.files import MARK_FILE, remove_file
from ramd.postgres.probe import Link, identify
from ramd.postgres.session import SessionError
from ramd.postgres.site import Site
from ramd.postgres.timeline import make_durable, read_history, write_placeholders

POLL_S = 0.01
QUESTION_MS = 1000

RECOVERING = """
SELECT pg_is_in_recovery(),
  CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END
"""


async def promote(
    site: Site, link: Link, postmaster: Watched, timeline: int, *, timeout_ms: int
) -> Promotion:
    """Raises PostgresError if the server ends, takes too long, or comes out on another timeline.

    A server that is primary on that timeline already is left alone: asking twice is harmless.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    actual = await timeline_as_primary(link)
    if actual is None:
        async with link.session(timeout_ms=QUESTION_MS) as session:
            current = (await identify(session, timeout_ms=QUESTION_MS)).timeline
        made = write_placeholders(site.wal_dir, site.account, current, timeline)
        ask(site, postmaster)
        await asyncio.to_thread(make_durable, made)
        actual = await outcome(link, postmaster, deadline)
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


async def outcome(link: Link, postmaster: Watched, deadline: float) -> int | None:
    """The timeline of the new primary, None if it is not one by the deadline (loop time)."""
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        if not postmaster.alive:
            raise PostgresError("the server ended while it was being promoted")
        actual = await timeline_as_primary(link)
        if actual is not None:
            return actual
        await asyncio.sleep(POLL_S)
    return None


async def timeline_as_primary(link: Link) -> int | None:
    """On which timeline the server writes; None while it is in recovery or gives no answer."""
    try:
        recovering, file_name = (await link.query(RECOVERING, timeout_ms=QUESTION_MS))[0]
    except SessionError:
        return None
    return int(file_name[:8], 16) if recovering == "f" and file_name else None


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
