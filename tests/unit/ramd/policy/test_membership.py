"""The coordinator's steps about members, each read off one picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramd.domain.decision import ClusterView, Voting
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, Departure, Invitation, Removal
from ramd.domain.observation import DataKind, Heard, Observation, Position, ServerRole, ServerState
from ramd.domain.sync import SyncMember, SyncRecord, SyncSet
from ramd.policy.candidates import foresee
from ramd.policy.decide import decide
from ramd.policy.membership import (
    BEHIND_BYTES_MAX,
    VOTERS_MAX,
    Admit,
    Drop,
    Keep,
    Reconfigure,
    Withdraw,
    next_step,
    removal_obstacle,
    stays_learner,
    vote_obstacle,
)
from ramd.policy.syncset import may_confirm
from tests.support.fake_consensus import cluster, member, reign
from tests.unit.ramd.policy.views import NOW_NS, view

NOW_MS = 1_000
END = 100_000_000
"""Where the primary's WAL ends."""


def seen(node_id: int, *, age_ms: int = 0, behind: int = 0, **changes: Any) -> Heard:
    """Node 1 is the primary; every other streams from it."""
    primary = node_id == 1
    facts: dict[str, Any] = {
        "node_id": node_id,
        "boot": 1,
        "taken_ns": 0,
        "data": DataKind.CLUSTER,
        "state": ServerState.RUNNING,
        "role": ServerRole.PRIMARY if primary else ServerRole.REPLICA,
        "position": Position(timeline=1, lsn=Lsn(END - behind)),
        "upstream": None if primary else 1,
    }
    observation = Observation(**(facts | changes))
    return Heard(observation=observation, received_ns=NOW_NS - age_ms * 1_000_000)


def picture(
    voters: tuple[int, ...] = (1, 2, 3),
    learners: tuple[int, ...] = (),
    *,
    silent: tuple[int, ...] = (),
    members: int = 3,
    **state: Any,
) -> ClusterView:
    """Node 1 leads, node 3 coordinates; everybody but `silent` has just been heard."""
    known = replace(cluster(reign(1, 1), system_id="7", members=members), **state)
    ids = [m.node_id for m in known.members]
    heard = {n: seen(n) for n in ids if n not in silent}
    voting = Voting(voters=voters, learners=learners, settled=True)
    return view(known, heard=heard, voting=voting)


def invitation(node_id: int = 4, replaces: int | None = None) -> Invitation:
    return Invitation(
        member=member(node_id), nonce="n", expires_unix_ms=NOW_MS + 1, replaces=replaces
    )


def step(of: ClusterView) -> object:
    return next_step(of, NOW_MS)


def test_a_settled_group_whose_list_agrees_needs_nothing() -> None:
    assert step(picture()) is None


def test_nothing_is_done_without_a_cluster_or_while_it_changes() -> None:
    waits = picture(invitations=(invitation(),), voters=(1, 2, 3, 4))
    assert step(waits) == Admit(invitation=invitation())
    unsettled = replace(waits.voting, settled=False)
    assert step(replace(waits, voting=unsettled)) is None
    assert step(replace(waits, state=ClusterState())) is None
    ending = replace(waits.state, removal=Removal(remove_data=False))
    assert step(replace(waits, state=ending)) is None


# --- joining ---------------------------------------------------------------------------------


def test_an_invited_node_becomes_a_member_when_it_has_joined_the_group() -> None:
    waits = picture(invitations=(invitation(),))
    assert step(waits) is None
    joined = replace(waits.voting, learners=(4,))
    assert step(replace(waits, voting=joined)) == Admit(invitation=invitation())


def test_an_invitation_that_has_run_out_is_withdrawn_unless_it_was_used() -> None:
    waits = picture(invitations=(invitation(),))
    late = NOW_MS + 1
    assert next_step(waits, late) == Withdraw(invitation=invitation())
    joined = replace(waits, voting=replace(waits.voting, learners=(4,)))
    assert next_step(joined, late) == Admit(invitation=invitation())


def test_a_learner_that_streams_and_has_caught_up_gets_a_vote() -> None:
    assert step(picture(learners=(4,), members=4)) == Reconfigure(promote=4)


