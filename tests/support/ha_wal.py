"""What a simulated data directory holds: records, each written once by one primary.

A record is one object wherever it was copied to, so two directories agree up to a record exactly if
they hold the same one in the same place. Positions are LSNs; counts are numbers of records. Start
reading at `Directory`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ramd.domain.lsn import Lsn
from ramd.domain.observation import DataKind, Position
from ramd.domain.server import ControlState

BASE = 1_000
ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record of WAL: where it ends, on which timeline, and whose it is."""

    end: int
    timeline: int
    uid: int
    """Number of the client's write; 0: the server's own."""


@dataclass(slots=True)
class Directory:
    """A data directory. `wal` holds what was inserted, `flushed` counts what is on disk."""

    kind: DataKind = DataKind.ABSENT
    system_id: str = ""
    standby_signal: bool = False
    control: ControlState = ControlState.SHUT_DOWN
    history: tuple[tuple[int, int], ...] = ()
    """(timeline, where it ends) of every earlier timeline, as in a history file."""
    timeline: int = 1
    wal: list[Record] = field(default_factory=list)
    flushed: int = 0
    restart: int = 0
    """Replay begins here."""
    minimum: int = 0
    """It was replayed so far before: connections are accepted from there on."""
    consistent_at: int = 0
    """LSN from which on a rewound directory is consistent."""
    torn: int = 0
    """Bytes of an incomplete record behind the last one."""
    recycled: int = 0
    """Bytes behind all that, in a file that is longer: what it held before it was used again. No
    record is found there, whoever reads it."""
    tie: str = ""

    @property
    def end(self) -> int:
        """End of valid WAL on disk."""
        return self.lsn_at(self.flushed)

    @property
    def inserted(self) -> int:
        return self.lsn_at(len(self.wal))

    @property
    def position(self) -> Position:
        return Position(timeline=self.timeline, lsn=Lsn(self.end))

    def lsn_at(self, count: int) -> int:
        return self.wal[count - 1].end if count else BASE

    def append(self, size: int, uid: int = 0) -> Record:
        """A record on the present timeline, in memory."""
        record = Record(self.inserted + size, self.timeline, uid)
        self.wal.append(record)
        return record

    def lose_unflushed(self) -> None:
        """The memory of the server is gone."""
        del self.wal[self.flushed :]
        self.torn = 0
        if self.wal:
            self.timeline = self.wal[-1].timeline
            self.history = history_to(self.history, self.timeline)

    def line(self) -> tuple[tuple[int, int], ...]:
        """(timeline, where it ends) of all; the present one has no end."""
        return (*self.history, (self.timeline, ENDLESS))

    def holds(self, other: Directory, count: int) -> bool:
        """The first `count` records of `other` are ours, too."""
        if not count:
            return True
        return len(self.wal) >= count and self.wal[count - 1] is other.wal[count - 1]

    def copy_of(self) -> Directory:
        """A base backup: what was on disk."""
        return replace(
            self,
            kind=DataKind.CLUSTER,
            wal=self.wal[: self.flushed],
            standby_signal=True,
            control=ControlState.IN_PRODUCTION,
            restart=self.flushed,
            minimum=self.flushed,
            torn=0,
            recycled=0,
        )


def cannot_stream(own: Directory, source: Directory) -> str:
    """What the source answers a replica that asks for WAL from where its own ends; '' if it sends.

    As PostgreSQL, by timelines and positions alone.
    """
    ends = dict(source.line())
    if own.timeline not in ends:
        return f"timeline {own.timeline} is not in its history"
    if own.end > ends[own.timeline]:
        return f"timeline {own.timeline} was left before {own.end}"
    if own.end > source.end:
        return "it is ahead"
    return ""


def history_to(line: tuple[tuple[int, int], ...], timeline: int) -> tuple[tuple[int, int], ...]:
    """The history of a server that is on `timeline` of `line`."""
    return tuple(part for part in line if part[0] < timeline)


def common_end(own: Directory, source: Directory) -> int:
    """Where the WAL of the two parts, by their history files alone."""
    fork = 0
    for (mine, my_end), (theirs, their_end) in zip(own.line(), source.line(), strict=False):
        if mine != theirs:
            break
        fork = min(my_end, their_end, own.end)
        if my_end != their_end:
            break
    return fork
