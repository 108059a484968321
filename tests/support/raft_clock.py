"""Clocks of simulated nodes: each runs at its own rate and started at its own time."""

from __future__ import annotations

from dataclasses import dataclass

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class DriftingClock:
    """Maps true time to a node's CLOCK_BOOTTIME and back, ns; `ppm` is how much it runs fast."""

    offset_ns: int
    ppm: int

    def local(self, true_ns: int) -> int:
        """What the node reads at a true time."""
        return self.offset_ns + true_ns * (_MILLION + self.ppm) // _MILLION

    def true(self, local_ns: int) -> int:
        """The first true time at which the node reads at least `local_ns`."""
        return -((self.offset_ns - local_ns) * _MILLION // (_MILLION + self.ppm))
