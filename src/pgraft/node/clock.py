"""Whether this machine's clock runs as evenly as the lease assumes.

Lives here: comparing two clocks over windows. Must not live here: what a suspect clock means for
elections and leases (`pgraft.core`). Start reading at `ClockCheck.look`.

CLOCK_BOOTTIME is slewed by time synchronisation, CLOCK_MONOTONIC_RAW never is; a lease allows
clocks to run off from each other by drift·ttl while it lasts. Two windows watch over that. The long
one catches a rate that differs from the raw one by more than half of the bound, which leaves no
room for the other side's. The short one, a quarter of a ttl, catches a sudden slew while the leases
that it falls into still run: it allows a sixth of drift·ttl, so that the five windows which a lease
can touch stay below the whole. A clock is called sound again two ttl after it was last seen off:
until then there may be leases and contacts that were timed by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgraft.core.types import Nanos, Timing

LONG_WINDOW_NS: Final = 10_000_000_000
SHORT_WINDOWS_PER_TTL: Final = 4
SHORT_SHARES: Final = 6
SOUND_AFTER_TTLS: Final = 2
_TRIES: Final = 5
_READING_NS: Final = 100_000
"""Two clocks read within this are read at once: far below what any window allows."""


def raw_ns() -> Nanos:
    """The clock that nobody adjusts; it does not count suspend."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def suspended_ns() -> Nanos:
    """How long this machine has been suspended since it booted."""
    boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boottime - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All clocks at one moment."""

    clock_ns: Nanos
    raw_ns: Nanos
    suspended_ns: Nanos


class _Window:
    """Compares readings that are at least `length_ns` apart, one after the other."""

    __slots__ = ("_allowed", "_from", "_length_ns", "off")

    def __init__(self, length_ns: Nanos, allowed: float) -> None:
        """`allowed`: by which fraction of the time between them the clock may be off."""
        self.off = 0.0
        self._length_ns = length_ns
        self._allowed = allowed
        self._from: Reading | None = None

    def due(self, raw: Nanos) -> bool:
        """Whether the next reading ends this window."""
        return self._from is None or raw - self._from.raw_ns >= self._length_ns

    def restart(self, at: Reading) -> None:
        """Begin anew: what came before has been judged."""
        self._from = at

    def is_off(self, at: Reading) -> bool:
        """Whether the clock ran off in the window that `at` ends. One with a suspend in it tells
        nothing: the raw clock does not count that."""
        before, self._from = self._from, at
        if before is None or abs(at.suspended_ns - before.suspended_ns) > _READING_NS:
            return False
        self.off = (at.clock_ns - before.clock_ns) / (at.raw_ns - before.raw_ns) - 1
        return abs(self.off) > self._allowed


class ClockCheck:
    """Whether the clock of decisions is `suspect`, from looks taken several times per ttl."""

    __slots__ = ("_clock", "_long", "_off_ns", "_raw", "_short", "_sound_after_ns", "_suspended")

    def __init__(
        self,
        timing: Timing,
        clock: Callable[[], Nanos],
        raw: Callable[[], Nanos] = raw_ns,
        suspended: Callable[[], Nanos] = suspended_ns,
    ) -> None:
        """`clock` is the one that decisions are made by, `timing` says what leases allow for."""
        self._long = _Window(LONG_WINDOW_NS, timing.drift / 2)
        self._short = _Window(
            timing.lease_ttl_ns // SHORT_WINDOWS_PER_TTL,
            timing.drift * SHORT_WINDOWS_PER_TTL / SHORT_SHARES,
        )
        self._sound_after_ns = SOUND_AFTER_TTLS * timing.lease_ttl_ns
        self._off_ns: Nanos | None = None
        self._clock = clock
        self._raw = raw
        self._suspended = suspended

    @property
    def suspect(self) -> bool:
        """Whether the clock was off in the last window, or not long ago."""
        return self._off_ns is not None

    @property
    def off(self) -> float:
        """How much faster (slower: negative) the clock of decisions ran than the raw one, as a
        fraction: the worse of the last windows."""
        return max(self._short.off, self._long.off, key=abs)

    def look(self) -> bool | None:
        """Take a look; True or False when what is thought of the clock changes, else None."""
        windows = [w for w in (self._short, self._long) if w.due(self._raw())]
        if not windows:
            return None
        at = self._read()
        if at is None:
            return None
        was = self.suspect
        if sum(window.is_off(at) for window in windows):  # all of them take the reading
            self._off_ns = at.raw_ns
            self._long.restart(at)
        elif self._off_ns is not None and at.raw_ns - self._off_ns >= self._sound_after_ns:
            self._off_ns = None
        return self.suspect if self.suspect is not was else None

    def _read(self) -> Reading | None:
        """All clocks at once; None when something came between every time."""
        for _ in range(_TRIES):
            begun = self._raw()
            now = self._clock()
            suspended = self._suspended()
            if self._raw() - begun <= _READING_NS:
                return Reading(clock_ns=now, raw_ns=begun, suspended_ns=suspended)
        return None
