"""Values of the fence, and the fence that is none."""

from __future__ import annotations

import pytest

from ramd.domain.consensus import GroupStatus
from ramd.domain.fence import FenceCounts, NoFence, Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import Position

STATUS = GroupStatus(
    me=1,
    coordinator=None,
    is_coordinator=False,
    ready=False,
    term=0,
    commit_index=0,
    applied_index=0,
    has_quorum=False,
)


def test_position_is_the_end_of_all_that_is_held() -> None:
    replica = Pulse(
        at_ns=1, in_recovery=True, timeline=3, received_lsn=Lsn(20), replayed_lsn=Lsn(30)
    )
    assert replica.position == Position(timeline=3, lsn=Lsn(30))
    primary = Pulse(at_ns=1, in_recovery=False, timeline=3, insert_lsn=Lsn(40))
    assert primary.position == Position(timeline=3, lsn=Lsn(40))


def test_position_is_unknown_rather_than_zero() -> None:
    assert Pulse(at_ns=1, in_recovery=True, timeline=3).position is None
    assert Pulse(at_ns=1, in_recovery=True, timeline=0, replayed_lsn=Lsn(5)).position is None


def test_counts_since_an_earlier_look() -> None:
    before = FenceCounts(refused_statements=1, dropped_acks=2, ended_sessions=3)
    now = FenceCounts(refused_statements=5, dropped_acks=2, ended_sessions=8, dropped_sync=1)
    more = FenceCounts(refused_statements=4, ended_sessions=5, dropped_sync=1)
    assert now.since(before) == more
    assert now.since(now) == FenceCounts()


def test_counts_of_a_page_that_was_made_again_are_all_new() -> None:
    before = FenceCounts(refused_statements=1, dropped_acks=2)
    assert FenceCounts(dropped_acks=1).since(before) == FenceCounts(dropped_acks=1)


def test_no_fence_guards_nothing() -> None:
    fence = NoFence()
    fence.prepare()
    assert not fence.bind(1)
    assert not fence.guards
    assert fence.start_number() == 0
    assert fence.pulse() is None
    assert fence.counts() == FenceCounts()
    fence.tell(STATUS, ClusterState(), (), 1)
    fence.beat(1)
    fence.shut(1)
    fence.unbind()
    fence.close()
    with pytest.raises(AssertionError):
        fence.publish(1, 1)
