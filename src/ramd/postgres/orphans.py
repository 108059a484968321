"""What is left of a server: its processes, its shared memory, its lock files.

A postmaster that dies leaves backends that run on, commit and answer; a new one refuses to start
while they hold the old memory. They are found by their working directory, which is the data
directory: their parent is gone. Start reading at `kill_remains`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.postgres.account import Account, owner_account
from ramd.postgres.pidfile import PidFile, read_pidfile
from ramd.postgres.site import Site

PROGRAM_NAMES = frozenset({"postgres", "postmaster"})
TOOL_NAMES = frozenset({"initdb", "pg_basebackup", "pg_rewind"})
TOOL_TARGETS = ("--pgdata=", "--target-pgdata=")
WORKPLACES = ("clone-tmp", "initdb-tmp")
"""Suffixes of where a data directory is made, see `make`."""
DEAD_STATES = ("Z", "X")
POLL_S = 0.01
SOON_S = 0.002
DYING_S = 0.1
"""How long those that were just killed are watched before everything is searched again."""
LOOKUP_TIMEOUT_S = 10.0
STAT_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process as /proc tells it. `start_ticks` tells it from a later one of the same number."""

    pid: int
    state: str
    start_ticks: int
    name: str
    cwd: str

    @property
    def dead(self) -> bool:
        return self.state in DEAD_STATES


def look_at(pid: int, account: Account) -> Process | None:
    """The process `pid`, or None if there is none."""
    stat = stat_of(pid)
    if stat is None:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(
        pid=pid,
        state=fields[0],
        start_ticks=int(fields[19]),
        name=name,
        cwd=cwd_of(pid, account) if name in PROGRAM_NAMES else "",
    )


def stat_of(pid: int) -> str | None:
    """What /proc says of a process, None if there is none. By the plainest calls: every process of
    the host is read while a failover waits."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return os.read(descriptor, STAT_BYTES_MAX).decode(errors="replace")
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)


def cwd_of(pid: int, account: Account) -> str:
    """Working directory of a process, '' if it has none (any more).

    root without CAP_SYS_PTRACE, as in many containers, may not see another user's: then that user
    is asked.
    """
    link = f"/proc/{pid}/cwd"
    try:
        return os.readlink(link)  # noqa: PTH115 - of every server process of the host, in a hurry
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except PermissionError:
        if not account.drops:
            return ""  # another user's process: not one of a server that runs as we do
    answer = subprocess.run(
        ["/bin/readlink", link],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
        timeout=LOOKUP_TIMEOUT_S,
    )
    return answer.stdout.rstrip("\n")


def server_processes(data_dir: Path, account: Account) -> Iterator[Process]:
    """Every living process of PostgreSQL's that works in `data_dir`, postmaster or not, and every
    program that makes or changes it."""
    wanted = os.path.realpath(data_dir)
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if entry.isdecimal():
            process = look_at(int(entry), account)
            if process is None or process.dead:
                continue
            if process.cwd == wanted or (process.name in TOOL_NAMES and makes(process, data_dir)):
                yield process


def kill_server_of(data_dir: Path, *, timeout_s: float) -> bool:
    """SIGKILL of every process that works on `data_dir`; True once none is left. Blocks; bounded.

    For whoever has no event loop, or knows a directory and nothing else of its server.
    """
    account = owner_account(data_dir)
    deadline = time.monotonic() + timeout_s
    while remains := list(server_processes(data_dir, account)):
        for process in remains:
            signal_exactly(process, account, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def makes(process: Process, data_dir: Path) -> bool:
    """A tool was told to work on `data_dir`, or where that is being made."""
    try:
        command = Path("/proc", str(process.pid), "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    targets = {os.fsencode(data_dir)}
    targets |= {os.fsencode(data_dir.with_name(f"{data_dir.name}.{x}")) for x in WORKPLACES}
    wanted = {word.encode() + target for word in TOOL_TARGETS for target in targets}
    return not wanted.isdisjoint(command.split(b"\0"))


def attached(shm_id: int | None) -> int:
    """How many processes are attached to a System V segment (shm_nattch); 0 if it is gone."""
    if shm_id is None:
        return 0
    with Path("/proc/sysvipc/shm").open(encoding="ascii") as table:
        columns = {name: place for place, name in enumerate(next(table).split())}
        for line in table:
            values = line.split()
            if int(values[columns["shmid"]]) == shm_id:
                return int(values[columns["nattch"]])
    return 0


def end_process(site: Site, pid: int) -> None:
    """SIGTERM one process of the running server, if it still is one."""
    process = look_at(pid, site.account)
    if process is not None and process.cwd == os.path.realpath(site.data_dir):
        signal_exactly(process, site.account, signal.SIGTERM)


def signal_exactly(process: Process, account: Account, signum: signal.Signals) -> None:
    """Signal this very process: the descriptor is taken first, then it is looked at again."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = look_at(process.pid, account)
        if now is not None and (now.start_ticks, now.cwd) == (process.start_ticks, process.cwd):
            signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


async def end_tools(site: Site, *, timeout_ms: int) -> None:
    """Afterwards no program of an earlier daemon makes or changes the data directory. Servers are
    not touched. Raises PostgresError naming who is left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    while left := [
        p for p in server_processes(site.data_dir, site.account) if p.name in TOOL_NAMES
    ]:
        for process in left:
            signal_exactly(process, site.account, signal.SIGKILL)
        if loop.time() >= deadline:
            who = ", ".join(f"{p.name} {p.pid} ({p.state})" for p in left)
            raise PostgresError(f"programs that work on {site.data_dir} do not end: {who}")
        await asyncio.sleep(POLL_S)


async def kill_remains(site: Site, *, timeout_ms: int) -> None:
    """Afterwards no process of the server lives, none is attached to its shared memory, and no
    lock file of it stands in the way of the next start. Raises PostgresError naming who is left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    pidfile = read_pidfile(site.data_dir / "postmaster.pid")
    while True:
        left = list(server_processes(site.data_dir, site.account))
        for process in left:
            signal_exactly(process, site.account, signal.SIGKILL)
        users = attached(pidfile.shm_id) if pidfile is not None else 0
        if not left and not users:
            break
        if loop.time() >= deadline:
            who = ", ".join(f"{p.pid} ({p.state})" for p in left) or "unknown processes"
            raise PostgresError(
                f"processes of the server in {site.data_dir} do not end: {who}; "
                f"{users} attached to its shared memory"
            )
        if left:
            await dying(left, DYING_S)
        else:
            await asyncio.sleep(POLL_S)
    remove_locks(site, pidfile)


async def dying(processes: list[Process], within_s: float) -> None:
    """Returns once none of these is left, or after `within_s`. That nobody else is there, only
    another search can tell."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while any(lives(process) for process in processes) and loop.time() < until:
        await asyncio.sleep(SOON_S)


def lives(process: Process) -> bool:
    """This very process has not ended."""
    stat = stat_of(process.pid)
    if stat is None:
        return False
    fields = stat.rpartition(")")[2].split()
    return int(fields[19]) == process.start_ticks and fields[0] not in DEAD_STATES


def remove_locks(site: Site, pidfile: PidFile | None) -> None:
    """Remove lock files of a server that is proven dead.

    PostgreSQL itself removes a stale one only if its process number is unused, and a dead
    postmaster keeps its number until somebody reaps it (miscinit.c, CreateLockFile).
    """
    if pidfile is None:
        return
    for path in (site.data_dir / "postmaster.pid", Path(f"{site.socket_file}.lock")):
        now = read_pidfile(path)
        if now is not None and now.pid == pidfile.pid:
            path.unlink(missing_ok=True)
