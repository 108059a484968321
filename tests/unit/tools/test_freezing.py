"""Stopping processes: all of them, and only those are woken again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.wait import wait_for
from tools.freezing import Frozen, is_stopped

SOON_S = 10.0


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes with nothing to do."""
    made = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield made
    for one in made:
        one.kill()
        one.wait()


def test_all_of_a_set_are_stopped_and_go_on(sleepers: list[subprocess.Popen[bytes]]) -> None:
    frozen = Frozen()
    pids = [one.pid for one in sleepers]
    frozen.stop_all("both", lambda: pids)
    assert all(map(is_stopped, pids))
    frozen.thaw()
    assert not any(map(is_stopped, pids))


def test_one_that_has_ended_is_passed_over(sleepers: list[subprocess.Popen[bytes]]) -> None:
    frozen = Frozen()
    first, second = (one.pid for one in sleepers)
    sleepers[0].kill()
    sleepers[0].wait()
    frozen.stop_all("both", lambda: [first, second])
    assert is_stopped(second)
    frozen.thaw()


def test_only_what_was_stopped_here_is_woken(sleepers: list[subprocess.Popen[bytes]]) -> None:
    mine, other = Frozen(), Frozen()
    first, second = (one.pid for one in sleepers)
    mine.stop([first])
    other.stop([second])
    wait_for(lambda: is_stopped(first) and is_stopped(second), SOON_S, "both are stopped")
    mine.thaw()
    assert is_stopped(second)
    other.thaw()
