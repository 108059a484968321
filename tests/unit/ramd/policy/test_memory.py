"""What is remembered from beat to beat, and the pause before a further restart in place."""

from __future__ import annotations

from dataclasses import replace

from ramd.domain.decision import ClusterView, LeaseView, Memory
from ramd.policy.memory import (
    PAUSE_FIRST_NS,
    PAUSE_MAX_NS,
    QUICK_NS,
    remember,
    restart_pause_ns,
)
from tests.support.fake_consensus import cluster, reign

S = 1_000_000_000


def view(holders: list[int], at_s: float, memory: Memory) -> ClusterView:
    reigns = [reign(epoch, node) for epoch, node in enumerate(holders, start=1)]
    return ClusterView(
        now_ns=round(at_s * S),
        me=3,
        term=5,
        coordinator_since_ns=0,
        started_ns=0,
        state=cluster(*reigns),
        heard={},
        lease=LeaseView(may_move_at_ns=None),
        memory=memory,
    )


def told(*story: tuple[list[int], float]) -> ClusterView:
    """The last view of a story of (holders of all epochs so far, seconds)."""
    memory = Memory()
    for holders, at_s in story:
        seen = view(holders, at_s, memory)
        memory = remember(seen)
    return replace(seen, memory=memory)


def test_a_first_end_waits_for_nothing() -> None:
    assert restart_pause_ns(told(([], 0))) == 0
    assert restart_pause_ns(told(([1], 0), ([1], 1))) == 0


def test_a_server_that_ends_soon_after_its_restart_in_place_waits() -> None:
    assert restart_pause_ns(told(([1], 0), ([1, 1], 100), ([1, 1], 101))) == PAUSE_FIRST_NS


def test_each_quick_end_doubles_the_pause_up_to_a_bound() -> None:
    story = [([1] * n, n * 5.0) for n in range(1, 20)]
    assert restart_pause_ns(told(*story[:3])) == 2 * PAUSE_FIRST_NS
    assert restart_pause_ns(told(*story[:4])) == 4 * PAUSE_FIRST_NS
    assert restart_pause_ns(told(*story)) == PAUSE_MAX_NS


def test_a_restart_that_holds_is_forgiven() -> None:
    long_s = QUICK_NS / S + 1
    assert restart_pause_ns(told(([1], 0), ([1, 1], 5), ([1, 1], 5 + long_s))) == 0


def test_another_primary_forgives() -> None:
    story = told(([1], 0), ([1, 1], 5), ([1, 1, 1], 10), ([1, 1, 1, 2], 15), ([1, 1, 1, 2], 16))
    assert restart_pause_ns(story) == 0


def test_an_epoch_whose_beginning_was_not_seen_counts_from_when_it_was() -> None:
    assert restart_pause_ns(view([1, 1], 50, Memory())) == 0
