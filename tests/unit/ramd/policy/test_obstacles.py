"""Every obstacle to a switchover is named, with what would be accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramd.domain.decision import ClusterView
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, Handover
from ramd.domain.observation import Heard, ServerState
from ramd.policy.obstacles import LAG_BYTES_MAX, fit_targets, obstacles
from tests.unit.ramd.policy.views import NOW_NS, healthy, heard, member, view

END = 1_000_000_000


def streaming(**changes: object) -> ClusterView:
    """Node 1 serves, 2 and 3 stream from it."""
    seen = {1: at(heard(1, primary=True), END), 2: up(heard(2)), 3: up(heard(3))}
    return healthy(heard=seen, **changes)


def at(one: Heard, lsn: int) -> Heard:
    seen = one.observation
    assert seen.position is not None
    return replace(one, observation=replace(seen, position=replace(seen.position, lsn=Lsn(lsn))))


def up(one: Heard, *, lsn: int = END, upstream: int | None = 1) -> Heard:
    return at(replace(one, observation=replace(one.observation, upstream=upstream)), lsn)


def codes(found: tuple[object, ...]) -> list[str]:
    return [getattr(one, "code", "") for one in found]


def test_a_healthy_cluster_has_none() -> None:
    assert obstacles(streaming(), None, quorum=True) == ()
    assert obstacles(streaming(), 2, quorum=True) == ()
    assert fit_targets(streaming()) == (2, 3)


def test_all_of_them_are_told_at_once() -> None:
    busy = replace(streaming().state, handover=Handover(epoch=1, target=3))
    tagged = tuple(replace(m, nofailover=m.node_id == 2) for m in busy.members)
    seen = streaming(state=replace(busy, members=tagged))
    lagging = up(heard(2), lsn=END - LAG_BYTES_MAX - 1, upstream=None)
    seen = replace(seen, heard={**seen.heard, 2: lagging})
    found = obstacles(seen, 2, quorum=False)
    assert codes(found) == ["no_quorum", "busy", "no_candidate", "no_candidate", "no_candidate"]
    text = "; ".join(one.reason for one in found)
    for word in ("majority", "under way", "nofailover", "does not stream", "bytes behind"):
        assert word in text
    assert all(one.accepted for one in found)


@pytest.mark.parametrize(
    ("target", "code", "word"),
    [(9, "not_found", "no node 9"), (1, "conflict", "primary already")],
)
def test_a_target_that_cannot_be(target: int, code: str, word: str) -> None:
    (found,) = obstacles(streaming(), target, quorum=True)
    assert found.code == code
    assert word in found.reason
    assert found.accepted.endswith("node 2, 3")


def test_a_target_that_is_silent_or_stopped() -> None:
    silent = replace(heard(2), received_ns=NOW_NS - 10**12)
    (found,) = obstacles(
        replace(streaming(), heard={**streaming().heard, 2: silent}), 2, quorum=True
    )
    assert "is silent" in found.reason
    one = up(heard(2))
    stopped = replace(one, observation=replace(one.observation, state=ServerState.STOPPED))
    found2 = obstacles(
        replace(streaming(), heard={**streaming().heard, 2: stopped}), 2, quorum=True
    )
    assert "stopped" in found2[0].reason


def test_a_tag_is_told_beside_another_reason() -> None:
    state = streaming().state
    tagged = tuple(replace(m, nofailover=m.node_id == 2) for m in state.members)
    silent = replace(heard(2), received_ns=NOW_NS - 10**12)
    seen = streaming(state=replace(state, members=tagged))
    found = obstacles(replace(seen, heard={**seen.heard, 2: silent}), 2, quorum=True)
    assert [one.reason for one in found] == [
        "node 2 is silent",
        "node 2 is tagged nofailover",
    ]


def test_nobody_could_take_over() -> None:
    alone = streaming()
    alone = replace(alone, heard={1: alone.heard[1]})
    (found,) = obstacles(alone, None, quorum=True)
    assert found.code == "no_candidate"
    assert "node 2 was never heard; node 3 was never heard" in found.reason
    only = replace(alone, state=replace(alone.state, members=alone.state.members[:1]))
    (found,) = obstacles(only, None, quorum=True)
    assert found.reason.startswith("no node could take over: ")


def test_without_a_primary_there_is_nothing_to_move() -> None:
    none = view(ClusterState(cluster_id="c", members=(member(1), member(2))))
    assert codes(obstacles(none, 2, quorum=True)) == ["conflict"]
    assert fit_targets(none) == ()


def test_after_the_loss_of_the_primary_nobody_needs_to_stream() -> None:
    """A person who asks for it then gets the best there is."""
    seen = streaming()
    gone = replace(seen.heard[1], received_ns=NOW_NS - 10**12)
    lonely = up(heard(2), upstream=None)
    lost = replace(seen, heard={1: gone, 2: lonely})
    assert obstacles(lost, 2, quorum=True) == ()


def test_where_the_primary_is_unknown_nobody_is_behind() -> None:
    seen = streaming()
    blind = replace(seen.heard[1], observation=replace(seen.heard[1].observation, position=None))
    assert obstacles(replace(seen, heard={**seen.heard, 1: blind}), 2, quorum=True) == ()