@pytest.mark.parametrize(
    ("heard", "why"),
    [
        (seen(4, age_ms=60_000), "is not heard"),
        (seen(4, upstream=None), "does not stream from node 1"),
        (seen(4, state=ServerState.STARTING), "does not stream from node 1"),
        (seen(4, position=None), "how far is not known"),
        (seen(4, behind=BEHIND_BYTES_MAX + 1), "is behind: 16777217 bytes"),
    ],
)
def test_a_learner_that_is_behind_waits(heard: Heard, why: str) -> None:
    waits = picture(learners=(4,), members=4)
    waits.heard[4] = heard
    assert step(waits) is None
    assert why in vote_obstacle(waits, 4)


def test_the_primary_may_be_the_one_that_knows_who_streams() -> None:
    told = picture(learners=(4,), members=4)
    told.heard[4] = seen(4, upstream=None)
    told.heard[1] = seen(1, streaming_replicas=(4,))
    assert vote_obstacle(told, 4) == ""
    told.heard[4] = seen(4, behind=BEHIND_BYTES_MAX)
    assert vote_obstacle(told, 4) == ""
    del told.heard[1]
    assert "how far is not known" in vote_obstacle(told, 4)
    told.heard[1] = seen(1, position=None)
    assert "how far is not known" in vote_obstacle(told, 4)


def test_a_primary_without_a_vote_gets_one() -> None:
    odd = picture(voters=(2, 3), learners=(1,))
    assert step(odd) == Reconfigure(promote=1)
    without = replace(odd, state=replace(odd.state, reigns=()))
    assert vote_obstacle(without, 1) == ""


def test_seven_voters_are_the_most() -> None:
    seven = tuple(range(1, VOTERS_MAX + 1))
    full = picture(voters=seven, learners=(8,), members=8)
    assert step(full) is None
    assert "7 voters, which are the most: node 8 stays a learner" in vote_obstacle(full, 8)
    assert stays_learner(full) == (8,)
    unlisted = picture(voters=seven, learners=(8, 9), members=8)
    assert stays_learner(unlisted) == (8,)
    assert stays_learner(picture(learners=(4,), members=4)) == ()
    assert vote_obstacle(full, 3) == "node 3 votes already"
    assert vote_obstacle(full, 9) == "node 9 is not a member"


def test_coordination_is_not_handed_to_a_learner() -> None:
    def next_coordinator(learners: tuple[int, ...]) -> str:
        now = picture(voters=(1, 2, 3), learners=learners)
        serves = seen(1, accepting=True, epoch_opened=1)
        heard = {**now.heard, 1: serves}
        lease = replace(now.lease, may_move_at_ns=NOW_NS + 1_000_000_000)
        memory = replace(now.memory, served_epoch=1, serving_since_ns=0)
        return decide(replace(now, me=1, heard=heard, lease=lease, memory=memory)).reason

    assert next_coordinator(()).endswith("to node 2")
    assert next_coordinator((2,)).endswith("to node 3")


# --- leaving ---------------------------------------------------------------------------------


def leaving(node_id: int, successor: int | None = None) -> tuple[Departure, ...]:
    return (Departure(node_id=node_id, successor=successor),)


def test_who_leaves_goes_from_the_group_first_then_from_the_list() -> None:
    ordered = picture(departures=leaving(2))
    assert step(ordered) == Reconfigure(remove=2)
    gone = replace(ordered, voting=replace(ordered.voting, voters=(1, 3)))
    assert step(gone) == Drop(node_id=2)


def test_a_removal_that_would_break_the_group_is_given_up() -> None:
    broken = picture(departures=leaving(2), silent=(1,))
    found = step(broken)
    assert isinstance(found, Keep)
    assert found.reason == removal_obstacle(broken, 2)
    assert found.reason == (
        "without node 2 only 1 of 2 voters would be in touch (silent: node 1): remove a dead one"
        " instead"
    )


def test_what_stands_against_a_removal() -> None:
    dead = picture(silent=(2,))
    assert removal_obstacle(dead, 2) == ""
    assert "is the primary" in removal_obstacle(dead, 1)
    assert removal_obstacle(picture(voters=(1, 3)), 2) == ""  # only listed
    assert "only 1 of 2" in removal_obstacle(dead, 3)
    alone = picture(voters=(3,), learners=(1, 2))
    assert removal_obstacle(alone, 3) == "node 3 is the last voter"
    assert removal_obstacle(alone, 3, promoted=2) == ""
    assert removal_obstacle(alone, 2) == ""
    listener = picture(voters=(2, 3), learners=(4,), silent=(2,), members=4, reigns=())
    assert removal_obstacle(listener, 4) == ""  # takes no vote away


