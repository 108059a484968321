"""What a resumed epoch and the phases of a change of primary do to the replicated state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramd.domain.lsn import Lsn
from ramd.domain.model import (
    ClusterState,
    DecisionRecord,
    Handover,
    Member,
    Phase,
    Reign,
    StartMode,
)
from ramd.state.apply import apply_explained, apply_grant_explained
from ramd.state.commands import GrantPayload
from ramd.state.phases import PHASES_MAX, RecordPhases, granted_record

PHASES = (Phase(name="drain", ms=4), Phase(name="total", ms=9))


def member(node_id: int) -> Member:
    return Member(
        node_id=node_id,
        name=f"n{node_id}",
        hostname="h",
        postgresql_port=1,
        raft_port=2,
        http_port=3,
    )


FIRST = Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN)
SECOND = Reign(
    epoch=2,
    node_id=2,
    timeline=2,
    start=StartMode.PROMOTE,
    parent_timeline=1,
    fork_lsn=Lsn(500),
    seal_lsn=Lsn(510),
)
STATE = ClusterState(
    cluster_id="c",
    members=(member(1), member(2)),
    system_id="s",
    reigns=(FIRST, SECOND),
    timeline_high=2,
    handover=Handover(epoch=2, target=1),
    failover_count=1,
)


def grant(reign: Reign) -> GrantPayload:
    record = DecisionRecord(epoch=reign.epoch, rule="r", action="GrantTo", reason="r")
    return GrantPayload(reign=reign, record=record)


def resumed(**changes: object) -> Reign:
    again = replace(SECOND, epoch=3, start=StartMode.RESUME, fork_lsn=None, since_unix_ms=7)
    return replace(again, **changes)  # type: ignore[arg-type]


def test_a_resumed_epoch_keeps_everything_that_lineage_is_judged_by() -> None:
    lying = resumed(parent_timeline=9, seal_lsn=Lsn(1))
    done = apply_grant_explained(STATE, 2, 3, grant(lying), 1)
    assert done.refusal == ""
    after = done.state
    assert after.reign == replace(SECOND, epoch=3, start=StartMode.RESUME, since_unix_ms=7)
    assert (after.timeline_high, after.failover_count, after.handover) == (2, 1, None)
    again = replace(SECOND, epoch=4, start=StartMode.RESUME)
    assert apply_grant_explained(after, 2, 4, grant(again), 2).refusal == ""


def test_the_first_epoch_may_resume_too() -> None:
    first = replace(STATE, reigns=(FIRST,), timeline_high=1, handover=None)
    again = replace(FIRST, epoch=2, start=StartMode.RESUME)
    done = apply_grant_explained(first, 1, 2, grant(again), 1)
    assert done.refusal == ""
    assert done.state.reign == again


@pytest.mark.parametrize(
    ("state", "reign", "why"),
    [
        (STATE, resumed(node_id=1), "does not hold the present epoch"),
        (STATE, resumed(timeline=3), "is on timeline 2"),
        (replace(STATE, reigns=(FIRST, replace(SECOND, fork_lsn=None))), resumed(), "not recorded"),
        (replace(STATE, reigns=()), resumed(epoch=1), "does not hold the present epoch"),
    ],
)
def test_nothing_else_resumes(state: ClusterState, reign: Reign, why: str) -> None:
    done = apply_grant_explained(state, reign.node_id, reign.epoch, grant(reign), 1)
    assert why in done.refusal
    assert done.state == replace(state, applied_index=1)


def test_of_two_grants_of_one_epoch_the_first_counts() -> None:
    """Attacks C11: the target and the old primary cannot both have it."""
    promoted = Reign(
        epoch=3, node_id=1, timeline=3, start=StartMode.PROMOTE, parent_timeline=2, seal_lsn=Lsn(9)
    )
    for first, second in ((promoted, resumed()), (resumed(), promoted)):
        one = apply_grant_explained(STATE, first.node_id, 3, grant(first), 1)
        two = apply_grant_explained(one.state, second.node_id, 3, grant(second), 2)
        assert one.refusal == ""
        assert "does not follow" in two.refusal
        assert two.state.reign is not None
        assert two.state.reign.node_id == first.node_id


def test_phases_stand_beside_the_decision_once() -> None:
    state = apply_grant_explained(STATE, 2, 3, grant(resumed()), 1).state
    done = apply_explained(state, RecordPhases(epoch=3, phases=PHASES), 2)
    record = granted_record(done.state, 3)
    assert done.refusal == ""
    assert record is not None
    assert record.phases == PHASES
    again = apply_explained(done.state, RecordPhases(epoch=3, phases=PHASES[:1]), 3)
    assert "are recorded" in again.refusal
    assert granted_record(again.state, 3) == record


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (RecordPhases(epoch=2, phases=PHASES), "does not reach back"),
        (RecordPhases(epoch=3, phases=()), "1 to 16"),
        (RecordPhases(epoch=3, phases=PHASES * PHASES_MAX), "1 to 16"),
    ],
)
def test_other_phases_change_nothing(command: RecordPhases, why: str) -> None:
    state = apply_grant_explained(STATE, 2, 3, grant(resumed()), 1).state
    done = apply_explained(state, command, 2)
    assert why in done.refusal
    assert done.state.decisions == state.decisions
