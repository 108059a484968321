"""How long nothing was acknowledged, and after which faults. Pure.

Start reading at `outages`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bench.chaos.plan import ROLES, Kind, Role

SLOT_S = 0.1
OUTAGE_S = 0.3
"""Shorter gaps between acknowledgements are the machine's own."""
SLACK_S = 0.2
"""The last acknowledgement before a gap may be a little older than the fault that caused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A fault that was done, and when; monotonic seconds."""

    at_s: float
    kind: Kind
    role: Role
    number: int = 0
    """Of the step of the plan."""

    @property
    def name(self) -> str:
        return self.kind.value if self.kind in ROLES else f"{self.kind}, {self.role}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time without an acknowledgement."""

    from_s: float
    until_s: float

    @property
    def seconds(self) -> float:
        return self.until_s - self.from_s


def available(times_s: Sequence[float], from_s: float, until_s: float) -> float:
    """Share of the slots between the two in which something was acknowledged; 0 without slots."""
    slots = int((until_s - from_s) / SLOT_S)
    taken = {int((at_s - from_s) / SLOT_S) for at_s in times_s if from_s <= at_s < until_s}
    return len([slot for slot in taken if slot < slots]) / slots if slots > 0 else 0.0


def outages(times_s: Sequence[float], from_s: float, until_s: float) -> list[Gap]:
    """Every gap of at least `OUTAGE_S`, the open ones at both ends included, in order."""
    inside = sorted(at_s for at_s in times_s if from_s <= at_s <= until_s)
    gaps = itertools.pairwise([from_s, *inside, until_s])
    return [Gap(from_s=a, until_s=b) for a, b in gaps if b - a >= OUTAGE_S]


def before(gap: Gap, faults: Sequence[Begun]) -> Begun | None:
    """The fault that came last before a gap began. One that follows while it is open changes
    nothing: who began it is counted."""
    begun = [fault for fault in faults if fault.at_s <= gap.from_s + SLACK_S]
    return max(begun, key=lambda fault: fault.at_s, default=None)


def by_fault(gaps: Sequence[Gap], faults: Sequence[Begun]) -> dict[str, list[float]]:
    """Seconds of each gap by the name of the fault `before` it; "" before any."""
    found: dict[str, list[float]] = {}
    for gap in gaps:
        fault = before(gap, faults)
        found.setdefault(fault.name if fault else "", []).append(gap.seconds)
    return found
