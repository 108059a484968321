"""Members come by invitation and go by order: what is recorded, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramd.domain.model import ClusterState, Departure, Handover, Invitation, Member, Removal
from ramd.domain.sync import NO_SET, SyncMember, SyncRecord, SyncSet
from ramd.state.apply import apply, apply_grant, refusal
from ramd.state.commands import GrantPayload, RequestHandover
from ramd.state.member_commands import (
    AdmitMember,
    DropMember,
    InviteMember,
    KeepMember,
    RemoveMember,
    WithdrawInvitation,
)
from ramd.state.membership import MEMBERS_MAX, SPENT_MAX
from tests.support.fake_consensus import cluster, reign

NOW_MS = 1_000_000
LATER_MS = NOW_MS + 60_000
FOUR = Member(
    node_id=4,
    name="node4",
    hostname="localhost",
    postgresql_port=5434,
    raft_port=7404,
    http_port=8004,
)


def invite(
    member: Member = FOUR, *, nonce: str = "n4", replaces: int | None = None, now_ms: int = NOW_MS
) -> InviteMember:
    invitation = Invitation(
        member=member,
        nonce=nonce,
        expires_unix_ms=now_ms + 60_000,
        replaces=replaces,
        requested_by="api",
    )
    return InviteMember(invitation=invitation, at_unix_ms=now_ms)


@pytest.fixture
def led() -> ClusterState:
    """Three members on one host, led by node 1."""
    state = cluster(reign(1, 1))
    return replace(state, members=tuple(replace(m, hostname="127.0.0.1") for m in state.members))


@pytest.fixture
def invited(led: ClusterState) -> ClusterState:
    return apply(led, invite(), 20)


@pytest.fixture
def joined(invited: ClusterState) -> ClusterState:
    return apply(invited, AdmitMember(nonce="n4", at_unix_ms=LATER_MS), 21)


def test_an_invited_node_is_no_member_before_it_is_admitted(invited: ClusterState) -> None:
    found = invited.invitation(4)
    assert found is not None
    assert (found.member, found.nonce) == (FOUR, "n4")
    assert invited.member(4) is None
    assert invited.decisions[-1].rule == "member_invited"
    assert invited.decisions[-1].actor == "api"


def test_an_admitted_node_is_a_member_and_its_token_is_spent(joined: ClusterState) -> None:
    assert joined.member(4) == FOUR
    assert [m.node_id for m in joined.members] == [1, 2, 3, 4]
    assert joined.invitations == ()
    assert joined.spent == ("n4",)
    assert joined.changed_unix_ms == LATER_MS
    assert joined.decisions[-1].reason == "node 4 (node4) has joined"
    assert refusal(joined, AdmitMember(nonce="n4")) == "there is no such invitation"


def test_spent_tokens_are_bounded(invited: ClusterState) -> None:
    state = replace(invited, spent=tuple(f"old{i}" for i in range(SPENT_MAX)))
    spent = apply(state, AdmitMember(nonce="n4"), 21).spent
    assert len(spent) == SPENT_MAX
    assert spent[-1] == "n4"
    assert "old0" not in spent


def test_a_second_invitation_takes_the_place_of_the_first(invited: ClusterState) -> None:
    again = apply(invited, invite(replace(FOUR, http_port=9000), nonce="again"), 21)
    assert [i.nonce for i in again.invitations] == ["again"]


def test_an_invitation_that_has_run_out_holds_no_place(invited: ClusterState) -> None:
    five = replace(FOUR, node_id=5, name="node5")
    assert "is node 4's" in refusal(invited, invite(five, nonce="n5"))
    late = invite(five, nonce="n5", now_ms=LATER_MS + 1)
    assert refusal(invited, late) == ""
    assert [i.nonce for i in apply(invited, late, 21).invitations] == ["n5"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"node_id": 3}, "node 3 is a member"),
        ({"node_id": 10}, "node ids are 1 to 9"),
        ({"node_id": 0}, "node ids are 1 to 9"),
        ({"name": "node2"}, "the name 'node2' is node 2's"),
        ({"name": ""}, "needs a name"),
        ({"hostname": ""}, "needs a name, a hostname"),
        ({"raft_port": 0}, "three ports"),
        ({"http_port": 65536}, "three ports"),
        ({"raft_port": 5434}, "three different ports"),
        ({"priority": 101}, "priority is 0 to 100"),
        ({"hostname": "LOCALHOST.", "raft_port": 7402}, "port 7402 on LOCALHOST. is node 2's"),
    ],
)
def test_who_cannot_be_invited(led: ClusterState, changes: dict[str, object], why: str) -> None:
    wrong = invite(replace(FOUR, **changes))  # type: ignore[arg-type]
    assert why in refusal(led, wrong)
    assert apply(led, wrong, 20).invitations == ()


def test_the_same_ports_on_another_host_are_free(led: ClusterState) -> None:
    first = led.members[0]
    same = replace(first, node_id=4, name="node4", hostname="db4.example.org")
    assert refusal(led, invite(same)) == ""


def test_invitations_need_a_cluster_with_a_primary(led: ClusterState) -> None:
    assert refusal(replace(led, reigns=()), invite()).startswith("there is no primary yet")
    ending = replace(led, removal=Removal(remove_data=False))
    assert refusal(ending, invite()) == "the cluster is being destroyed"
    assert refusal(led, invite(nonce="")).startswith("the invitation has run out")
    past = InviteMember(invitation=invite().invitation, at_unix_ms=LATER_MS)
    assert refusal(led, past).startswith("the invitation has run out")


def test_there_are_nine_members_at_the_most(led: ClusterState) -> None:
    def at(node_id: int) -> Member:
        return replace(FOUR, node_id=node_id, name=f"node{node_id}", hostname=f"h{node_id}")

    seven = replace(led, members=(*led.members, *(at(n) for n in range(4, 8))))
    waiting = apply(seven, invite(at(8)), 20)
    assert refusal(waiting, invite(at(9), nonce="n9")) == ""
    full = replace(waiting, members=(*seven.members, at(9)))
    full = replace(full, members=tuple(m for m in full.members if m.node_id != 7))
    assert refusal(full, invite(at(7))) == ""
    full = replace(waiting, members=(*seven.members, at(9)))
    assert refusal(full, invite(at(8), nonce="again")) == ""
    assert len(full.members) == MEMBERS_MAX - 1
    full = replace(full, members=(*full.members[:-1], replace(at(9), node_id=8), at(9)))
    assert refusal(full, invite(at(8))) == "node 8 is a member: the id is used"


def test_invited_nodes_count_as_members_to_come(led: ClusterState) -> None:
    others = tuple(replace(FOUR, node_id=n, name=f"x{n}", hostname=f"h{n}") for n in range(4, 9))
    eight = replace(led, members=(*led.members[1:], *others))  # all but 1 and 9
    nine = replace(FOUR, node_id=9, name="node9", hostname="h9")
    one = replace(led.members[0], hostname="h1")
    waiting = apply(eight, invite(nine, nonce="n9"), 20)
    assert refusal(eight, invite(one, nonce="n1")) == ""
    more = replace(waiting, members=(*waiting.members, replace(nine, node_id=10, name="x")))
    assert refusal(more, invite(one)) == "there are 8 members and 1 invited; 9 are the most"
    full = replace(more, invitations=(), members=(*more.members, replace(nine, name="y")))
    assert refusal(full, invite(one)).startswith("there are 9 members; 9 are the most")


def test_an_invitation_can_be_withdrawn(invited: ClusterState) -> None:
    gone = apply(invited, WithdrawInvitation(nonce="n4", reason="run out"), 21)
    assert gone.invitations == ()
    assert gone.decisions[-1].reason == "node 4 may join no more: run out"
    assert refusal(gone, WithdrawInvitation(nonce="n4")) == "there is no such invitation"


def test_who_is_a_member_already_is_not_admitted_again(invited: ClusterState) -> None:
    state = replace(invited, members=(*invited.members, FOUR))
    assert refusal(state, AdmitMember(nonce="n4")) == "node 4 is a member"


def test_a_name_that_was_given_away_meanwhile_is_told_apart(invited: ClusterState) -> None:
    renamed = (replace(invited.members[0], name="node4"), *invited.members[1:])
    state = apply(replace(invited, members=renamed), AdmitMember(nonce="n4"), 21)
    found = state.member(4)
    assert found is not None
    assert found.name == "node4.4"


# --- taking the place of a member ------------------------------------------------------------


def test_whom_a_new_node_replaces_leaves_once_it_can_vote(led: ClusterState) -> None:
    state = apply(led, invite(replaces=3), 20)
    assert state.departures == ()
    state = apply(state, AdmitMember(nonce="n4"), 21)
    assert state.departures == (Departure(node_id=3, successor=4, requested_by="api"),)


@pytest.mark.parametrize(("gone", "why"), [(7, "not a member"), (1, "is the primary")])
def test_who_cannot_be_replaced(led: ClusterState, gone: int, why: str) -> None:
    assert why in refusal(led, invite(replaces=gone))


def test_a_member_is_replaced_by_one_node_only(led: ClusterState) -> None:
    state = apply(led, invite(replaces=3), 20)
    five = replace(FOUR, node_id=5, name="node5", hostname="h5")
    assert "node 4 is invited to take the place" in refusal(state, invite(five, replaces=3))
    assert refusal(state, invite(replaces=3)) == ""  # the same node, invited again
    leaving = apply(led, RemoveMember(node_id=3), 20)
    assert "is being removed already" in refusal(leaving, invite(replaces=3))


@pytest.mark.parametrize("became", ["gone", "leaving", "primary", "leaderless"])
def test_nobody_is_replaced_who_has_gone_or_leads_by_then(led: ClusterState, became: str) -> None:
    state = apply(led, invite(replaces=3), 20)
    if became == "gone":
        state = replace(state, members=state.members[:2])
    elif became == "leaving":
        state = apply(state, RemoveMember(node_id=3), 21)
    elif became == "primary":
        state = replace(state, reigns=(*state.reigns, reign(2, 3)))
    else:
        state = replace(state, reigns=())
    before = state.departures
    after = apply(state, AdmitMember(nonce="n4"), 22).departures
    wanted = (Departure(node_id=3, successor=4, requested_by="api"),)
    assert after == (wanted if became == "leaderless" else before)


# --- leaving ---------------------------------------------------------------------------------


def test_a_member_leaves_in_two_steps(joined: ClusterState) -> None:
    leaving = apply(joined, RemoveMember(node_id=4, requested_by="api"), 22)
    assert leaving.member(4) is not None
    assert leaving.departure(4) == Departure(node_id=4, requested_by="api")
    gone = apply(leaving, DropMember(node_id=4, at_unix_ms=LATER_MS + 5), 23)
    assert gone.member(4) is None
    assert gone.departures == ()
    assert gone.changed_unix_ms == LATER_MS + 5
    assert gone.decisions[-1].actor == "api"


def test_a_removal_can_be_given_up(joined: ClusterState) -> None:
    leaving = apply(joined, RemoveMember(node_id=4), 22)
    stays = apply(leaving, KeepMember(node_id=4, reason="too few would be left"), 23)
    assert stays.departures == ()
    assert stays.decisions[-1].reason == "node 4 is not removed: too few would be left"
    assert refusal(stays, KeepMember(node_id=4, reason="")) == "node 4 is not being removed"


def test_who_cannot_be_removed(joined: ClusterState) -> None:
    def why(state: ClusterState, node_id: int) -> str:
        return refusal(state, RemoveMember(node_id=node_id))

    assert why(joined, 7) == "node 7 is not a member"
    assert why(joined, 1) == "node 1 is the primary: switch over to another node first"
    alone = replace(joined, members=joined.members[:1])
    assert why(alone, 1) == "node 1 is the last member: destroy the cluster instead"
    ending = replace(joined, removal=Removal(remove_data=False))
    assert why(ending, 4) == "the cluster is being destroyed"
    asked = apply(joined, RequestHandover(handover=Handover(epoch=1, target=2)), 22)
    assert why(asked, 2) == "node 2 is about to become primary"
    assert why(asked, 3) == ""
    assert why(replace(joined, reigns=()), 1) == ""
    leaving = apply(joined, RemoveMember(node_id=4), 22)
    assert why(leaving, 3) == "node 4 is being removed already"
    assert why(leaving, 4) == "node 4 is being removed already"


def test_who_waits_for_a_successor_may_leave_at_once_instead(led: ClusterState) -> None:
    state = apply(apply(led, invite(replaces=3), 20), AdmitMember(nonce="n4"), 21)
    state = apply(state, RemoveMember(node_id=3), 22)
    assert state.departures == (Departure(node_id=3),)


def test_nobody_is_dropped_whom_nobody_removed(joined: ClusterState) -> None:
    assert refusal(joined, DropMember(node_id=7)) == "node 7 is not a member"
    assert "nobody has ordered" in refusal(joined, DropMember(node_id=4))


def test_nobody_is_dropped_on_whose_word_commits_may_rest(joined: ClusterState) -> None:
    """The primary's change was on its way when the coordinator looked. A promotion would need the
    word of this copy, and only members are heard."""
    leaving = apply(joined, RemoveMember(node_id=4), 22)
    one = SyncSet(members=(SyncMember(node_id=4, copy="4" * 16),), k=1)
    named = replace(leaving, sync=SyncRecord(generation=1, rules=(NO_SET, one), target=one))
    assert "may have confirmed commits" in refusal(named, DropMember(node_id=4))
    other = SyncSet(members=(SyncMember(node_id=2, copy="2" * 16),), k=1)
    settled = replace(leaving, sync=SyncRecord(generation=2, rules=(other,)))
    assert not refusal(settled, DropMember(node_id=4))


def test_who_became_primary_after_all_does_not_leave(joined: ClusterState) -> None:
    """The grant was on its way when the order came: the group holds by it, so the order is void."""
    leaving = apply(joined, RemoveMember(node_id=2), 22)
    ahead = reign(2, 2, parent_timeline=1)
    payload = GrantPayload(reign=ahead, record=joined.decisions[-1])
    later = apply_grant(leaving, 2, 2, payload, 23)
    assert later.epoch == 2
    assert later.departures == ()


def test_nobody_asks_for_a_primary_that_is_leaving(joined: ClusterState) -> None:
    leaving = apply(joined, RemoveMember(node_id=2), 22)
    wanted = RequestHandover(handover=Handover(epoch=1, target=2))
    assert refusal(leaving, wanted) == "node 2 is being removed"
    anybody = RequestHandover(handover=Handover(epoch=1, target=None))
    assert refusal(leaving, anybody) == ""