def test_a_replaced_node_waits_for_its_successor() -> None:
    waits = picture(learners=(4,), members=4, departures=leaving(2, 4), silent=(2,))
    assert step(waits) == Reconfigure(promote=4, remove=2)
    waits.heard[4] = seen(4, upstream=None)
    assert step(waits) is None


def test_a_full_group_lets_a_successor_in_for_whom_it_replaces() -> None:
    seven = tuple(range(1, VOTERS_MAX + 1))
    full = picture(voters=seven, learners=(8,), members=8, departures=leaving(2, 8))
    assert step(full) == Reconfigure(promote=8, remove=2)


def test_a_replaced_node_whose_successor_votes_already_goes() -> None:
    votes = picture(voters=(1, 2, 3, 4), members=4, departures=leaving(2, 4))
    assert step(votes) == Reconfigure(remove=2)


def test_a_node_whose_successor_is_gone_or_that_leads_stays() -> None:
    gone = picture(departures=leaving(2, 4))
    assert step(gone) == Keep(node_id=2, reason="node 4, which was to replace it, is gone")
    leads = picture(learners=(4,), members=4, departures=leaving(1, 4))
    found = step(leads)
    assert isinstance(found, Keep)
    assert "is the primary" in found.reason


def test_a_node_that_joined_while_it_was_uninvited_goes() -> None:
    stray = picture(learners=(4,))
    assert step(stray) == Reconfigure(remove=4)


def test_a_member_that_the_group_no_longer_knows_is_struck_off() -> None:
    listed = picture(voters=(1, 3), departures=leaving(2))
    assert step(listed) == Drop(node_id=2)


def test_a_learner_that_is_to_go_gets_no_vote() -> None:
    going = picture(learners=(4, 5), members=5, departures=leaving(4))
    assert step(going) == Reconfigure(remove=4)
    waiting = picture(learners=(4, 5), members=5, departures=leaving(2, 4))
    waiting.heard[4] = seen(4, upstream=None)
    assert step(waiting) == Reconfigure(promote=5)
    both = picture(learners=(4,), members=4, departures=leaving(4, 5))
    assert isinstance(step(both), Keep)


def test_who_is_being_removed_is_no_candidate() -> None:
    ordered = picture(departures=leaving(2))
    reasons = {v.node_id: v.reason for v in foresee(ordered).verdicts}
    assert reasons[2] == "is being removed"
    assert "holds WAL" in reasons[3]
    waits = picture(learners=(4,), members=4, departures=leaving(2, 4))
    reasons = {v.node_id: v.reason for v in foresee(waits).verdicts}
    assert "holds WAL" in reasons[2]
    changing = replace(waits, voting=replace(waits.voting, settled=False))
    assert {v.node_id: v.reason for v in foresee(changing).verdicts}[2] == "is being removed"
    gone = replace(waits, voting=Voting(voters=(1, 3, 4), settled=True))
    assert {v.node_id: v.reason for v in foresee(gone).verdicts}[2] == "is being removed"


@pytest.mark.parametrize("successor", [None, 4])
def test_who_leaves_is_taken_out_of_the_synchronous_set_first(successor: int | None) -> None:
    """Commits may have been acknowledged on the word of its copy (attacks M7)."""
    copies = tuple(SyncMember(node_id=n, copy=f"{n}" * 16) for n in (2, 3))
    both = SyncRecord(generation=1, rules=(SyncSet(members=copies, k=1),))
    voters = (1, 2, 3) if successor is None else (1, 2, 3, 4)
    order = leaving(2, successor)
    in_set = picture(voters, members=len(voters), departures=order, sync=both)
    assert step(in_set) is None
    assert not may_confirm(in_set.state, 2)
    changing = replace(both, rules=(*both.rules, SyncSet(members=copies[1:], k=1)))
    assert step(picture(voters, members=len(voters), departures=order, sync=changing)) is None
    without = replace(both, rules=(SyncSet(members=copies[1:], k=1),))
    assert step(
        picture(voters, members=len(voters), departures=order, sync=without)
    ) == Reconfigure(remove=2)


def test_a_replaced_member_of_the_set_waits_as_well() -> None:
    copies = (SyncMember(node_id=2, copy="2" * 16),)
    record = SyncRecord(generation=1, rules=(SyncSet(members=copies, k=1),))
    order = leaving(2, 4)
    waiting = picture((1, 2, 3), (4,), members=4, departures=order, sync=record)
    assert step(waiting) is None
    gone = picture((1, 2, 3), (4,), members=4, departures=order)
    assert step(gone) == Reconfigure(promote=4, remove=2)
