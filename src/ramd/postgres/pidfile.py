"""postmaster.pid: what a running server says of itself (miscadmin.h, LOCK_FILE_LINE_*)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PidFile:
    """Its lines. What a server that is just starting has not written yet is None or empty."""

    pid: int
    start_unix_s: int = 0
    port: int | None = None
    socket_dir: str = ""
    shm_key: int | None = None
    shm_id: int | None = None
    status: str = ""
    """`starting`, `stopping`, `ready` or `standby`; written once ports and memory are taken."""


def read_pidfile(path: Path) -> PidFile | None:
    """None if there is none, or nothing that could be one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    fields = [*(line.strip() for line in lines), *[""] * 8][:8]
    pid = number(fields[0])
    if pid is None:
        return None
    shm = [number(word) for word in fields[6].split()]
    return PidFile(
        pid=abs(pid),  # a stand-alone backend writes its own negated
        start_unix_s=number(fields[2]) or 0,
        port=number(fields[3]),
        socket_dir=fields[4],
        shm_key=shm[0] if len(shm) == 2 else None,
        shm_id=shm[1] if len(shm) == 2 else None,
        status=fields[7],
    )


def number(text: str) -> int | None:
    """The integer in `text`, or None."""
    try:
        return int(text)
    except ValueError:
        return None
