"""Where the page lies and which library the server loads: found or made when a node is assembled.

Must not live here: what is written into the page (`page_fence`). Start reading at `open_fence`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pgraft.extension import build as extension
from pgraft.page.file import Page, PageError, default_directory
from ramd import events
from ramd.domain.errors import ConfigError
from ramd.domain.fence import Fence, NoFence, Preload
from ramd.fence.page_fence import PageFence, page_fault

Mode = Literal["auto", "required", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator decided, and the server it is for."""

    mode: Mode
    page_dir: Path | None
    grace_ms: int
    state_dir: Path
    uid: int
    gid: int
    """Of the user that the server runs under."""
    bin_dir: Path
    server_version: str
    """As its programs print it: `18.6`."""
    postmaster_pid: int | None
    """Of a server that may run already: its page may have been removed meanwhile."""
    daemon_version: str
    clock: Callable[[], int]


def open_fence(wanted: Wanted) -> tuple[Fence, Preload | None]:
    """The fence of this node's server and what its configuration must say.

    Raises ConfigError if the extension is required and cannot be had, or if the page cannot be
    used. Blocks: it may compile, once per version.
    """
    if wanted.mode == "off":
        events.emit(events.FenceMissing(why="pgraft_extension is off"))
        return NoFence(), None
    try:
        built = find_or_build(wanted)
    except extension.BuildError as error:
        if wanted.mode == "required":
            raise ConfigError(error.message, field="pgraft_extension", hint=error.hint) from error
        events.emit(events.FenceMissing(why=f"{error.message}; {error.hint}"))
        return NoFence(), None
    path = page_path(wanted)
    make_directory(wanted, path.parent)
    page = open_page(wanted, path)

    def reopen() -> Page:
        """Also after somebody has cleaned its directory away."""
        make_directory(wanted, path.parent)
        return Page.open(path, uid=wanted.uid, gid=wanted.gid)

    fence = PageFence(
        page,
        reopen=reopen,
        clock=wanted.clock,
        version=wanted.daemon_version,
    )
    preload = Preload(
        library_dir=built.library.parent,
        share_dir=built.share,
        page=path,
        grace_ms=wanted.grace_ms,
    )
    return fence, preload


def find_or_build(wanted: Wanted) -> extension.Build:
    """The library for this server, built now if it was not before. Raises BuildError."""
    root = extension.build_root()
    found = extension.find([root], wanted.server_version)
    if found is not None:
        return found
    begun_s = time.monotonic()
    pg_config = wanted.bin_dir / "pg_config"
    built = extension.build(pg_config, root, server_version=wanted.server_version)
    duration_ms = round((time.monotonic() - begun_s) * 1000)
    events.emit(
        events.ExtensionBuilt(
            version=wanted.server_version, path=str(built.library), duration_ms=duration_ms
        )
    )
    return built


def page_path(wanted: Wanted) -> Path:
    """The page's file: one for each state directory, the same at each start."""
    directory = wanted.page_dir
    if directory is None:
        directory, warning = default_directory(uid=wanted.uid)
        if warning:
            events.emit(events.ConfigWarning(key="page_dir", what=warning))
    digest = hashlib.sha256(os.fsencode(wanted.state_dir)).hexdigest()[:16]
    return directory / f"ramd-{digest}.page"


def make_directory(wanted: Wanted, directory: Path) -> None:
    """The page's directory; one that we make is the server's, which may have to make the page
    itself when it is started by hand. Raises ConfigError."""
    try:
        directory.mkdir(mode=0o711)
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be made: {error.strerror}",
            field="page_dir",
            hint="name a directory in memory (tmpfs) that the daemon can write, or /dev/shm",
        ) from error
    directory.chmod(0o711)
    if os.geteuid() == 0:
        os.chown(directory, wanted.uid, wanted.gid)


def open_page(wanted: Wanted, path: Path) -> Page:
    """The page that a running server holds, wherever its name went; else the one at `path`."""
    pid, uid, gid = wanted.postmaster_pid, wanted.uid, wanted.gid
    try:
        held = None if pid is None else Page.open_through(pid, path, uid=uid, gid=gid)
        return held or Page.open(path, uid=uid, gid=gid)
    except PageError as error:
        raise page_fault(error) from error
