"""Is a sealed replica's position final, and what WAL does one want that does not come up? (Rule H2:
nothing may arrive after a position was reported.)

An emptied primary_conninfo stops WAL intake only once the startup process has read it: one that
still knows the old value may start another receiver. So a position counts only when, in this order,
the postmaster and the startup process have taken in the reload, the startup process waits for WAL
that it has not got (everything local is replayed), no receiver is left; then the position is read.
Start reading at `sealed_position`.
"""

from __future__ import annotations

import re
from pathlib import Path

from ramd.domain.observation import Position
from ramd.domain.server import WalWait
from ramd.postgres.probe import Link, identify
from ramd.postgres.session import SessionError
from ramd.postgres.tools import session_members

SIGHUP_BIT = 1 << 0
QUERY_TIMEOUT_MS = 1000
AT_END_WAITS = ("RecoveryRetrieveRetryInterval", "RecoveryWalStream")
WAITING = re.compile(r"\bstartup +waiting for ([0-9A-F]{24})\b")
"""How the startup process names itself (xlogrecovery.c, XLogFileRead); `recovering` while it reads
a file. Which is why `update_process_title` is RAMD's."""

LOOK = """
SELECT pg_is_in_recovery(), current_setting('primary_conninfo'), current_setting('restore_command'),
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'),
  s.pid, s.wait_event
  FROM (SELECT 1) AS one LEFT JOIN pg_stat_activity s ON s.backend_type = 'startup'
"""


async def sealed_position(link: Link, postmaster_pid: int) -> Position | None:
    """The position, or None if it is not final yet. Never an exception: not knowing is None."""
    try:
        async with link.session(timeout_ms=QUERY_TIMEOUT_MS) as session:
            before = (await session.query(LOOK, timeout_ms=QUERY_TIMEOUT_MS))[0]
            if before[4] is None or not reload_taken(postmaster_pid, int(before[4])):
                return None
            recovering, source, restore, receivers, pid, waits = (
                await session.query(LOOK, timeout_ms=QUERY_TIMEOUT_MS)
            )[0]
            if recovering != "t" or source or restore or receivers != "0":
                return None
            if pid != before[4] or waits not in AT_END_WAITS:
                return None
            return await identify(session, timeout_ms=QUERY_TIMEOUT_MS)
    except SessionError:
        return None


def reload_taken(postmaster_pid: int, startup_pid: int) -> bool:
    """Neither process has a SIGHUP waiting, and the postmaster sleeps: it has handed on to its
    children whatever it was sent."""
    postmaster, startup = signals_waiting(postmaster_pid), signals_waiting(startup_pid)
    if postmaster is None or startup is None:
        return False
    return postmaster[0] == "S" and not (postmaster[1] | startup[1]) & SIGHUP_BIT


def waits_for(postmaster_pid: int) -> WalWait:
    """See Server."""
    found = next(filter(None, map(wanted, session_members(postmaster_pid))), None)
    if found is None:
        return WalWait()
    pid, file = found
    seen = signals_waiting(pid)
    return WalWait(file, asleep=seen is not None and seen[0] == "S")


def wanted(pid: int) -> tuple[int, str] | None:
    """A process, if it is a startup process that waits, and for which file."""
    try:
        title = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return None
    match = WAITING.search(title.decode(errors="replace"))
    return (pid, match[1]) if match else None


def signals_waiting(pid: int) -> tuple[str, int] | None:
    """State of a process and the set of signals it has not taken yet; None if it is gone."""
    try:
        text = Path("/proc", str(pid), "status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    waiting = int(fields["SigPnd"].strip(), 16) | int(fields["ShdPnd"].strip(), 16)
    return fields["State"].strip()[:1], waiting
