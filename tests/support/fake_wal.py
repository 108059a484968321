"""Directory and WAL of a fake server: positions, timelines, and who may stream from whom.

A history is a tuple of (timeline, LSN where it ends and the next begins), as in PostgreSQL's
history files.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.lsn import Lsn
from ramd.domain.observation import DataKind, Position
from ramd.domain.server import ControlState, Upstream

SYSTEM_ID = "7000000000000000001"


@dataclass(slots=True)
class FakeDisk:
    """What survives everything: the data directory."""

    kind: DataKind = DataKind.ABSENT
    system_id: str = ""
    standby_signal: bool = False
    control: ControlState = ControlState.SHUT_DOWN
    history: tuple[tuple[int, int], ...] = ()
    """(timeline, end LSN) of every earlier timeline."""
    timeline: int = 1
    end: int = 0
    """End of valid WAL."""
    consistent_at: int = 0
    """A rewound directory is consistent only from here on; so is one whose WAL was lost."""
    crashed_primary: bool = False
    """So far nobody can tell to where its pages go."""
    wal_missing: str = ""
    """A file in the midst of its WAL."""
    upstream: Upstream | None = None

    @property
    def position(self) -> Position:
        return Position(timeline=self.timeline, lsn=Lsn(self.end))


def line(disk: FakeDisk) -> tuple[tuple[int, int], ...]:
    """(timeline, where it ends) of all timelines; the present one has no end."""
    return (*disk.history, (disk.timeline, 1 << 62))


def timeline_at(disk: FakeDisk, lsn: int) -> int:
    """The timeline to which the WAL just before `lsn` belongs."""
    return next(timeline for timeline, end in line(disk) if lsn <= end)


def on_line(disk: FakeDisk, source: FakeDisk) -> bool:
    """Whether all WAL of `disk` is also WAL of `source`."""
    ends = dict(line(source))
    own_timeline_is_there = disk.timeline in ends and disk.end <= ends[disk.timeline]
    history_is_there = all(h in source.history for h in disk.history)
    return own_timeline_is_there and history_is_there and disk.end <= source.end


def common_end(disk: FakeDisk, source: FakeDisk) -> int:
    """Where the WAL of the two parts."""
    fork = 0
    for (own, own_end), (theirs, their_end) in zip(line(disk), line(source), strict=False):
        if own != theirs:
            break
        fork = min(own_end, their_end, disk.end)
        if own_end != their_end:
            break
    return fork
