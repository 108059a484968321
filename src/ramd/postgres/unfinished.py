"""The note of what is being made: while it names a directory, that is PARTIAL and never started.

It lies in state_dir, not in the directory: pg_basebackup wants an empty one, and pg_rewind removes
files it does not know. Written durably before the work begins, removed after it succeeded.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ramd.domain.errors import PostgresError
from ramd.postgres.files import read_json, remove_file, write_file
from ramd.postgres.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """`path` is being made (`what` is clone or initdb) or changed (rewind)."""

    path: Path
    what: str


def read_note(site: Site) -> Unfinished | None:
    """The note, if there is one."""
    found = read_json(site.unfinished_file)
    if found is None:
        return None
    return Unfinished(path=Path(found["path"]), what=str(found["what"]))


def begin(site: Site, path: Path, what: str) -> None:
    """Note that `path` is not to be trusted from now on."""
    site.prepare()
    text = json.dumps({"path": str(path), "what": what}) + "\n"
    write_file(site.unfinished_file, text, None)  # ours: what it names may be removed


def finish(site: Site) -> None:
    """Nothing is unfinished any more."""
    remove_file(site.unfinished_file)


async def discard(site: Site) -> None:
    """Remove what an unfinished clone or initdb left: ours, never started, nobody's data.

    The result of an unfinished rewind was a data directory: that is left for `set_aside`.
    """
    note = read_note(site)
    if note is None or note.what == "rewind":
        return
    if note.path.exists():
        await asyncio.to_thread(empty, note.path)
        if note.path != site.data_dir:
            note.path.rmdir()
    finish(site)


def empty(folder: Path) -> None:
    """Remove everything in `folder`, not itself: it may be a mount point."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def workplace(site: Site, suffix: str) -> Path:
    """Where to make a data directory: beside its final place, to be renamed into it whole; in that
    place itself where it cannot be replaced. Raises PostgresError unless it is absent or empty."""
    target = site.data_dir
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PostgresError(f"{target} is not empty", code="foreign_directory")
    if target.exists() and (target.is_mount() or not can_write(target.parent)):
        return target
    beside = target.with_name(f"{target.name}.{suffix}")
    if beside.exists() and any(beside.iterdir()):
        raise PostgresError(
            f"{beside} is in the way and was not made by RAMD",
            code="foreign_directory",
            hint="move it elsewhere",
        )
    return beside


def can_write(folder: Path) -> bool:
    """Whether names can be made in `folder`."""
    probe = folder / ".ramd-can-write"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
