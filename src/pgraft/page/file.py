"""The file that the page lies in: made, checked, locked, mapped.

Lives here: everything about the file's place and condition. Must not live here: what its words mean
(`writer`, `reader`), where a node's page belongs. Start reading at `Page.open`.

It is never replaced, renamed or truncated: a running server would go on with the old file, or die.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from pathlib import Path
from typing import Self

from pgraft.page.layout import (
    LAYOUT_VERSION,
    MAGIC,
    PAGE_BYTES,
    PLACES,
    SERVER_LOCK_BYTE,
    WORDS,
    fold_boot,
)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MODE = 0o600
TMPFS_MAGIC = 0x01021994
RAMFS_MAGIC = 0x858458F6
IN_MEMORY = frozenset({TMPFS_MAGIC, RAMFS_MAGIC})
"""f_type of file systems that do not outlive the boot (statfs(2))."""
SYSTEM_UID_MAX = 999
"""Above it login services may remove what a user left in /dev/shm (RemoveIPC)."""
MAKING_S = 1.0
"""How long a server may take between its lock and the page it makes under it: some stores."""
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux."""


class PageError(Exception):
    """The page cannot be used: what is wrong, and what would be right."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Page:
    """An opened, checked and mapped page. `words` is native 64-bit words."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, PAGE_BYTES)
        self._bytes = memoryview(self._memory)
        self.words = self._bytes.cast("Q")
        found = os.fstat(descriptor)
        self.inode = (found.st_dev, found.st_ino)

    @classmethod
    def open(cls, path: Path, *, uid: int, gid: int, make: bool = True, lock: bool = True) -> Self:
        """The page at `path`, made with this owner if it is missing. Raises PageError.

        With `lock` this process is its daemon until `close`. Without, it only looks: nothing is
        made or begun anew, and a page that would have to be is refused.
        """
        descriptor = _open_or_make(path, uid, gid, make=make and lock)
        return cls._checked(path, descriptor, uid, lock=lock)

    @classmethod
    def open_through(cls, pid: int, path: Path, *, uid: int, gid: int) -> Self | None:
        """The page that was at `path` and that process `pid` still holds; None if it holds none.

        Raises PageError if what it holds cannot be used.
        """
        folder = Path("/proc", str(pid), "fd")
        # The kernel names what links lead to, also where the directory is gone.
        real = path.parent.resolve() / path.name
        wanted = {str(real), f"{real} (deleted)"}
        try:
            held = [entry for entry in folder.iterdir() if _target(entry) in wanted]
        except OSError:
            return None
        for entry in held:
            try:
                descriptor = os.open(entry, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            return cls._checked(path, descriptor, uid, lock=True)
        return None

    @classmethod
    def _checked(cls, path: Path, descriptor: int, uid: int, *, lock: bool) -> Self:
        try:
            _check_file(path, descriptor, uid)
            if lock:
                _lock(path, descriptor)
            if os.fstat(descriptor).st_size == 0:
                if not lock:
                    raise _unused(path)
                _allocate(path, descriptor)
            page = cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            _settle(page, begin_anew=lock)
        except BaseException:
            page.close()
            raise
        return page

    def at_path(self) -> bool:
        """Whether the path still names this very file."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.inode

    def server_lives(self) -> bool:
        """Whether a process of a server has this page."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, SERVER_LOCK_BYTE, 1, 0)
        answer = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Give it back; what stands in it stays."""
        if self._descriptor < 0:
            return
        self.words.release()
        self._bytes.release()
        self._memory.close()
        os.close(self._descriptor)
        self._descriptor = -1


def default_directory(*, uid: int, run: Path = Path("/run")) -> tuple[Path, str]:
    """Where a page goes when nobody said where, and what to know about that place ('' nothing).

    /run/ramd if it is in memory, ours to write or to make, and open to the server's user `uid`;
    else /dev/shm.
    """
    ours = run / "ramd"
    there = ours.is_dir()
    place = ours if there else run
    if (
        os.access(place, os.W_OK | os.X_OK)
        and _in_memory(place)
        and (not there or _enterable(ours, uid))
    ):
        return ours, ""
    if uid > SYSTEM_UID_MAX:
        return Path("/dev/shm"), (
            "the page lies in /dev/shm, where a login service may remove an ordinary user's files"
            " at logout (RemoveIPC): name a page_dir, or run the server under a system user"
        )
    return Path("/dev/shm"), ""


# --- the file ------------------------------------------------------------------------------------


def _open_or_make(path: Path, uid: int, gid: int, *, make: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(3):
        try:
            # Never with O_CREAT: the kernel refuses that for another user's file in /dev/shm.
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            if not make:
                raise PageError(f"{path} does not exist", "start ramd, which makes it") from None
        except OSError as error:
            raise _unusable(path, error) from error
        else:
            if make:
                _give_unfinished(descriptor, uid, gid)
            return descriptor
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
        except FileExistsError:
            continue
        except OSError as error:
            raise PageError(
                f"{path} cannot be made: {os.strerror(error.errno or 0)}",
                "name a directory in memory that the daemon can write (page_dir)",
            ) from error
        try:
            _give(descriptor, uid, gid)
            _check_file(path, descriptor, uid)
            _allocate(path, descriptor)
        except BaseException:
            _unlink_made(path, descriptor)
            os.close(descriptor)
            raise
        return descriptor
    raise PageError(f"{path} appears and disappears", "see who else works in its directory")


def _give(descriptor: int, uid: int, gid: int) -> None:
    os.fchmod(descriptor, MODE)
    if os.geteuid() == 0:
        os.fchown(descriptor, uid, gid)


def _give_unfinished(descriptor: int, uid: int, gid: int) -> None:
    """Go on where a daemon of root was killed before the file it had made was the server's."""
    found = os.fstat(descriptor)
    empty = stat.S_ISREG(found.st_mode) and found.st_size == 0 and found.st_nlink == 1
    if empty and os.geteuid() == 0 == found.st_uid != uid:
        _give(descriptor, uid, gid)


def _unlink_made(path: Path, descriptor: int) -> None:
    """Leave nothing behind of a page that could not be made."""
    try:
        if os.path.samestat(path.lstat(), os.fstat(descriptor)):
            path.unlink()
    except OSError:
        pass


def _unusable(path: Path, error: OSError) -> PageError:
    if error.errno == errno.ELOOP:
        return PageError(
            f"{path} is a symbolic link", "remove it: the page is a file of the server's user"
        )
    return PageError(
        f"{path} cannot be opened: {os.strerror(error.errno or 0)}",
        "it has to belong to the server's user, with mode 0600; remove what is not RAMD's",
    )


def _check_file(path: Path, descriptor: int, uid: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise PageError(f"{path} is not a regular file", "remove it: RAMD makes the page itself")
    if found.st_uid != uid:
        raise PageError(
            f"{path} belongs to user {found.st_uid}, not to the server's user {uid}",
            "stop the server and remove it, or name another page_dir",
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode != MODE:
        raise PageError(
            f"{path} has mode {mode:04o}, not 0600: others could read or grant a lease",
            f"chmod 0600 {path}, after a look who changed it",
        )
    if _file_system(descriptor) not in IN_MEMORY:
        raise PageError(
            f"{path} is on a disk: a lease written there would outlive the boot that it counts in",
            "name a directory in memory (tmpfs), such as /run/ramd or /dev/shm",
        )
    if found.st_size not in (0, PAGE_BYTES):
        raise PageError(
            f"{path} has {found.st_size} bytes, a page has {PAGE_BYTES}",
            "stop the server and remove it: it is not RAMD's, or of another version",
        )


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PageError(
            f"{path} is in use by another daemon", "one daemon serves one server: stop the other"
        ) from None


def _allocate(path: Path, descriptor: int) -> None:
    """Never a hole: on a full file system touching it would kill every process that did."""
    try:
        os.posix_fallocate(descriptor, 0, PAGE_BYTES)
    except OSError as error:
        raise PageError(
            f"no room for {path}: {os.strerror(error.errno or 0)}",
            "its file system in memory is full: free some of it, or name another page_dir",
        ) from error


def _settle(page: Page, *, begin_anew: bool) -> None:
    """A page that is blank, of another boot or of another version begins anew, in place."""
    words, boot = page.words, fold_boot(BOOT_ID.read_text(encoding="ascii"))
    if words[PLACES["MAGIC"]] != MAGIC:
        _wait_for_maker(page)
    if words[PLACES["MAGIC"]] == MAGIC:
        if words[PLACES["LAYOUT"]] != LAYOUT_VERSION:
            lives = page.server_lives()
            if lives or not begin_anew:
                raise PageError(
                    f"{page.path} has layout {words[PLACES['LAYOUT']]}, this version knows"
                    f" {LAYOUT_VERSION}{', and a server uses it' if lives else ''}",
                    "restart the server with the extension of this version",
                )
        elif words[PLACES["BOOT"]] == boot:
            return
    if not begin_anew:
        raise _unused(page.path)
    _blank(page, boot)


def _unused(path: Path) -> PageError:
    return PageError(f"{path} has not been used since this host booted", "start ramd")


def _wait_for_maker(page: Page) -> None:
    """A server makes its page under its lock: what it writes then is not to be wiped out."""
    end_s = time.monotonic() + MAKING_S
    while page.words[PLACES["MAGIC"]] != MAGIC and page.server_lives():
        if time.monotonic() > end_s:
            raise PageError(
                f"{page.path} was begun by a server that does not finish it",
                "see why that server hangs, and end it",
            )
        time.sleep(0.005)


def _blank(page: Page, boot: int) -> None:
    words = page.words
    words[PLACES["LEASE"]] = 0
    words[PLACES["MAGIC"]] = 0
    for place in range(WORDS):
        words[place] = 0
    words[PLACES["LAYOUT"]] = LAYOUT_VERSION
    words[PLACES["BOOT"]] = boot
    words[PLACES["MAGIC"]] = MAGIC


def _enterable(directory: Path, uid: int) -> bool:
    found = directory.stat()
    return found.st_uid == uid or bool(found.st_mode & stat.S_IXOTH)


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""


def _in_memory(directory: Path) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _file_system(descriptor) in IN_MEMORY
    finally:
        os.close(descriptor)


def _file_system(descriptor: int) -> int:
    """f_type of the file system; os.statvfs does not tell it."""
    room = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(descriptor, ctypes.byref(room)) != 0:
        raise OSError(ctypes.get_errno(), "fstatfs")
    return int(room[0])
