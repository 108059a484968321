"""A clock that runs off by more than leases allow for is noticed in time, and only then."""

import pytest

from pgraft.core.types import Timing
from pgraft.node.clock import LONG_WINDOW_NS, ClockCheck, raw_ns, suspended_ns
from pgraft.node.driver import boottime_ns

TIMING = Timing(lease_ttl_ns=3_000_000_000, drift=0.01)
TTL_NS = TIMING.lease_ttl_ns
SHORT_NS = TTL_NS // 4


class Clocks:
    """Three clocks; `late_ns` passes between two readings."""

    def __init__(self) -> None:
        self.raw = self.adjusted = self.suspend = 0.0
        self.late_ns = 0
        self.check = ClockCheck(TIMING, self._adjusted, self._raw, lambda: int(self.suspend))

    def _adjusted(self) -> int:
        return int(self.adjusted)

    def _raw(self) -> int:
        self.raw += self.late_ns
        self.adjusted += self.late_ns
        return int(self.raw)

    def run(self, ns: float, rate: float) -> None:
        self.raw += ns
        self.adjusted += ns * rate

    def news(self, ns: float, rate: float) -> list[bool]:
        """What is told in this time, with a look every 50 ms."""
        told = []
        for _ in range(int(ns // 50_000_000)):
            self.run(50_000_000, rate)
            news = self.check.look()
            if news is not None:
                told.append(news)
        return told


@pytest.fixture
def clocks() -> Clocks:
    clocks = Clocks()
    assert clocks.check.look() is None
    return clocks


@pytest.mark.parametrize("rate", [1.0, 1.0049, 0.9951])
def test_an_even_clock_is_sound(clocks: Clocks, rate: float) -> None:
    assert clocks.news(5 * LONG_WINDOW_NS, rate) == []
    assert not clocks.check.suspect
    assert clocks.check.off == pytest.approx(rate - 1)


@pytest.mark.parametrize("rate", [1.0052, 0.9948])
def test_a_slow_drift_is_seen_over_a_long_window(clocks: Clocks, rate: float) -> None:
    assert clocks.news(LONG_WINDOW_NS - 1, rate) == []
    assert clocks.news(50_000_000, rate) == [True]
    assert clocks.check.suspect


@pytest.mark.parametrize("rate", [1.0833, 0.9167, 1.5])
def test_a_sudden_slew_is_seen_while_the_lease_still_runs(clocks: Clocks, rate: float) -> None:
    """chrony slews by up to 8.3 %: 30 ms of a lease of 3 s would be gone after 360 ms."""
    clocks.news(LONG_WINDOW_NS * 1.3, 1)
    assert clocks.news(SHORT_NS + 50_000_000, rate) == [True]


def test_the_windows_that_a_lease_can_touch_allow_less_than_its_drift() -> None:
    """The steepest slew that no short window objects to, over a whole lease."""
    rate = 1 + 0.999 * TIMING.drift * 4 / 6
    clocks = Clocks()
    clocks.check.look()
    assert clocks.news(2 * TTL_NS, rate) == []
    assert (rate - 1) * (TTL_NS + SHORT_NS) < TIMING.drift * TTL_NS


def test_a_clock_is_sound_again_after_two_quiet_ttls(clocks: Clocks) -> None:
    assert clocks.news(SHORT_NS, 1.5) == [True]
    assert clocks.news(2 * TTL_NS - SHORT_NS, 1) == []
    assert clocks.check.suspect
    assert clocks.news(2 * SHORT_NS, 1) == [False]
    assert clocks.news(3 * LONG_WINDOW_NS, 1) == [], "what was judged once is not judged again"


def test_it_is_told_once(clocks: Clocks) -> None:
    assert clocks.news(3 * TTL_NS, 1.5) == [True]


def test_nothing_is_said_before_a_window_is_over(clocks: Clocks) -> None:
    clocks.run(0.9 * SHORT_NS, 3)
    assert clocks.check.look() is None
    clocks.run(0.1 * SHORT_NS, 3)
    assert clocks.check.look() is True


def test_a_window_with_a_suspend_tells_nothing(clocks: Clocks) -> None:
    clocks.run(SHORT_NS, 1)
    clocks.adjusted += 3600e9
    clocks.suspend += 3600e9
    assert clocks.check.look() is None
    assert clocks.news(2 * LONG_WINDOW_NS, 1) == []
    assert not clocks.check.suspect


def test_clocks_that_cannot_be_read_at_once_are_not_compared(clocks: Clocks) -> None:
    clocks.run(SHORT_NS, 2)
    clocks.late_ns = 5_000_000
    assert clocks.check.look() is None
    clocks.late_ns = 0
    assert clocks.check.look() is True, "the window only grew"


def test_the_real_clocks_can_be_read() -> None:
    check = ClockCheck(TIMING, boottime_ns)
    assert check.look() is None
    assert raw_ns() > 0
    assert suspended_ns() > -1_000_000
