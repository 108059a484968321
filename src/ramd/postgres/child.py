"""Processes as file descriptors: start one as the server's user, learn of its end at once, signal
it without ever hitting another process that got its number.

Nothing here depends on the event loop's own child watching, so asyncio and uvloop do alike.
Start reading at `Watched`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ramd.domain.errors import PostgresError
from ramd.postgres.account import Account

REAP_TIMEOUT_S = 1.0


class Watched:
    """A process we hold a pidfd of: our child (`popen`) or one we adopted.

    Needs a running event loop. `close` (also called at its end) gives the descriptor back.
    """

    def __init__(self, pid: int, pidfd: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.popen = popen
        self.log = _stderr_of(pid)
        self._pidfd = pidfd
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._on_end)

    @property
    def alive(self) -> bool:
        """Asked of the kernel: false from the moment the process is dead, reaped or not."""
        if self._ended.is_set():
            return False
        ask = select.poll()
        ask.register(self._pidfd, select.POLLIN)
        return not ask.poll(0)

    async def wait(self) -> None:
        """Returns when the process has ended; at once if it has."""
        await self._ended.wait()

    async def ends_within(self, timeout_ms: int) -> bool:
        """Whether the process ended in time."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def send(self, signum: signal.Signals) -> None:
        """Signal exactly this process; nothing happens if it has ended."""
        if self._ended.is_set():
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signum)

    def close(self) -> None:
        """Stop watching; the process goes on."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            if self.popen is not None and self.popen.returncode is None:
                self.popen.returncode = 0  # it outlives us on purpose: no ResourceWarning
        self._ended.set()

    def _on_end(self) -> None:
        if self.popen is not None:
            self.popen.wait(timeout=REAP_TIMEOUT_S)  # readable: it is a zombie by now
        self.close()


def _stderr_of(pid: int) -> str:
    """The file that a process writes its messages to; '' if that cannot be told."""
    try:
        return str(Path(f"/proc/{pid}/fd/2").readlink())
    except OSError:
        return ""


def spawn(
    argv: Sequence[str],
    account: Account,
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    env: Mapping[str, str] | None = None,
) -> Watched:
    """Start a program as the server's user in a session of its own: it does not end with us.

    Raises PostgresError when it cannot be started at all.
    """
    identity: dict[str, object] = {}
    if account.drops:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": account.groups}
    try:
        popen = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd="/",
            env=dict(env) if env is not None else clean_environment(),
            start_new_session=True,
            umask=0o077,
            **identity,  # type: ignore[call-overload]
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise PostgresError(f"cannot run {argv[0]} as user {account.name}: {error}") from error
    return Watched(popen.pid, os.pidfd_open(popen.pid), popen)


def clean_environment() -> dict[str, str]:
    """Our environment without what would steer PostgreSQL's programs past their arguments."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LD_", "NOTIFY_"))}
    return {**kept, "HOME": "/"}


def plain_environment() -> dict[str, str]:
    """For programs whose words we read: in English."""
    kept = {k: v for k, v in clean_environment().items() if not k.startswith(("LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def end_group(child: Watched) -> None:
    """SIGKILL a child of ours and everything it started in its session."""
    if child.alive and child.popen is not None:
        os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own


def tail(path: Path, offset: int, *, bytes_max: int = 4000) -> str:
    """The last text that was written to `path` from `offset` on."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            end = file.tell()
            file.seek(max(offset if offset <= end else 0, end - bytes_max))
            return file.read(bytes_max).decode(errors="replace").strip()
    except OSError:
        return ""
