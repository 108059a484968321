"""How a planned failover is refused, answered, and told when it was cancelled or undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import pytest

from ramd.domain.decision import ClusterView, LeaseView
from ramd.domain.errors import RamdError, Refused, Unavailable
from ramd.domain.model import ClusterState, DecisionRecord, Handover, Phase, Reign, StartMode
from ramd.domain.service import FailoverRequest, Snapshot
from ramd.runtime import Runtime
from ramd.state.commands import RequestHandover, decode
from ramd.switching import Desk, move_primary, moved_to, require_movable
from tests.api import stories
from tests.support.virtual_time import clock_ns, elapse, virtual

T = TypeVar("T")
PROMOTED = Reign(
    epoch=2, node_id=2, timeline=2, start=StartMode.PROMOTE, parent_timeline=1, fork_lsn=None
)


@dataclass
class Group:
    """A runtime as far as this use case looks at it. `later` is what the picture shows in order."""

    picture: Snapshot = field(default_factory=stories.healthy)
    quorum: bool = True
    asked: list[Handover] = field(default_factory=list)
    later: list[Snapshot] = field(default_factory=list)

    @property
    def state(self) -> ClusterState:
        return self.picture.state

    @property
    def status(self) -> object:
        group = self.picture.group
        assert group is not None
        return replace(group, has_quorum=self.quorum)

    @property
    def link(self) -> Group:
        return self

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        request = decode(command)
        assert isinstance(request, RequestHandover)
        self.asked.append(request.handover)
        state = replace(self.picture.state, handover=request.handover)
        self.picture = replace(self.picture, state=state)

    def view(self) -> ClusterView:
        return ClusterView(
            now_ns=stories.NOW_NS,
            me=1,
            term=1,
            coordinator_since_ns=0,
            started_ns=0,
            state=self.picture.state,
            heard={h.observation.node_id: h for h in self.picture.heard},
            lease=LeaseView(may_move_at_ns=stories.NOW_NS + 3 * stories.SECOND_NS),
        )

    def desk(self) -> Desk:
        group = self

        async def until(check: Callable[[], T | None]) -> T:
            while (found := check()) is None:
                await elapse(0.05)
                if group.later:
                    group.picture = group.later.pop(0)
            return found

        return Desk(
            runtime=cast(Runtime, self),
            picture=lambda: group.picture,
            until=until,
            now_ns=clock_ns,
        )


def moved(start: StartMode = StartMode.PROMOTE, *, phases: bool = True) -> Snapshot:
    """Node 2 serves in epoch 2, or node 1 has resumed in it."""
    healthy = stories.healthy()
    node = 2 if start is StartMode.PROMOTE else 1
    reign = replace(PROMOTED, start=start, node_id=node)
    record = DecisionRecord(
        epoch=2,
        rule="switchover",
        action="GrantTo",
        reason="why it was",
        phases=(Phase(name="drain", ms=3), Phase(name="total", ms=90)) if phases else (),
    )
    state = replace(healthy.state, reigns=(*healthy.state.reigns, reign), decisions=(record,))
    seen = replace(stories.primary_seen(2), epoch_opened=2)
    heard = tuple(stories.heard(seen) if h.observation.node_id == 2 else h for h in healthy.heard)
    return replace(healthy, state=state, heard=heard)


@virtual
async def test_answer_tells_what_the_time_went_to() -> None:
    group = Group(later=[moved(phases=False), moved()])
    result = await move_primary(
        group.desk(), FailoverRequest(target=2, actor="me", accept_loss=True), timeout_s=5
    )
    assert (result.old_primary, result.new_primary, result.epoch) == (1, 2, 2)
    assert (result.outage_ms, result.phases) == (90, (("drain", 3), ("total", 90)))
    assert group.asked == [Handover(epoch=1, target=2, requested_by="me", accept_loss=True)]


@virtual
async def test_answer_does_not_wait_for_a_timeline_that_never_comes() -> None:
    group = Group(later=[moved(phases=False)])
    result = await move_primary(group.desk(), FailoverRequest(), timeout_s=5)
    assert (result.new_primary, result.outage_ms, result.phases) == (2, None, ())


@virtual
async def test_a_successor_that_was_lost_at_once_is_no_success() -> None:
    """The old primary was promoted again, by an ordinary failover."""
    back = moved()
    reigns = (*back.state.reigns[:-1], replace(back.state.reigns[-1], node_id=1))
    seen = replace(stories.primary_seen(1), epoch_opened=2)
    heard = tuple(stories.heard(seen) if h.observation.node_id == 1 else h for h in back.heard)
    again = replace(back, state=replace(back.state, reigns=reigns), heard=heard)
    for picture, words in (
        (again, "is primary again, in epoch 2: why it was"),
        (replace(again, state=replace(again.state, decisions=())), "is primary again, in epoch 2"),
    ):
        with pytest.raises(Refused, match=words) as refused:
            await move_primary(Group(later=[picture]).desk(), FailoverRequest(), timeout_s=5)
        assert refused.value.code == "no_candidate"


@virtual
async def test_one_that_does_not_end_is_unknown() -> None:
    with pytest.raises(RamdError) as caught:
        await move_primary(Group().desk(), FailoverRequest(), timeout_s=1)
    assert caught.value.code == "unknown_outcome"


def test_every_obstacle_is_in_the_refusal_and_nothing_is_asked() -> None:
    group = Group()
    with pytest.raises(Refused) as refused:
        require_movable(cast(Runtime, group), 1)
    error = refused.value
    assert (error.code, error.field, error.hint) == (
        "conflict", "target_node", "accepted now: node 2, 3",
    )  # fmt: skip
    assert [one.node_id for one in error.obstacles] == [1]
    group.quorum = False
    with pytest.raises(Unavailable) as unavailable:
        require_movable(cast(Runtime, group), 1)
    assert unavailable.value.code == "no_quorum"
    assert len(unavailable.value.obstacles) == 2
    assert group.asked == []


def test_at_any_price_nobody_fit_is_no_obstacle() -> None:
    group = Group()
    alone = tuple(h for h in group.picture.heard if h.observation.node_id == 1)
    group.picture = replace(group.picture, heard=alone)
    with pytest.raises(Refused) as refused:
        require_movable(cast(Runtime, group), None)
    assert refused.value.code == "no_candidate"
    assert refused.value.hint.startswith("needed: ")
    require_movable(cast(Runtime, group), None, at_any_price=True)


def test_how_it_ended() -> None:
    healthy = stories.healthy()
    asked = replace(healthy, state=replace(healthy.state, handover=Handover(epoch=1, target=2)))
    assert moved_to(asked, 1) is None
    with pytest.raises(Refused, match="was cancelled: cancelled"):
        moved_to(healthy, 1)
    record = DecisionRecord(epoch=1, rule="r", action="CancelHandover", reason="nobody left")
    cancelled = replace(healthy, state=replace(healthy.state, decisions=(record,)))
    with pytest.raises(Refused, match="nobody left"):
        moved_to(cancelled, 1)
    with pytest.raises(Refused, match="why it was"):
        moved_to(moved(StartMode.RESUME), 1)
    bare = moved(StartMode.RESUME)
    with pytest.raises(Refused, match="was undone"):
        moved_to(replace(bare, state=replace(bare.state, decisions=())), 1)
    assert moved_to(moved(), 1) == 2
    deaf = moved()
    assert moved_to(replace(deaf, heard=deaf.heard[:1]), 1) is None
