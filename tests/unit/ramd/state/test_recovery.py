"""A group recovered from one member records that it is alone, once."""

from dataclasses import replace

from ramd.domain.model import ClusterState, Departure, Handover, Invitation
from ramd.state.apply import apply, apply_explained, refusal
from ramd.state.recovery import RecordRecovery
from tests.support.fake_consensus import cluster, member, reign


def record(survivor: int = 2) -> RecordRecovery:
    return RecordRecovery(
        cluster_id="c2", survivor=survivor, requested_by="api 127.0.0.1", at_unix_ms=7
    )


def test_the_survivor_is_alone_and_the_primary_is_wanted_there() -> None:
    before = replace(
        cluster(reign(1, 1), reign(2, 3, 2)),
        invitations=(Invitation(member=member(4), nonce="n", expires_unix_ms=9),),
        departures=(Departure(node_id=3),),
    )
    after = apply(before, record(), 9)
    assert [m.node_id for m in after.members] == [2]
    assert (after.cluster_id, after.changed_unix_ms) == ("c2", 7)
    assert (after.invitations, after.departures) == ((), ())
    assert after.handover == Handover(
        epoch=2,
        target=2,
        requested_by="api 127.0.0.1",
        operation="quorum recover",
        accept_loss=True,
    )
    assert after.reigns == before.reigns
    last = after.decisions[-1]
    assert (last.rule, last.actor) == ("quorum_recovered", "api 127.0.0.1")
    assert last.reason == "node 2 goes on alone; given up: node1, node3"
    assert last.details == ("the group before was c1",)


def test_a_survivor_that_is_primary_stays_it() -> None:
    after = apply(cluster(reign(1, 2)), record(), 9)
    assert after.handover is None
    assert after.reign is not None
    assert after.reign.node_id == 2


def test_without_a_primary_nobody_is_asked_for() -> None:
    assert apply(cluster(), record(), 9).handover is None


def test_it_is_recorded_once_and_only_for_a_member() -> None:
    alone = apply(cluster(reign(1, 1)), record(), 9)
    assert refusal(alone, record()) == "the group is the one that is recorded"
    assert apply_explained(alone, record(), 10).state.decisions == alone.decisions
    assert refusal(cluster(), record(7)) == "node 7 is not a member"
    assert refusal(cluster(), replace(record(), cluster_id="")) != ""
    assert refusal(ClusterState(), record()) == "there is no cluster"
    only = cluster(members=1)
    assert "given up: nobody" in apply(only, record(1), 9).decisions[-1].reason
    by_rule = apply(only, replace(record(1), requested_by=""), 9)
    assert by_rule.decisions[-1].actor == "policy"
