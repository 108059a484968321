"""Small files that appear whole, belong to whom they should, and survive a power failure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ramd.postgres.account import Account


def write_file(path: Path, text: str, account: Account, *, mode: int = 0o600) -> bool:
    """Replace `path` by `text` atomically and durably, owned by the server's user.

    Returns False, touching nothing, if it holds exactly that already.
    """
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        pass
    unfinished = path.with_name(f".{path.name}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
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
