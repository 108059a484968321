"""Clocks of simulated nodes: each started at its own time and runs at a rate that may change."""

from __future__ import annotations

_MILLION = 1_000_000


class DriftingClock:
    """Maps true time to a node's CLOCK_BOOTTIME and back, ns; `ppm` is how much it runs fast."""

    def __init__(self, offset_ns: int, ppm: int) -> None:
        self.ppm = ppm
        self._true_ns = 0
        self._local_ns = offset_ns

    def local(self, true_ns: int) -> int:
        """What the node reads at a true time, not before the last change of rate."""
        return self._local_ns + (true_ns - self._true_ns) * (_MILLION + self.ppm) // _MILLION

    def true(self, local_ns: int) -> int:
        """The first true time at which the node reads at least `local_ns`, at this rate."""
        return self._true_ns - ((self._local_ns - local_ns) * _MILLION // (_MILLION + self.ppm))

    def run_at(self, ppm: int, true_ns: int) -> None:
        """From now on run at another rate. The clock never jumps."""
        self._true_ns, self._local_ns = true_ns, self.local(true_ns)
        self.ppm = ppm
