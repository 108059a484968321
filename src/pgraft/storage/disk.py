"""Files of one directory, with durability spelled out; the lock on the directory; storage errors.

Lives here: the `Disk` and `DiskFile` protocols, which the simulator implements too, `OsDisk` for
real directories, `DirectoryLock`. Must not live here: what the bytes mean.
Start reading at `Disk`: its promises are what the log's recovery relies on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final, Protocol

_TMP: Final = ".tmp"
LOCK_TRIES: Final = 10
LOCK_PAUSE_S: Final = 0.02


class StorageError(Exception):
    """Base of everything this room raises. The text is for an operator and says what to do."""


class DirectoryLocked(StorageError):
    """Another process works in this directory. `pid` is None when it did not leave its number."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"{directory} is in use by {who}: stop it, or give this node its own state directory"
        )
        self.pid = pid


class DiskFile(Protocol):
    """An open file of fixed size. Offsets and sizes in bytes. OSError passes through."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """All of `data` at `offset`. Durable only after `sync`."""
        ...

    def sync(self) -> None:
        """Everything written before is durable when this returns (fdatasync)."""
        ...

    def close(self) -> None:
        """Give the file back. Promises nothing about durability. A second call does nothing."""
        ...


class Disk(Protocol):
    """The files of one directory. Names are plain, without a path. OSError passes through."""

    def where(self, name: str) -> str:
        """The full name, for messages."""
        ...

    def names(self) -> list[str]:
        """Names of all files, sorted; leftovers of an interrupted `replace` are not listed."""
        ...

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        ...

    def open(self, name: str) -> DiskFile:
        """An existing file for reading and writing in place. Raises FileNotFoundError."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """`name` holds exactly `data`, durably, or (after a crash) what it held before."""
        ...

    def rename(self, name: str, new: str) -> None:
        """The file is called `new` from now on, durably. What was called so before is gone."""
        ...

    def remove(self, name: str) -> None:
        """There is no such file any more, durably. Does nothing if there was none."""
        ...


class _OsFile:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:  # bounded: each turn reads at least one byte or ends
            part = os.pread(self._fd, size, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        _write_all(self._fd, data, offset)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        # The number may soon be another file's: a second close, or a late write, must miss it.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:  # bounded: each turn writes at least one byte or raises
        written = os.pwrite(fd, view, offset)
        if written <= 0:
            raise OSError(errno.EIO, "write of nothing")
        view = view[written:]
        offset += written


def sync_directory(path: Path) -> None:
    """Names in this directory are durable as they are."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class OsDisk:
    """A real directory, made with mode 0700 if it is not there (its parent must exist)."""

    __slots__ = ("_directory",)

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            sync_directory(directory.parent)

    def where(self, name: str) -> str:
        return str(self._directory / name)

    def names(self) -> list[str]:
        return sorted(
            path.name
            for path in self._directory.iterdir()
            if path.is_file() and path.suffix != _TMP
        )

    def read(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()

    def open(self, name: str) -> DiskFile:
        return _OsFile(os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC))

    def replace(self, name: str, data: bytes) -> None:
        # A file that carries its final name is complete: no recovery of half-made files is needed.
        tmp = self._directory / (name + _TMP)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(tmp, flags, 0o600)
        try:
            _write_all(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        tmp.rename(self._directory / name)
        sync_directory(self._directory)

    def rename(self, name: str, new: str) -> None:
        (self._directory / name).rename(self._directory / new)
        sync_directory(self._directory)

    def remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        sync_directory(self._directory)


def _lock(fd: int) -> None:
    """Take the lock, patient for a moment: somebody may only be looking whether it is held."""
    for _ in range(LOCK_TRIES - 1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
        else:
            return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DirectoryLock:
    """Held by at most one living process; the kernel gives it back when the holder dies.

    Construction takes it or raises DirectoryLocked, which names the holder's process id.
    """

    __slots__ = ("_fd",)

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise DirectoryLocked(directory, int(text) if text.isdigit() else None) from None
        except OSError:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the directory back. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
