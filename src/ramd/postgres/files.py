"""Small files that appear whole, belong to whom they should, and survive a power failure.

root works here in directories of another user, who might put links there: nothing is written or
given away through one, and nothing is read that this user could not read himself.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ramd.domain.errors import PostgresError
from ramd.postgres.account import Account

T = TypeVar("T")

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
MARK_FILE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


async def on_disk(change: Callable[[], T]) -> T:
    """Perform `change` in a thread: nobody's heartbeat waits for this disk. A caller that is
    cancelled waits for its end all the same, so that two changes are never under way at once."""
    changing = asyncio.ensure_future(asyncio.to_thread(change))
    try:
        return await asyncio.shield(changing)
    except asyncio.CancelledError:
        await asyncio.wait({changing})
        raise


def read_file(path: Path, account: Account) -> str | None:
    """Text of a file in the server's directories, None if there is none. Raises PostgresError if
    the server's user may not read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        found = os.fstat(descriptor)
        group = found.st_gid in (account.gid, *account.groups) and found.st_mode & 0o040
        if found.st_uid != account.uid and not group and not found.st_mode & 0o004:
            raise PostgresError(f"{path} cannot be read by user {account.name}")
        return file.read()


def write_file(path: Path, text: str, account: Account | None, *, mode: int = 0o600) -> bool:
    """Replace `path` by `text` atomically and durably; it will be the server's, or with None ours.

    Returns False, touching nothing, if it holds exactly that already.
    """
    data = text.encode(errors="surrogateescape")
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return False
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, NEW_FILE, mode)
    try:
        os.fchmod(descriptor, mode)
        if account is not None:
            account.give(descriptor)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(path)
    sync_dir(path.parent)
    return True


def make_dirs(folder: Path, mode: int) -> None:
    """`folder` with `mode` and every missing parent with 0755, whatever the umask is."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_dirs(folder.parent, 0o755)
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(mode)


def touch_file(path: Path, account: Account) -> None:
    """An empty file of the server's, durable in content but not in name."""
    descriptor = os.open(path, MARK_FILE, 0o600)
    try:
        account.give(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_dir(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: Path) -> bool:
    """Remove durably; False if it was not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_dir(path.parent)
    return True


def read_json(path: Path) -> Any:
    """The document in `path`, or None if there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
