"""The daemon as a Unix process: pid files that lock, and going to the background.

Lives here: fork, locks, descriptors. Nothing that knows a configuration or a cluster.
Start reading at `PidFile` and `into_background`.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ramd.domain.errors import ConfigError, Refused

LOCK_ATTEMPTS_MAX = 10
PID_BYTES_MAX = 32
PID_TEXT = re.compile(rb"\s*([0-9]{0,10})\s*\Z")
READY_TIMEOUT_S = 120.0
READY = b"\0"


@dataclass(slots=True, kw_only=True)
class PidFile:
    """Holds the process id of the one process that has it locked; a context manager.

    The lock ends with the process however it ends, so the file of a dead daemon is taken over. It
    is not inherited by programs that the daemon starts. Entering raises Refused if a living process
    holds it (named by its id), ConfigError if it cannot be made or is no pid file.
    """

    path: Path
    _descriptor: int = field(default=-1, init=False)

    def __enter__(self) -> PidFile:
        for _ in range(LOCK_ATTEMPTS_MAX):
            descriptor = self._open()
            try:
                self._lock(descriptor)
                if self._is_current(descriptor):
                    self._write(descriptor)
                    self._descriptor = descriptor
                    return self
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its last holder removed it between open and lock
        raise Refused(f"{self.path} keeps changing hands; try again")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file, if it is still ours, and let go of it."""
        if self._is_current(self._descriptor):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise ConfigError(
                f"pid file '{self.path}' cannot be opened ({error.strerror})", field="pid_file"
            ) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ConfigError(f"pid file '{self.path}' is not a regular file", field="pid_file")
        return descriptor

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read_pid(descriptor)
            raise Refused(
                f"another ramd is running with {self.path} (process {holder or 'unknown'})",
                hint="stop it first, or give this one its own pid file and state_dir",
            ) from error

    def _is_current(self, descriptor: int) -> bool:
        try:
            now = self.path.lstat()
        except FileNotFoundError:
            return False
        ours = os.fstat(descriptor)
        return (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino)

    def _write(self, descriptor: int) -> None:
        if _read_pid(descriptor) is None:
            raise ConfigError(
                f"'{self.path}' holds something other than a process id and is left alone",
                field="pid_file",
                hint="name another pid file, or remove it",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _read_pid(descriptor: int) -> str | None:
    """The process id in the file, '' if it is empty, None if it holds anything else."""
    found = PID_TEXT.match(os.pread(descriptor, PID_BYTES_MAX, 0))
    return found.group(1).decode() if found else None


@dataclass(slots=True, kw_only=True)
class StateDirectory:
    """Makes `path` for the daemon; on leaving removes what it made if that is still empty.

    A start that is refused so leaves no trace. The mode lets PostgreSQL's user pass through.
    """

    path: Path
    _made: list[Path] = field(default_factory=list, init=False)

    def __enter__(self) -> StateDirectory:
        try:
            missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
            for path in reversed(missing):
                path.mkdir()
                path.chmod(0o711 if path == self.path else 0o755)
                self._made.append(path)
        except OSError as error:
            self._remove()
            raise ConfigError(
                f"state_dir: '{self.path}' cannot be made ({error.strerror})", field="state_dir"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError:
                return  # in use: that is what it was made for


@dataclass(slots=True, kw_only=True)
class Readiness:
    """Tells the process that waits in the foreground how the start ended. Without one: nothing."""

    _pipe: int = -1

    def announce(self) -> None:
        """The daemon is ready: the waiting process exits with 0; standard streams are let go of.

        Calling it again does nothing.
        """
        if self._pipe < 0:
            return
        os.write(self._pipe, READY)
        os.close(self._pipe)
        self._pipe = -1
        _redirect(sys.stdout.fileno(), sys.stderr.fileno())

    def fail(self, exit_code: int) -> None:
        """The daemon did not get ready: the waiting process exits with `exit_code` (1 to 255)."""
        if self._pipe >= 0:
            os.write(self._pipe, bytes([exit_code]))
            os.close(self._pipe)
            self._pipe = -1


def into_background(working_directory: Path | None) -> Readiness:
    """Go on as a daemon: own session, no terminal, standard input closed.

    Returns in the new process only; the old one waits until that is ready, has failed or has died,
    and exits accordingly. Standard output and error stay until `announce`, so that a failing start
    can say why. Call it before any thread is started. Source: W. R. Stevens, daemon(7).
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(writer)
        os.waitpid(child, 0)
        os._exit(_await_ready(reader))
    os.close(reader)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(0o022)
    os.chdir(working_directory or "/")
    _redirect(sys.stdin.fileno())
    return Readiness(_pipe=writer)


def _await_ready(reader: int) -> int:
    """The exit status for the process that waits."""
    readable, _, _ = select.select([reader], [], [], READY_TIMEOUT_S)
    if not readable:
        sys.stderr.write(f"ramd: not ready after {READY_TIMEOUT_S:.0f} s; it goes on trying\n")
        sys.stderr.flush()
        return 1
    said = os.read(reader, 1)
    return said[0] if said else 1


def _redirect(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)
