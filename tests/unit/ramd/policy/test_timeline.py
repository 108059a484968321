"""How long each part took, by one clock, from the beats of one coordinator."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from ramd.domain.decision import ClusterView, LeaseView, SealAttempt
from ramd.domain.lsn import Lsn
from ramd.domain.model import Reign, StartMode
from ramd.domain.observation import Attempt, Heard, Position, SealReport, ServerState
from ramd.policy.timeline import Timeline, follow, granted
from tests.unit.ramd.policy.views import LED, MS, NOW_NS, VIEWS, healthy, heard

SECOND = Reign(epoch=2, node_id=2, timeline=2, start=StartMode.PROMOTE, parent_timeline=1)


def serving(node_id: int, now_ns: int, *, epoch: int) -> dict[int, Heard]:
    one = heard(node_id, primary=True)
    seen = replace(one.observation, epoch_opened=epoch, fenced=False)
    return {node_id: Heard(observation=seen, received_ns=now_ns)}


def beat(at_ms: int, **changes: object) -> ClusterView:
    return replace(healthy(), now_ns=NOW_NS + at_ms * MS, **changes)  # type: ignore[arg-type]


def crashed(at_ms: int) -> dict[int, Heard]:
    seen = replace(heard(1).observation, state=ServerState.CRASHED, role=None, accepting=False)
    return {1: Heard(observation=seen, received_ns=NOW_NS + at_ms * MS)}


def begun(at_ms: int) -> SealAttempt:
    under = Attempt(term=5, number=1)
    return SealAttempt(epoch=1, attempt=under, begun_ns=NOW_NS + at_ms * MS)


def after_grant(line: Timeline) -> dict[str, int]:
    """Epoch 2 is applied 10 ms after its grant at 300, and serves at 400."""
    moved = replace(LED, reigns=(*LED.reigns, SECOND), timeline_high=2)
    line = follow(line, beat(310, state=moved, heard={}))
    line = follow(line, beat(320, state=moved, heard={}))
    at_ns = NOW_NS + 400 * MS
    line = follow(line, beat(400, state=moved, heard=serving(2, at_ns, epoch=2)))
    told = line.due
    assert follow(line, beat(410, state=moved, heard=serving(2, at_ns, epoch=2))).due == ()
    return {phase.name: phase.ms for phase in told}


def opened() -> Timeline:
    line = follow(Timeline(), beat(0, heard=serving(1, NOW_NS, epoch=1)))
    assert line.due == ()
    return line


def test_a_crash_from_the_word_of_it_to_the_first_write() -> None:
    line = follow(opened(), beat(100, heard=crashed(100)))
    line = follow(line, beat(150, heard=crashed(100), sealing=begun(150)))
    line = follow(line, beat(200, heard=crashed(100), sealing=begun(150)))
    line = granted(line, beat(300, heard=crashed(100), sealing=begun(150)))
    assert after_grant(line) == {
        "detect": 50, "decide": 150, "grant": 10, "promote": 90, "total": 300,
    }  # fmt: skip


def test_silence_began_with_the_last_word() -> None:
    heard_at = serving(1, NOW_NS, epoch=1)
    line = follow(opened(), beat(3000, heard=heard_at))
    assert line.closed_ns == NOW_NS


def test_a_short_lease_ends_before_silence_counts_as_silence() -> None:
    """Its coordinator seals while the lost primary still counts as heard."""
    last_word = serving(1, NOW_NS, epoch=1)
    out = LeaseView(may_move_at_ns=NOW_NS + 250 * MS)
    line = follow(opened(), beat(200, heard=last_word, lease=out))
    assert line.open_ns == NOW_NS + 200 * MS
    line = follow(line, beat(250, heard=last_word, lease=out))
    line = follow(line, beat(260, heard=last_word, lease=out, sealing=begun(250)))
    line = granted(line, beat(300, heard=last_word, lease=out, sealing=begun(250)))
    assert after_grant(line) == {
        "detect": 260, "decide": 40, "grant": 10, "promote": 90, "total": 400,
    }  # fmt: skip


def test_a_coordinator_elected_under_a_seal_knows_of_it_from_those_who_report() -> None:
    order = SealReport(
        epoch=1, attempt=Attempt(term=4, number=1), position=Position(timeline=1, lsn=Lsn(1))
    )
    sealed = Heard(observation=replace(heard(2).observation, sealed=order), received_ns=NOW_NS)
    line = follow(opened(), beat(100, heard=crashed(100)))
    line = follow(line, beat(150, heard=crashed(100) | {2: sealed}))
    assert after_grant(line) == {"detect": 50, "grant": 160, "promote": 90, "total": 300}
    old = replace(order, epoch=0)
    stale = Heard(observation=replace(heard(2).observation, sealed=old), received_ns=NOW_NS)
    line = follow(opened(), beat(100, heard=crashed(100)))
    assert not follow(line, beat(150, heard=crashed(100) | {2: stale})).sealed_ns


def test_a_switchover_counts_from_the_fence() -> None:
    spent = (("drain", 20), ("flush", 5), ("receive", 5))
    lease = LeaseView(may_move_at_ns=None, released=True, spent=spent)
    line = granted(opened(), beat(300, lease=lease))
    assert after_grant(line) == {
        "drain": 20, "flush": 5, "receive": 5, "decide": 0, "grant": 10, "promote": 90,
        "total": 130,
    }  # fmt: skip


def test_what_was_not_seen_is_left_out() -> None:
    moved = replace(LED, reigns=(*LED.reigns, SECOND), timeline_high=2)
    at_ns = NOW_NS + 400 * MS
    fresh = follow(Timeline(), beat(400, state=moved, heard=serving(2, at_ns, epoch=2)))
    assert fresh.due == ()
    # It saw the epoch begin, but never the one before being served.
    late = follow(Timeline(epoch=1), beat(300, heard={}))
    late = follow(late, beat(310, state=moved, heard={}))
    assert follow(late, beat(400, state=moved, heard=serving(2, at_ns, epoch=2))).due == ()


def test_an_epoch_that_moved_before_its_end_was_heard() -> None:
    """A new coordinator hears of the grant first: from the last beat in which it served."""
    moved = replace(LED, reigns=(*LED.reigns, SECOND), timeline_high=2)
    line = follow(opened(), beat(310, state=moved, heard={}))
    assert line.closed_ns == NOW_NS


@settings(max_examples=150)
@given(VIEWS)
def test_it_takes_any_view(some: ClusterView) -> None:
    line = follow(follow(Timeline(), some), some)
    assert line.epoch == some.state.epoch
    assert granted(line, some).granted_ns == some.now_ns
