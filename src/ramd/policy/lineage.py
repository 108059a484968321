"""Lineage: whether what a server holds is part of the primary's history, and how it gets back.

Lives here: judgement by the record of reigns alone (rule S6), never by what a server says of its
own history. Must not live here: any action. Start reading at `standing`, then `how_to_rejoin`.

The *line* is the chain of timelines that leads to the present reign: its own timeline, then parent
after parent, each up to the position where its child left it. This is PostgreSQL's history file
(access/transam/timeline.c), read from the record instead of from a disk. Timeline numbers are
handed out by the group, so one number is one reign.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ramd.domain.lsn import LSN_MAX, Lsn, format_lsn
from ramd.domain.model import Reign, StartMode
from ramd.domain.observation import Position

_ENDLESS = Lsn(LSN_MAX)


class Kind(StrEnum):
    """Where a position lies with respect to the line."""

    ON_LINE = "on line"
    DIVERGED = "diverged"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A position judged. `fork_lsn`: DIVERGED only, where it left the line.

    `awaits_epoch`: UNKNOWN only, the epoch whose fork would settle the question; None if nothing
    that may still be recorded can settle it.
    """

    kind: Kind
    reason: str
    fork_lsn: Lsn | None = None
    awaits_epoch: int | None = None


class Rejoin(StrEnum):
    """How a server becomes a replica of the present primary."""

    PLAIN = "plain"
    """Start it, or leave it running, as a replica and attach it."""
    REWIND = "rewind"
    CLONE = "clone"
    WAIT = "wait"
    """The primary's fork is not recorded yet; it soon is, or the epoch moves."""


