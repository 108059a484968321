"""Raft §5.1 and §5.2, one test per claim. (PreVote comes before each election: see test_thesis.)"""

import random

import pytest

from pgraft.core.raft import Raft
from pgraft.core.types import (
    Append,
    AppendReply,
    EventKind,
    Heartbeat,
    HeartbeatReply,
    Index,
    NodeId,
    Recovered,
    Role,
    Term,
    Timing,
    VoteReply,
    VoteRequest,
)
from tests.support.raft_lab import MS, START_NS, Lab, recovered


def vote_request(term: int, last_index: int = 0, last_term: int = 0) -> VoteRequest:
    return VoteRequest(term=Term(term), last_index=Index(last_index), last_term=Term(last_term))


def answers(lab: Lab, to: int) -> list[VoteReply]:
    return [x.message for x in lab.take(VoteReply, to=to) if isinstance(x.message, VoteReply)]


def beat(term: int) -> Heartbeat:
    return Heartbeat(term=Term(term), commit=Index(0), round=1)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER])
def test_5_1_a_larger_term_is_taken_over_and_makes_a_follower(role: Role) -> None:
    lab = Lab(1, 2, 3)
    if role is Role.LEADER:
        lab.elect(1)
    elif role is not Role.FOLLOWER:
        lab.expire(1)
        if role is Role.CANDIDATE:
            lab.deliver_all()
            lab.deliver_all()
    assert lab.status(1).role is role
    lab.send(2, 1, beat(9))
    assert (lab.status(1).role, lab.status(1).term, lab.status(1).leader) == (Role.FOLLOWER, 9, 2)


def test_5_1_a_request_of_an_older_term_is_refused_with_the_current_one() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(term=5)})
    lab.send(2, 1, beat(4))
    lab.send(2, 1, Append(term=Term(4), prev_index=Index(0), prev_term=Term(0), commit=Index(0)))
    assert [x.message for x in lab.letters] == [
        HeartbeatReply(term=Term(5), round=0),
        AppendReply(term=Term(5), ok=False),
    ]
    assert lab.status(1).leader == 0


def test_5_1_an_older_vote_request_is_refused_with_the_current_term() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(term=5)})
    lab.send(2, 1, vote_request(4))
    assert answers(lab, to=2) == [VoteReply(term=Term(5), granted=False)]


def test_5_1_an_older_answer_changes_nothing() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(term=5)})
    before = lab.status(1)
    lab.send(2, 1, VoteReply(term=Term(4), granted=True))
    lab.send(2, 1, HeartbeatReply(term=Term(4), round=1))
    assert lab.status(1) == before
    assert lab.letters == []


def test_5_2_servers_start_as_followers() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(1, 2, term=3, vote=1)})
    assert (lab.status(1).role, lab.status(1).term) == (Role.FOLLOWER, 3)


def test_5_2_a_follower_stays_one_while_it_hears_its_leader() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.elapse(10_000)
    assert lab.leaders() == [1]
    assert lab.status(2).term == 1


def test_5_2_a_leader_beats_to_all_others() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.now += lab.timing.heartbeat_ns
    lab.tick(1)
    assert sorted(int(x.to) for x in lab.take(Heartbeat)) == [2, 3]


def test_5_2_without_a_leader_an_election_begins_after_the_timeout() -> None:
    lab = Lab(1, 2, 3)
    lab.expire(1)
    lab.settle()
    assert (lab.status(1).role, lab.status(1).term) == (Role.LEADER, 1)


def test_5_2_a_candidate_votes_for_itself_and_asks_all_others() -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(1, 2)})
    lab.expire(1)
    lab.deliver_all()
    lab.deliver_all()
    assert lab.status(1).role is Role.CANDIDATE
    assert lab.members[1].disk.hard_state.vote == 1
    requests = lab.take(VoteRequest)
    assert sorted(int(x.to) for x in requests) == [2, 3]
    assert {x.message for x in requests} == {vote_request(3, last_index=2, last_term=2)}


@pytest.mark.parametrize(("size", "votes"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_5_2_a_majority_of_the_whole_group_wins(size: int, votes: int) -> None:
    lab = Lab(*range(1, size + 1))
    for silent in range(votes + 2, size + 1):
        lab.isolate(silent)
    lab.expire(1)
    lab.settle()
    assert lab.leaders() == [1]


@pytest.mark.parametrize(("size", "votes"), [(2, 0), (3, 0), (4, 1), (5, 1), (7, 2)])
def test_5_2_less_than_a_majority_does_not_win(size: int, votes: int) -> None:
    lab = Lab(*range(1, size + 1))
    for silent in range(votes + 2, size + 1):
        lab.isolate(silent)
    lab.expire(1)
    lab.settle()
    assert lab.leaders() == []


@pytest.mark.parametrize(
    ("vote", "candidate", "granted"), [(0, 2, True), (2, 2, True), (3, 2, False), (1, 2, False)]
)
def test_5_2_one_vote_per_term_first_come_first_served(
    vote: int, candidate: int, granted: bool
) -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(term=4, vote=vote)})
    lab.send(candidate, 1, vote_request(4))
    assert [x.granted for x in answers(lab, to=candidate)] == [granted]


def test_5_2_a_vote_may_be_repeated_to_the_same_candidate_only() -> None:
    lab = Lab(1, 2, 3)
    for candidate in (2, 2, 3):
        lab.send(candidate, 1, vote_request(1))
    assert [x.granted for x in answers(lab, to=2)] == [True, True]
    assert [x.granted for x in answers(lab, to=3)] == [False]


