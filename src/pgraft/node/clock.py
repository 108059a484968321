"""Whether this machine's clock runs as evenly as the lease assumes.

Lives here: comparing two clocks over a window. Must not live here: what a suspect clock means for
elections and leases (`pgraft.core`). Start reading at `ClockCheck.look`.

CLOCK_BOOTTIME is slewed by time synchronisation, CLOCK_MONOTONIC_RAW never is; the lease allows
clocks to run off from each other by the drift bound. A rate that differs from the raw one by more
than half of the bound leaves no room for the other side's: such a clock is suspect.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pgraft.core.types import Nanos

WINDOW_NS: Final = 10_000_000_000
"""How far apart two looks that are compared are, at least."""


def raw_ns() -> Nanos:
    """The clock that nobody adjusts; it does not count suspend."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def suspended_ns() -> Nanos:
    """How long this machine has been suspended since it booted."""
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boottime - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class ClockCheck:
    """Compares windows of at least `WINDOW_NS`. `off` is how much faster (slower: negative) the
    clock of decisions ran than the raw one in the last window, as a fraction."""

    __slots__ = ("_bound", "_clock", "_from", "_raw", "_suspended", "off", "suspect")

    def __init__(
        self,
        drift: float,
        clock: Callable[[], Nanos],
        raw: Callable[[], Nanos] = raw_ns,
        suspended: Callable[[], Nanos] = suspended_ns,
    ) -> None:
        """`clock` is the one that decisions are made by; windows with a suspend tell nothing."""
        self.suspect = False
        self.off = 0.0
        self._bound = drift / 2
        self._clock = clock
        self._raw = raw
        self._suspended = suspended
        self._from: tuple[Nanos, Nanos, Nanos] | None = None

    def look(self) -> bool | None:
        """Take a look; True or False when what is thought of the clock changes, else None."""
        before = self._from
        if before is not None and self._raw() - before[1] < WINDOW_NS:
            return None
        at = self._read()
        if at is None:
            return None
        self._from = at
        if before is None or abs(at[2] - before[2]) > _READING_NS:
            return None
        self.off = (at[0] - before[0]) / (at[1] - before[1]) - 1
        suspect = abs(self.off) > self._bound
        if suspect is self.suspect:
            return None
        self.suspect = suspect
        return suspect

    def _read(self) -> tuple[Nanos, Nanos, Nanos] | None:
        """(clock, raw, suspended), read at once; None when something came between every time."""
        for _ in range(_TRIES):
            begun = self._raw()
            now = self._clock()
            suspended = self._suspended()
            if self._raw() - begun <= _READING_NS:
                return now, begun, suspended
        return None


_TRIES: Final = 5
_READING_NS: Final = 1_000_000
"""Two clocks read within this are read at once: 1/10000 of a window."""
