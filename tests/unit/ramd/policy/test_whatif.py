"""What would happen: the real rules over a made-up view, which ends in a grant or in a wait."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from ramd.domain.decision import ClusterView, GrantTo, Hold, LeaseView
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import Position
from ramd.policy.explain import candidates
from ramd.policy.whatif import if_host_lost, if_server_crashed
from tests.unit.ramd.policy.views import LED, NOW_NS, VIEWS, healthy, heard, member, view


def granted(view_: ClusterView) -> tuple[int | None, int | None]:
    """(if the server crashed, if the host were lost)."""
    found = []
    for decision in (if_server_crashed(view_), if_host_lost(view_)):
        assert decision is not None
        action = decision.action
        found.append(action.node_id if isinstance(action, GrantTo) else None)
    return (found[0], found[1])


def everyone() -> ClusterView:
    seen = {1: heard(1, primary=True), 2: heard(2, upstream=1), 3: heard(3, upstream=1)}
    return healthy(heard=seen)


def test_the_best_replica_would_take_over() -> None:
    preferred = replace(
        LED, members=tuple(replace(m, priority=90 if m.node_id == 3 else 50) for m in LED.members)
    )
    assert granted(replace(everyone(), state=preferred)) == (3, 3)
    crash = if_server_crashed(everyone())
    assert crash is not None
    assert "loses nothing" in crash.reason


def test_nobody_would_if_nobody_may() -> None:
    tagged = replace(LED, members=tuple(replace(m, nofailover=True) for m in LED.members))
    alone = replace(everyone(), state=tagged)
    assert granted(alone) == (None, None)
    lost = if_host_lost(alone)
    assert lost is not None
    assert isinstance(lost.action, Hold)
    assert "nofailover" in lost.reason


def test_failover_that_is_switched_off_would_wait_for_a_person() -> None:
    off = replace(LED, settings=replace(LED.settings, auto_failover_enabled=False))
    lost = if_host_lost(replace(everyone(), state=off))
    assert lost is not None
    assert lost.rule == "auto_failover_disabled"


def test_a_replica_that_is_silent_now_does_not_count() -> None:
    old = replace(heard(2, upstream=1), received_ns=NOW_NS - 10**13)
    seen = replace(everyone(), heard={1: heard(1, primary=True), 2: old})
    assert granted(seen) == (None, None)


def test_without_a_primary_there_is_nothing_to_lose() -> None:
    none = view(ClusterState(cluster_id="c", members=(member(1),)))
    assert if_server_crashed(none) is None
    assert if_host_lost(none) is None


def test_a_primary_that_was_never_heard_is_lost_already() -> None:
    seen = everyone()
    unheard = replace(
        seen, heard={n: seen.heard[n] for n in (2, 3)}, lease=LeaseView(may_move_at_ns=None)
    )
    assert if_server_crashed(unheard) == if_host_lost(unheard)


@settings(max_examples=150)
@given(VIEWS)
def test_it_always_ends(some: ClusterView) -> None:
    for decision in (if_server_crashed(some), if_host_lost(some)):
        assert (decision is None) == (some.state.reign is None)


def test_a_node_that_could_report_is_waited_for_and_then_passed_over() -> None:
    seen = everyone()
    mute = replace(
        seen.heard[2], observation=replace(seen.heard[2].observation, position=None, role=None)
    )
    lost = if_host_lost(replace(seen, heard={**seen.heard, 2: mute}))
    assert lost is not None
    assert isinstance(lost.action, GrantTo)
    assert lost.action.node_id == 3


def test_nodes_are_judged_as_candidates() -> None:
    assert [verdict.node_id for verdict in candidates(everyone())] == [2, 3, 1]
    assert candidates(view(ClusterState(cluster_id="c"))) == ()


def test_what_only_the_primary_has_would_be_fetched_first() -> None:
    behind = heard(2, upstream=1)
    at = Position(timeline=1, lsn=Lsn(10))
    behind = replace(behind, observation=replace(behind.observation, position=at))
    first = heard(1, primary=True)
    first = replace(first, observation=replace(first.observation, epoch_opened=1))
    view_ = replace(everyone(), heard={1: first, 2: behind})
    crash = if_server_crashed(view_)
    assert crash is not None
    assert "bytes from node 1 first; loses nothing" in crash.reason
    unknown = replace(first, observation=replace(first.observation, position=None))
    crash = if_server_crashed(replace(view_, heard={1: unknown, 2: behind}))
    assert crash is not None
    assert "its end is not known" in crash.reason
