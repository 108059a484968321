"""How a planned failover is refused, answered, and told when it was cancelled or undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import pytest

from ramd.domain.decision import ClusterView, LeaseView
from ramd.domain.errors import EndedOtherwise, Moved, RamdError, Refused, Unavailable
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
    first: Handover | None = None
    """What somebody else asked for at the same moment."""
    silent_s: float = 0.0
    """For how long nobody was heard."""
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
        state = replace(self.picture.state, handover=self.first or request.handover)
        self.picture = replace(self.picture, state=state)

    def view(self) -> ClusterView:
        now_ns = stories.NOW_NS + int(self.silent_s * stories.SECOND_NS)
        return ClusterView(
            now_ns=now_ns,
            me=1,
            term=1,
            coordinator_since_ns=0,
            started_ns=0,
            state=self.picture.state,
            heard={h.observation.node_id: h for h in self.picture.heard},
            lease=LeaseView(may_move_at_ns=now_ns + 3 * stories.SECOND_NS),
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
    (asked,) = group.asked
    assert asked.operation
    assert replace(asked, operation="") == Handover(
        epoch=1, target=2, requested_by="me", accept_loss=True
    )


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
async def test_another_node_than_the_one_asked_for_is_no_success() -> None:
    """Node 3 was asked for and lost on the way; an ordinary failover chose node 2."""
    with pytest.raises(EndedOtherwise, match="node 2 is primary now, in epoch 2, not node 3: why"):
        await move_primary(Group(later=[moved()]).desk(), FailoverRequest(target=3), timeout_s=5)
    unknown = moved()
    unknown = replace(unknown, state=replace(unknown.state, decisions=()))
    with pytest.raises(EndedOtherwise, match=r"not node 3$") as caught:
        await move_primary(Group(later=[unknown]).desk(), FailoverRequest(target=3), timeout_s=5)
    error = caught.value
    assert error.code == "other_node_promoted"
    assert error.moved == Moved(target_node=3, old_primary=1, new_primary=2, epoch=2)


@virtual
@pytest.mark.parametrize(("target", "whom"), [(2, "node 2"), (None, "any node")])
async def test_of_two_at_the_same_moment_the_second_is_refused(
    target: int | None, whom: str
) -> None:
    """Also if it asks for the very same: the answer to the first is nobody else's."""
    first = Handover(epoch=1, target=target, requested_by="me", operation="the first")
    group = Group(first=first, later=[moved()])
    with pytest.raises(Refused, match=f"to {whom}, asked for by me, is under way") as refused:
        await move_primary(group.desk(), FailoverRequest(target=target, actor="me"), timeout_s=5)
    assert refused.value.code == "busy"


@virtual
async def test_a_target_that_was_not_heard_lately_is_refused_before_anything_is_asked() -> None:
    """It may have died, and is not silent for long enough to be known as dead."""
    group = Group(silent_s=1.5)
    with pytest.raises(Refused, match=r"node 3 was not heard for \d{4} ms") as refused:
        await move_primary(group.desk(), FailoverRequest(target=3), timeout_s=5)
    error = refused.value
    assert (error.code, error.field, error.hint) == (
        "no_candidate", "target_node", "accepted now: node 2",
    )  # fmt: skip
    assert [one.node_id for one in error.obstacles] == [3]
    assert group.asked == []
    group.later = [moved()]
    await move_primary(group.desk(), FailoverRequest(target=2, accept_loss=True), timeout_s=5)


@virtual
async def test_a_target_that_is_heard_in_time_is_waited_for() -> None:
    group = Group(silent_s=1.5)
    desk = group.desk()

    async def until(check: Callable[[], T | None]) -> T:
        if group.silent_s:
            assert check() is None
            await elapse(0.5)
            group.silent_s = 0.0
            group.later = [moved()]
        return await desk.until(check)

    waiting = replace(desk, until=until)
    result = await move_primary(waiting, FailoverRequest(target=2), timeout_s=5)
    assert result.new_primary == 2


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
