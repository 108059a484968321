"""The running half of a fake server: its process, and what goes wrong with it next."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class FakeProcess:
    """The postmaster that runs now."""

    primary: bool
    accepts_at: float
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    pid: int = field(default_factory=itertools.count(1000).__next__)


@dataclass(slots=True)
class Faults:
    """What goes wrong next. `fail[name]` is raised by that call; `extra_s[name]` slows it down."""

    fail: dict[str, deque[BaseException]] = field(default_factory=dict)
    extra_s: dict[str, float] = field(default_factory=dict)
    hung: bool = False
    """Lives and answers nothing; only SIGKILL ends it."""
    promote_to: int | None = None
    """The timeline a promotion takes instead of the asked one."""
    never_replays: bool = False
    disk_hangs: bool = False
    """Its startup process is held up while it looks for WAL, so it never sleeps."""
    wal_gone: bool = False
    """Its upstream does not have the WAL any more that it would need next."""
    torn: int = 0
    """Bytes at its end that are no complete record."""
