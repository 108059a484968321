"""Run one of PostgreSQL's programs to its end, bounded, and hand back what it said."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.postgres.account import Account
from ramd.postgres.child import Watched, end_group, plain_environment, spawn

OUTPUT_BYTES_MAX = 1 << 20
ERROR_LINES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How a program ended."""

    status: int
    output: str
    error: str


async def run_tool(
    argv: Sequence[str], account: Account, *, timeout_ms: int, stall_ms: int | None = None
) -> Said:
    """Run as the server's user, whatever the exit status. Raises PostgresError when it takes too
    long, or with `stall_ms` when it has written nothing for that long. Killed with all it started
    when this is cancelled."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = spawn(argv, account, stdout=out, stderr=err, env=plain_environment())
        try:
            why = await outwait(child, timeout_ms, stall_ms)
        finally:
            end_group(child)
            if child.popen is not None and child.popen.returncode is None:
                reap(child.popen)
            child.close()
        out.seek(0)
        err.seek(0)
        said = Said(
            status=child.popen.returncode if child.popen is not None else 0,
            output=out.read(OUTPUT_BYTES_MAX).decode(errors="replace"),
            error=err.read(OUTPUT_BYTES_MAX).decode(errors="replace"),
        )
    if why:
        raise PostgresError(f"{Path(argv[0]).name} {why} and was ended. {last_lines(said.error)}")
    return said


async def must_run(
    argv: Sequence[str], account: Account, *, timeout_ms: int, stall_ms: int | None = None
) -> str:
    """As `run_tool`; PostgresError with the program's own words unless it exits with 0."""
    said = await run_tool(argv, account, timeout_ms=timeout_ms, stall_ms=stall_ms)
    if said.status != 0:
        words = last_lines(said.error or said.output) or f"exit status {said.status}"
        raise PostgresError(f"{Path(argv[0]).name} failed: {words}")
    return said.output


def reap(popen: subprocess.Popen[bytes]) -> None:
    """Wait for a killed child; it only stays if it hangs in the kernel, and then nobody helps."""
    try:
        popen.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        popen.returncode = -9


async def outwait(child: Watched, timeout_ms: int, stall_ms: int | None) -> str:
    """Wait for the end; '' if it came, else why it was not waited for."""
    if stall_ms is None:
        return "" if await child.ends_within(timeout_ms) else f"took longer than {timeout_ms} ms"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_ms / 1000
    written = bytes_written(child.pid)
    while loop.time() < deadline:
        if await child.ends_within(stall_ms):
            return ""
        before, written = written, bytes_written(child.pid)
        if written is not None and written == before:
            return f"made no progress for {stall_ms} ms"
    return f"took longer than {timeout_ms} ms"


def bytes_written(pid: int) -> int | None:
    """What the session of `pid` has written so far; None if the kernel does not say."""
    total = None
    for member in session_members(pid):
        try:
            lines = Path("/proc", str(member), "io").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total = (total or 0) + int(lines[1].split()[1])
    return total


def session_members(pid: int) -> list[int]:
    """`pid` and its direct children: pg_basebackup streams WAL in a second process."""
    try:
        text = Path("/proc", str(pid), "task", str(pid), "children").read_text(encoding="ascii")
    except OSError:
        text = ""
    return [pid, *(int(word) for word in text.split())]


def last_lines(text: str) -> str:
    """The end of what a program said, on one line."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " | ".join(lines[-ERROR_LINES:])
