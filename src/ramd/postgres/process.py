"""The postmaster as a process: start it, find one that runs already, end it.

It is our child in a session of its own: it outlives the daemon, and while the daemon lives it is
reaped at once, so that its number does not stay taken (orphans.remove_locks). Start at `launch`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import IO

from ramd.domain.errors import PostgresError
from ramd.postgres.account import Account
from ramd.postgres.child import Watched, clean_environment, spawn, tail
from ramd.postgres.files import MARK_FILE, remove_file, sync_dir, touch_file
from ramd.postgres.orphans import PROGRAM_NAMES, Process, look_at
from ramd.postgres.pidfile import read_pidfile
from ramd.postgres.site import Site
from ramd.postgres.timeline import drop_placeholders

POLL_S = 0.01
ADOPT_TRIES = 3


def set_signal_file(site: Site, *, replica: bool) -> None:
    """standby.signal, durably there or not: it alone decides whether the server may write."""
    remove_file(site.data_dir / "recovery.signal")
    path = site.data_dir / "standby.signal"
    if not replica:
        remove_file(path)
        return
    touch_file(path, site.account)
    sync_dir(site.data_dir)


def clear_old_promotion(site: Site) -> None:
    """What an earlier promotion that did not happen left behind."""
    remove_file(site.data_dir / "promote")
    drop_placeholders(site.wal_dir)


async def launch(site: Site, *, timeout_ms: int) -> Watched:
    """Start the postmaster; returns once it has its port and memory, not yet connections.

    Raises PostgresError with the end of the server's log when it ends, or never gets that far.
    """
    with open_log(site) as log:
        offset = log.seek(0, os.SEEK_END)
        argv = [site.binaries.tool("postgres"), "-D", str(site.data_dir)]
        child = spawn(argv, site.account, stdout=log, stderr=log, env=clean_environment())
    started = False
    try:
        started = await is_up(site, child, timeout_ms)
    finally:
        if not started:
            child.send(signal.SIGKILL)
            await asyncio.shield(child.ends_within(2000))
            child.close()
    if not started:
        said = tail(site.log_file, offset) or "it wrote nothing to its log"
        raise PostgresError(f"PostgreSQL did not start: {said}")
    return child


def open_log(site: Site) -> IO[bytes]:
    """The server's log, to append to: made by us, the server's own."""
    descriptor = os.open(site.log_file, MARK_FILE | os.O_APPEND, 0o640)
    site.account.give(descriptor)
    return os.fdopen(descriptor, "ab")


async def is_up(site: Site, child: Watched, timeout_ms: int) -> bool:
    """Whether the child writes its status into postmaster.pid in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    while child.alive and loop.time() < deadline:
        pidfile = read_pidfile(site.data_dir / "postmaster.pid")
        if pidfile is not None and pidfile.pid == child.pid and pidfile.status:
            return True
        await asyncio.sleep(POLL_S)
    return False


def find_running(site: Site) -> Watched | None:
    """A postmaster that runs on the data directory, or None.

    Believed only if the process named in postmaster.pid works in that directory, is PostgreSQL's,
    is not one of a postmaster's children, and is the same one before and after it was opened.
    """
    for _ in range(ADOPT_TRIES):
        pidfile = read_pidfile(site.data_dir / "postmaster.pid")
        before = pidfile and postmaster_of(pidfile.pid, site.data_dir, site.account)
        if not before:
            return None
        try:
            pidfd = os.pidfd_open(before.pid)
        except ProcessLookupError:
            continue
        after = postmaster_of(before.pid, site.data_dir, site.account)
        if after is not None and after.start_ticks == before.start_ticks:
            return Watched(before.pid, pidfd)
        os.close(pidfd)
    return None


def postmaster_of(pid: int, data_dir: Path, account: Account) -> Process | None:
    """The process `pid` if it is a postmaster of `data_dir`."""
    process = look_at(pid, account)
    if process is None or process.dead or process.name not in PROGRAM_NAMES:
        return None
    if process.cwd != os.path.realpath(data_dir):
        return None
    try:
        command = Path("/proc", str(pid), "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if command.startswith(b"postgres: ") else process