def test_5_2_a_member_that_follows_a_leader_gives_no_other_vote_in_its_term() -> None:
    lab = Lab(1, 2, 3)
    lab.send(3, 1, beat(1))
    lab.now += lab.timing.election_ns
    lab.send(2, 1, vote_request(1))
    assert [x.granted for x in answers(lab, to=2)] == [False]


@pytest.mark.parametrize("term", [1, 2])
def test_5_2_a_candidate_follows_a_leader_of_its_term_or_a_later_one(term: int) -> None:
    lab = Lab(1, 2, 3)
    lab.expire(1)
    lab.deliver_all()
    lab.deliver_all()
    assert (lab.status(1).role, lab.status(1).term) == (Role.CANDIDATE, 1)
    lab.send(3, 1, beat(term))
    assert (lab.status(1).role, lab.status(1).leader) == (Role.FOLLOWER, 3)


def test_5_2_a_refused_candidate_is_a_follower_again() -> None:
    lab = Lab(1, 2, 3)
    lab.expire(1)
    lab.deliver_all()
    lab.deliver_all()
    for voter in (2, 3):
        lab.send(voter, 1, VoteReply(term=Term(1), granted=False))
    assert (lab.status(1).role, lab.status(1).leader) == (Role.FOLLOWER, 0)


def test_5_2_a_split_vote_ends_by_another_timeout_and_a_new_term() -> None:
    lab = Lab(1, 2, 3, 4)
    lab.expire(1)
    lab.expire(2)
    lab.settle()
    for _ in range(20):
        if lab.leaders():
            break
        lab.elapse(1300)
    assert len(lab.leaders()) == 1


def test_5_2_timeouts_are_drawn_anew_from_just_above_e_up_to_2e() -> None:
    e_ns = 1000
    seen = set()
    for seed in range(2000):
        raft = Raft(
            NodeId(1),
            Recovered(hard_state=recovered().hard_state),
            Timing(election_ns=e_ns, heartbeat_ns=10 * e_ns),
            random.Random(seed),
            0,
            boot=1,
        )
        seen.add(raft.next_deadline())
    assert min(seen) == e_ns + 1
    assert max(seen) == 2 * e_ns
    assert len(seen) > e_ns / 2


def test_5_2_votes_are_counted_once_per_voter() -> None:
    lab = Lab(1, 2, 3, 4, 5)
    lab.expire(1)
    lab.deliver_all()
    lab.deliver_all()
    for _ in range(3):
        lab.send(2, 1, VoteReply(term=Term(1), granted=True))
    assert lab.leaders() == []
    lab.send(3, 1, VoteReply(term=Term(1), granted=True))
    assert lab.leaders() == [1]


def test_5_2_a_vote_that_was_taken_back_does_not_count_twice() -> None:
    lab = Lab(1, 2, 3, 4, 5)
    lab.expire(1)
    lab.deliver_all()
    lab.deliver_all()
    lab.send(2, 1, VoteReply(term=Term(1), granted=False))
    lab.send(2, 1, VoteReply(term=Term(1), granted=True))
    lab.send(3, 1, VoteReply(term=Term(1), granted=True))
    assert lab.leaders() == []


def test_5_2_learners_and_strangers_do_not_elect() -> None:
    lab = Lab(1, 2, 3, learners=(4,))
    lab.expire(1)
    lab.deliver_all()
    lab.deliver_all()
    lab.letters.clear()
    lab.send(4, 1, VoteReply(term=Term(1), granted=True))
    lab.send(9, 1, VoteReply(term=Term(1), granted=True))
    assert lab.leaders() == []


def test_5_2_a_vote_is_durable_before_it_leaves() -> None:
    """And a crash before the sync leaves no promise that could be broken."""
    lab = Lab(1, 2, 3)
    lab.hold(1)
    lab.send(2, 1, vote_request(1))
    assert lab.take(VoteReply) == []
    lab.restart(1)
    lab.send(3, 1, vote_request(1))
    lab.sync(1)
    assert [x.granted for x in answers(lab, to=3)] == [True]


def test_5_2_a_crash_after_the_sync_does_not_forget_the_vote() -> None:
    lab = Lab(1, 2, 3)
    lab.send(2, 1, vote_request(1))
    assert [x.granted for x in answers(lab, to=2)] == [True]
    lab.restart(1)
    lab.send(3, 1, vote_request(1))
    assert [x.granted for x in answers(lab, to=3)] == [False]


def test_5_2_a_candidate_asks_and_counts_itself_only_when_its_own_vote_is_durable() -> None:
    lab = Lab(1)
    lab.hold(1)
    lab.expire(1)
    assert lab.leaders() == []
    lab.sync(1)
    assert lab.leaders() == [1]
    group = Lab(1, 2, 3)
    group.expire(1)
    group.hold(1)
    group.deliver_all()
    group.deliver_all()
    assert group.status(1).role is Role.CANDIDATE
    assert group.take(VoteRequest) == []
    group.sync(1)
    assert len(group.take(VoteRequest)) == 2


def test_5_2_a_leader_tells_its_host() -> None:
    lab = Lab(1)
    lab.elect(1)
    kinds = [(event.kind, event.detail) for event in lab.members[1].events]
    assert (EventKind.CAMPAIGN, "") in kinds
    assert (EventKind.ROLE_CHANGED, "leader") in kinds
    assert (EventKind.LEADER_CHANGED, "1") in kinds


def test_5_2_time_never_runs_backwards() -> None:
    lab = Lab(1, 2, 3)
    lab[1].tick(START_NS + 10 * MS)
    lab[1].tick(START_NS)
    lab.send(2, 1, beat(1))
    assert lab.status(1).last_contact_ns == {NodeId(2): START_NS + 10 * MS}
