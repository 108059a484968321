"""The decision as a whole: total, deterministic, and never against the safety rules."""

from dataclasses import replace

import pytest
from hypothesis import Phase, event, find, given, settings
from hypothesis import strategies as st

from ramd.domain.decision import (
    ClusterView,
    DropHandover,
    GrantTo,
    Hold,
    Memory,
    Seal,
)
from ramd.domain.lsn import LSN_MAX, Lsn
from ramd.domain.model import ClusterState, DecisionRecord, Reign, Removal, StartMode
from ramd.policy.decide import LOOK_AGAIN_NS, decide
from ramd.policy.explain import action_text, explain, rule_table
from ramd.policy.lineage import Kind, standing
from ramd.policy.memory import remember
from ramd.policy.picture import movable
from ramd.policy.rules import RULES
from ramd.state.apply import grant_refusal
from ramd.state.commands import GrantPayload
from tests.unit.ramd.policy.views import (
    LED,
    MS,
    NOW_NS,
    VIEWS,
    attempts,
    healthy,
    member,
    view,
)

MANY = settings(max_examples=150)


# --- rules in which nothing happens ------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "rule"),
    [
        (view(ClusterState()), "unformed"),
        (view(replace(LED, removal=Removal(remove_data=False))), "being_removed"),
        (view(LED, ready=False), "coordinator_not_ready"),
        (view(ClusterState(cluster_id="c")), "first_primary_waits"),
    ],
)
def test_nothing_happens_and_nobody_is_told_anything(seen: ClusterView, rule: str) -> None:
    decision = decide(seen)
    assert (decision.rule, decision.action) == (rule, Hold(follow=False))


# --- properties --------------------------------------------------------------------------------


@MANY
@given(VIEWS)
def test_any_view_gets_exactly_one_decision_and_the_same_one(seen: ClusterView) -> None:
    decision = decide(seen)
    assert decision == decide(replace(seen, heard=dict(reversed(seen.heard.items()))))
    assert decision.rule in {rule.name for rule in RULES}
    assert decision.reason
    assert decision.wake_at_ns is not None
    assert seen.now_ns < decision.wake_at_ns <= seen.now_ns + LOOK_AGAIN_NS
    explanation = explain(seen)
    assert explanation.decision == decision
    assert all(explanation.lines)


@MANY
@given(st.one_of(VIEWS, attempts()))
def test_the_epoch_moves_only_when_it_may_and_only_by_one(seen: ClusterView) -> None:
    action = decide(seen).action
    if isinstance(action, GrantTo):
        assert action.epoch == seen.state.epoch + 1 or not seen.state.reigns
        assert not seen.state.reigns or movable(seen)
        if action.start is StartMode.OPEN:
            assert not seen.state.system_id or not seen.state.reigns
    if isinstance(action, Seal):
        assert (action.attempt.term, action.attempt.number) == (seen.term, seen.next_attempt)
        assert action.epoch == seen.state.epoch


@MANY
@given(attempts())
def test_an_election_keeps_its_promises(seen: ClusterView) -> None:
    """The winner lives, has reported under this very attempt, is on the line, and holds the most
    of all who are fit; what the next epoch is called was never named before."""
    decision = decide(seen)
    event(decision.rule)
    if not isinstance(decision.action, GrantTo):
        return
    action, reigns = decision.action, seen.state.reigns
    winner = seen.heard[action.node_id]
    report = winner.observation.sealed
    assert report is not None
    assert seen.sealing is not None
    assert report.attempt == seen.sealing.attempt
    assert seen.now_ns - winner.received_ns <= seen.silent_after_ns
    assert action.parent_timeline == report.position.timeline
    assert (action.seal_lsn or 0) <= report.position.lsn
    if report.position.timeline == reigns[-1].timeline:
        assert action.seal_lsn == report.position.lsn
    assert standing(reigns, report.position).kind is not Kind.DIVERGED
    assert action.timeline == seen.state.timeline_high + 1
    former = reigns[-1].node_id
    if action.node_id != former:
        fit = [v for v in decision.candidates if v.eligible and v.node_id != former]
        whole = seen.lease.release_lsn if seen.state.handover else None
        best = max(v.lsn or 0 for v in fit)
        assert action.seal_lsn == best or (action.seal_lsn or 0) >= (whole or LSN_MAX)
    payload = GrantPayload(
        reign=Reign(
            epoch=action.epoch,
            node_id=action.node_id,
            timeline=action.timeline,
            start=action.start,
            parent_timeline=action.parent_timeline,
            seal_lsn=action.seal_lsn,
        ),
        record=DecisionRecord(epoch=action.epoch, rule="r", action="a", reason="r"),
    )
    assert grant_refusal(seen.state, action.node_id, action.epoch, payload) == ""


@pytest.mark.parametrize("rule", ["promote_best", "restart_in_place", "nobody_eligible"])
def test_elections_do_happen_in_these_views(rule: str) -> None:
    """Else the property above would say nothing."""
    quick = settings(phases=[Phase.generate], max_examples=2000)
    seen = find(attempts(), lambda seen: decide(seen).rule == rule, settings=quick)
    assert decide(seen).rule == rule


@MANY
@given(VIEWS)
def test_memory_never_forgets_an_epoch_that_was_served(seen: ClusterView) -> None:
    later = remember(seen)
    assert later.served_epoch >= seen.memory.served_epoch
    assert (
        later.serving_since_ns is None
        or later.serving_since_ns <= seen.now_ns
        or (later.serving_since_ns == seen.memory.serving_since_ns)
    )


# --- memory ------------------------------------------------------------------------------------


def test_serving_is_remembered_without_a_gap() -> None:
    first = remember(healthy())
    known = Memory(served_epoch=1, epoch=1, epoch_since_ns=NOW_NS, primary_lsn=Lsn(500))
    assert first == replace(known, serving_since_ns=NOW_NS, heard_since_ns=NOW_NS)
    later = remember(healthy(now_ns=NOW_NS + MS, memory=first))
    assert later == first
    gap = remember(healthy(now_ns=NOW_NS + 9000 * MS, memory=first))
    assert gap == known


def test_a_holder_that_was_silent_is_heard_anew() -> None:
    first = remember(healthy())
    silent = remember(healthy(now_ns=NOW_NS + 2001 * MS, memory=first))
    assert silent.heard_since_ns is None
    again = remember(healthy(now_ns=NOW_NS + MS, memory=silent))
    assert again.heard_since_ns == NOW_NS + MS
    assert remember(healthy(memory=replace(again, epoch=0))).heard_since_ns == NOW_NS


def test_a_new_epoch_begins_to_serve_anew() -> None:
    old = Memory(served_epoch=0, serving_since_ns=5)
    assert remember(healthy(memory=old)).serving_since_ns == NOW_NS


# --- words -------------------------------------------------------------------------------------


def test_every_action_has_words() -> None:
    assert action_text(DropHandover(epoch=4)) == "cancel the handover of epoch 4"
    assert action_text(Hold(follow=False)) == "change nothing"


def test_an_explanation_without_a_primary_judges_nobody() -> None:
    explanation = explain(view(ClusterState(cluster_id="c", members=(member(1),))))
    assert explanation.verdicts == ()
    assert explanation.if_lost is None


def test_an_explanation_tells_who_would_take_over() -> None:
    assert explain(healthy()).if_lost == 2
    assert "would be promoted" in explain(healthy()).lines[-1]


def test_rule_names_are_unique_and_all_in_the_table() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    table = rule_table()
    assert all(f"| `{name}` |" in table for name in names)
    assert all(rule.condition and rule.effect and rule.because for rule in RULES)
