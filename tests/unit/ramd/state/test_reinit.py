"""A copy is made anew by order: what is recorded, what is refused, and what ends the order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramd.domain.model import (
    ClusterState,
    DecisionRecord,
    Departure,
    Handover,
    Reign,
    Reinit,
    Removal,
    StartMode,
)
from ramd.state.apply import apply, apply_grant, refusal
from ramd.state.commands import GrantPayload
from ramd.state.member_commands import DropMember
from ramd.state.recovery import RecordRecovery
from ramd.state.reinit import EndReinit, OrderReinit
from tests.support.fake_consensus import cluster, reign

LED = cluster(reign(1, 1))
ORDER = Reinit(node_id=2, copy="2a", requested_by="api")
ORDERED = apply(LED, OrderReinit(reinit=ORDER, at_unix_ms=5), 20)


def test_an_order_stands_until_it_is_ended() -> None:
    assert ORDERED.reinit(2) == ORDER
    assert ORDERED.reinit(3) is None
    record = ORDERED.decisions[-1]
    assert (record.rule, record.actor, record.at_unix_ms) == ("reinit_ordered", "api", 5)
    assert record.details == ("the copy that is to go: 2a",)
    done = apply(ORDERED, EndReinit(node_id=2, copy="2a", reason="done", at_unix_ms=9), 21)
    assert done.reinits == ()
    record = done.decisions[-1]
    assert (record.rule, record.reason, record.actor) == ("reinit_ended", "done", "api")


def test_a_later_order_takes_the_place_of_an_earlier_one() -> None:
    other = Reinit(node_id=3, copy="3a")
    both = apply(ORDERED, OrderReinit(reinit=other), 21)
    again = apply(both, OrderReinit(reinit=replace(ORDER, copy="2b")), 22)
    assert again.reinits == (other, replace(ORDER, copy="2b"))
    assert again.decisions[-2].actor == "policy"
    end = EndReinit(node_id=3, copy="3a", reason="done")
    assert apply(again, end, 23).decisions[-1].actor == "policy"


@pytest.mark.parametrize(
    ("state", "order", "why"),
    [
        (replace(LED, removal=Removal(remove_data=False)), ORDER, "is being destroyed"),
        (LED, replace(ORDER, node_id=9), "node 9 is not a member"),
        (replace(LED, reigns=()), ORDER, "no primary"),
        (LED, replace(ORDER, node_id=1), "node 1 is the primary: switch over"),
        (replace(LED, handover=Handover(epoch=1, target=2)), ORDER, "about to become primary"),
        (replace(LED, departures=(Departure(node_id=2),)), ORDER, "is being removed"),
        (LED, replace(ORDER, copy=""), "is not known"),
        (ORDERED, ORDER, "is being made anew already"),
    ],
)
def test_what_would_do_harm_is_refused(state: ClusterState, order: Reinit, why: str) -> None:
    command = OrderReinit(reinit=order)
    assert why in refusal(state, command)
    assert apply(state, command, 30).reinits == state.reinits


def test_only_the_very_order_is_ended() -> None:
    for command in (
        EndReinit(node_id=3, copy="2a", reason="done"),
        EndReinit(node_id=2, copy="2b", reason="done"),
    ):
        assert "no order stands" in refusal(ORDERED, command)


def test_whoever_becomes_primary_keeps_its_copy() -> None:
    """Else the order would throw the primary's own data out when it steps down later."""
    taken = Reign(epoch=2, node_id=2, timeline=2, start=StartMode.PROMOTE, parent_timeline=1)
    record = DecisionRecord(epoch=2, rule="r", action="a", reason="")
    later = apply_grant(ORDERED, 2, 2, GrantPayload(reign=taken, record=record), 21)
    assert later.epoch == 2
    assert later.reinits == ()
    other = replace(taken, node_id=3)
    later = apply_grant(ORDERED, 3, 2, GrantPayload(reign=other, record=record), 21)
    assert later.reinits == (ORDER,)


def test_an_order_goes_with_its_member() -> None:
    leaving = replace(ORDERED, departures=(Departure(node_id=2),))
    assert apply(leaving, DropMember(node_id=2), 21).reinits == ()
    alone = apply(ORDERED, RecordRecovery(cluster_id="new", survivor=1), 21)
    assert alone.reinits == ()