class Advice(NamedTuple):
    """How to rejoin, and why."""

    how: Rejoin
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One timeline of the line. `left_by`: the epoch whose timeline left it; None: the present one.

    `fork`: where that was, None while it is not recorded. `end`: the last position that certainly
    is part of the line: the fork, or the position at which the holder of `left_by` was elected if
    that is greater. What a node has received may end within a record (pages are sent before the
    record is complete), and a timeline begins where the last complete record ends; but nobody who
    holds no more than that has replayed the incomplete one.
    """

    timeline: int
    left_by: int | None = None
    fork: Lsn | None = None
    end: Lsn = _ENDLESS


def line(reigns: Sequence[Reign]) -> tuple[Segment, ...]:
    """The line of the last of `reigns`, newest segment first; empty without any reign."""
    if not reigns:
        return ()
    segments = [Segment(timeline=reigns[-1].timeline)]
    reign: Reign | None = reigns[-1]
    while reign is not None and reign.parent_timeline is not None:
        segments.append(
            Segment(
                timeline=reign.parent_timeline,
                left_by=reign.epoch,
                fork=reign.fork_lsn,
                end=max(reign.fork_lsn or Lsn(0), reign.seal_lsn or Lsn(0)),
            )
        )
        reign = _reign_on(reigns, reign.parent_timeline, before=reign.epoch)
    return tuple(segments)


def standing(reigns: Sequence[Reign], position: Position) -> Standing:
    """Judge `position` against the line of the last reign. Total."""
    segments = line(reigns)
    for segment in segments:
        if segment.timeline == position.timeline:
            return _within(segment, position)
    return _on_branch(reigns, segments, position)


def reach(reigns: Sequence[Reign], position: Position, others: Collection[Position] = ()) -> Lsn:
    """How far `position` comes on the line, to be compared with how far `others` come.

    What was received behind a fork is the beginning of a record that the line does not have: it
    counts no further than the fork, or, while that is not recorded, for less than anything that is
    on a later timeline of the line.
    """
    segment = next((s for s in line(reigns) if s.timeline == position.timeline), None)
    if segment is None or segment.left_by is None or _off(reigns, position):
        return position.lsn
    if segment.fork is not None:
        return min(position.lsn, segment.fork)
    later = [o.lsn for o in others if o.timeline > position.timeline and not _off(reigns, o)]
    return min([position.lsn, *(Lsn(max(0, lsn - 1)) for lsn in later)])


def _off(reigns: Sequence[Reign], position: Position) -> bool:
    return standing(reigns, position).kind is not Kind.ON_LINE


def off_line(reigns: Sequence[Reign], position: Position, others: Iterable[Position]) -> str:
    """Why `position` is not on the line; '' if it is, or if it only awaits the fork of an epoch of
    which nobody among `others` holds anything: then the old line is all there is."""
    found = standing(reigns, position)
    if found.kind is Kind.ON_LINE:
        return ""
    if found.awaits_epoch is not None and not _followed(reigns, found.awaits_epoch, others):
        return ""
    return f"is off the line: {found.reason}"


def _followed(reigns: Sequence[Reign], epoch: int, positions: Iterable[Position]) -> bool:
    """Somebody has reported WAL of `epoch` or of a later one on the line."""
    on_line = {segment.timeline for segment in line(reigns)}
    later = {r.timeline for r in reigns if r.epoch >= epoch and r.timeline in on_line}
    return any(position.timeline in later for position in positions)


def how_to_rejoin(reigns: Sequence[Reign], position: Position | None, *, me: int) -> Advice:
    """How node `me`, not the holder of the last reign, gets to follow it.

    `position` is where its WAL ends, on which timeline: of a server that takes WAL from nobody, or
    scanned from a stopped one; None if it was looked for and cannot be found. The data directory is
    known to be of this cluster's system.
    """
    if not reigns:
        return Advice(Rejoin.WAIT, "there is no primary yet")
    if position is None:
        return Advice(Rejoin.CLONE, "the end of its WAL cannot be found")
    own = _reign_on(reigns, position.timeline, before=reigns[-1].epoch)
    if own is not None and own.node_id == me and _fork_missing(own):
        # Attacks C8: what it did in that epoch cannot be placed, whatever its numbers look like.
        reason = f"it was primary of epoch {own.epoch}, of which no fork was recorded"
        return Advice(Rejoin.CLONE, reason)
    found = standing(reigns, position)
    if found.kind is Kind.ON_LINE:
        return Advice(Rejoin.PLAIN, found.reason)
    if found.kind is Kind.DIVERGED:
        return Advice(Rejoin.REWIND, found.reason)
    if found.awaits_epoch == reigns[-1].epoch:
        return Advice(Rejoin.WAIT, found.reason)
    return Advice(Rejoin.CLONE, found.reason)


def _within(segment: Segment, position: Position) -> Standing:
    """`position` is on the timeline of `segment`."""
    here = f"timeline {position.timeline} at {format_lsn(position.lsn)}"
    if segment.left_by is None:
        return Standing(kind=Kind.ON_LINE, reason=f"{here} is the primary's own timeline")
    end = format_lsn(segment.end)
    what = "was elected" if segment.fork is None else "left it"
    if position.lsn <= segment.end:
        reason = f"{here} is not past {end}, where epoch {segment.left_by} {what}"
        return Standing(kind=Kind.ON_LINE, reason=reason)
    if segment.fork is not None:
        reason = f"{here} is past {end}, where epoch {segment.left_by} {what}"
        return Standing(kind=Kind.DIVERGED, reason=reason, fork_lsn=segment.fork)
    return Standing(
        kind=Kind.UNKNOWN,
        reason=f"{here} is past {end}, and where epoch {segment.left_by} begins is not recorded",
        awaits_epoch=segment.left_by,
    )


def _on_branch(
    reigns: Sequence[Reign], segments: tuple[Segment, ...], position: Position
) -> Standing:
    """`position` is on a timeline that is not part of the line: find where that left it."""
    forks = {segment.timeline: segment.fork for segment in segments}
    branch = _reign_on(reigns, position.timeline)
    while branch is not None and branch.parent_timeline is not None:
        if branch.fork_lsn is None:
            reason = f"timeline {position.timeline} is a dead branch without a recorded fork"
            return Standing(kind=Kind.UNKNOWN, reason=reason)
        if branch.parent_timeline in forks:
            left = forks[branch.parent_timeline]
            fork = branch.fork_lsn if left is None else min(branch.fork_lsn, left)
            reason = f"timeline {position.timeline} is a dead branch off {format_lsn(fork)}"
            return Standing(kind=Kind.DIVERGED, reason=reason, fork_lsn=fork)
        branch = _reign_on(reigns, branch.parent_timeline, before=branch.epoch)
    reason = f"timeline {position.timeline} is not in the record"
    return Standing(kind=Kind.UNKNOWN, reason=reason)


def _reign_on(reigns: Sequence[Reign], timeline: int, *, before: int | None = None) -> Reign | None:
    """The latest reign on `timeline`, of an epoch lower than `before` if that is given."""
    for reign in reversed(reigns):
        if reign.timeline == timeline and (before is None or reign.epoch < before):
            return reign
    return None


def _fork_missing(reign: Reign) -> bool:
    return reign.start is StartMode.PROMOTE and reign.fork_lsn is None
