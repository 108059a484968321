"""A clock that runs off by more than half of the bound is noticed, and only then."""

import pytest

from pgraft.node.clock import WINDOW_NS, ClockCheck, raw_ns, suspended_ns
from pgraft.node.driver import boottime_ns

DRIFT = 0.01


class Clocks:
    """Three clocks; `rate` is the adjusted one's, `late_ns` passes between two readings."""

    def __init__(self) -> None:
        self.raw = self.adjusted = self.suspend = 0.0
        self.late_ns = 0
        self.check = ClockCheck(DRIFT, self._adjusted, self._raw, lambda: int(self.suspend))

    def _adjusted(self) -> int:
        return int(self.adjusted)

    def _raw(self) -> int:
        self.raw += self.late_ns
        self.adjusted += self.late_ns
        return int(self.raw)

    def run(self, windows: float, rate: float) -> None:
        self.raw += windows * WINDOW_NS
        self.adjusted += windows * WINDOW_NS * rate


@pytest.fixture
def clocks() -> Clocks:
    clocks = Clocks()
    assert clocks.check.look() is None
    return clocks


@pytest.mark.parametrize("rate", [1.0, 1.0049, 0.9951])
def test_an_even_clock_is_sound(clocks: Clocks, rate: float) -> None:
    for _ in range(5):
        clocks.run(1, rate)
        assert clocks.check.look() is None
    assert not clocks.check.suspect
    assert clocks.check.off == pytest.approx(rate - 1)


@pytest.mark.parametrize("rate", [1.0051, 0.9949, 1.5])
def test_a_change_is_told_once_and_taken_back_after_a_sound_window(
    clocks: Clocks, rate: float
) -> None:
    clocks.run(1, rate)
    assert clocks.check.look() is True
    clocks.run(1, rate)
    assert clocks.check.look() is None
    assert clocks.check.suspect
    clocks.run(1, 1)
    assert clocks.check.look() is False
    assert not clocks.check.suspect


def test_nothing_is_said_before_a_window_is_over(clocks: Clocks) -> None:
    clocks.run(0.9, 3)
    assert clocks.check.look() is None
    clocks.run(0.1, 3)
    assert clocks.check.look() is True


def test_a_window_with_a_suspend_tells_nothing(clocks: Clocks) -> None:
    clocks.run(1, 1)
    clocks.adjusted += 3600e9
    clocks.suspend += 3600e9
    assert clocks.check.look() is None
    clocks.run(1, 1)
    assert clocks.check.look() is None
    assert not clocks.check.suspect


def test_clocks_that_cannot_be_read_at_once_are_not_compared(clocks: Clocks) -> None:
    clocks.run(1, 2)
    clocks.late_ns = 5_000_000
    assert clocks.check.look() is None
    clocks.late_ns = 0
    assert clocks.check.look() is True, "the window only grew"


def test_the_real_clocks_can_be_read() -> None:
    check = ClockCheck(DRIFT, boottime_ns)
    assert check.look() is None
    assert raw_ns() > 0
    assert suspended_ns() > -1_000_000
