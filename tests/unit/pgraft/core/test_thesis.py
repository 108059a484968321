"""What Ongaro's thesis adds to the paper, one test per claim. Reads: test_read_index."""

from functools import partial

from pgraft.core.types import (
    EventKind,
    Heartbeat,
    Index,
    ReadDone,
    ReadReply,
    ReadRequest,
    Role,
    Term,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from tests.support.raft_lab import MS, Lab, recovered, refused


def pre_vote(term: int, last_index: int = 0, last_term: int = 0) -> VoteRequest:
    return VoteRequest(
        term=Term(term), last_index=Index(last_index), last_term=Term(last_term), pre=True
    )


def led(*nodes: int) -> Lab:
    lab = Lab(*(nodes or (1, 2, 3)))
    lab.elect(1)
    return lab


def kinds(lab: Lab, node: int) -> list[EventKind]:
    return [event.kind for event in lab.members[node].events]


def pre_answer(lab: Lab) -> VoteReply:
    (letter,) = lab.take(VoteReply)
    assert isinstance(letter.message, VoteReply)
    assert letter.message.pre
    return letter.message


class TestPreVote:
    """§9.6, with the repairs later implementations needed."""

    def test_asking_changes_neither_term_nor_vote(self) -> None:
        lab = Lab(1, 2, 3)
        lab.isolate(1)
        for _ in range(5):
            lab.expire(1)
            lab.settle()
        assert (lab.status(1).term, lab.status(1).role) == (0, Role.PRE_CANDIDATE)
        assert lab.members[1].disk.hard_state.vote == 0

    def test_a_member_that_comes_back_does_not_disturb(self) -> None:
        lab = led()
        lab.isolate(3)
        lab.elapse(5000)
        lab.heal()
        lab.elapse(2000)
        assert lab.leaders() == [1]
        assert [lab.status(node).term for node in (1, 2, 3)] == [1, 1, 1]

    def test_answering_changes_nothing(self) -> None:
        lab = Lab(1, 2, 3)
        before = lab.status(1)
        lab.send(2, 1, pre_vote(7))
        assert pre_answer(lab) == VoteReply(term=Term(7), granted=True, pre=True)
        assert lab.status(1) == before

    def test_the_log_is_checked(self) -> None:
        lab = Lab(1, 2, 3, logs={1: recovered(1, 2)})
        lab.send(2, 1, pre_vote(3, last_index=1, last_term=2))
        assert pre_answer(lab) == VoteReply(term=Term(2), granted=False, pre=True)

    def test_a_refusal_carries_the_term_so_that_a_long_log_with_a_low_term_catches_up(
        self,
    ) -> None:
        """1 has the longer log and term 2; 2 has a short log and term 9. Both must get on."""
        lab = Lab(
            1, 2, 3, logs={1: recovered(1, 2, 2), 2: recovered(1, term=9), 3: recovered(1, term=9)}
        )
        lab.isolate(3)
        lab.expire(1)
        lab.settle()
        assert lab.status(1).term == 9
        lab.elapse(5000)
        assert lab.leaders() == [1]

    def test_a_voter_that_hears_its_leader_refuses(self) -> None:
        lab = led()
        lab.send(3, 2, pre_vote(9, 9, 9))
        assert not pre_answer(lab).granted
        lab.send(3, 1, pre_vote(9, 9, 9))
        assert not pre_answer(lab).granted, "and the leader believes in itself"

    def test_an_older_term_is_refused(self) -> None:
        lab = Lab(1, 2, 3, logs={1: recovered(term=5)})
        lab.send(2, 1, pre_vote(5))
        assert pre_answer(lab) == VoteReply(term=Term(5), granted=False, pre=True)

    def test_refused_by_a_majority_it_stays_a_follower(self) -> None:
        lab = Lab(1, 2, 3)
        lab.expire(1)
        lab.letters.clear()
        for voter in (2, 3):
            lab.send(voter, 1, VoteReply(term=Term(0), granted=False, pre=True))
        assert (lab.status(1).role, lab.status(1).term) == (Role.FOLLOWER, 0)

    def test_answers_to_another_term_are_not_counted(self) -> None:
        lab = Lab(1, 2, 3)
        lab.expire(1)
        lab.letters.clear()
        lab.send(2, 1, VoteReply(term=Term(2), granted=True, pre=True))
        assert (lab.status(1).role, lab.status(1).term) == (Role.PRE_CANDIDATE, 0)

    def test_late_answers_do_not_count_for_the_vote(self) -> None:
        lab = Lab(1, 2, 3, 4, 5)
        lab.expire(1)
        lab.letters.clear()
        for voter in (2, 3, 4, 5):
            lab.send(voter, 1, VoteReply(term=Term(1), granted=True, pre=True))
        assert lab.status(1).role is Role.CANDIDATE

    def test_a_grant_holds_back_ones_own_campaign_for_a_heartbeat(self) -> None:
        """Two members that lose their leader at the same moment must not split the vote."""
        lab = led()
        lab.crash(1)
        for node in (2, 3):
            lab.link(node, 1, up=False)
        lab.expire(2)
        lab.deliver_all()
        assert lab[3].next_deadline() >= lab.now + lab.timing.heartbeat_ns
        lab.settle()
        assert lab.leaders() == [2]


class TestStickiness:
    """§4.2.3: a member that hears a leader does not help to replace it."""

    def test_a_vote_request_is_ignored_while_the_leader_is_heard(self) -> None:
        lab = led()
        lab.send(3, 2, VoteRequest(term=Term(5), last_index=Index(9), last_term=Term(4)))
        assert lab.take(VoteReply) == []
        assert lab.status(2).term == 1

    def test_the_belief_ends_after_e(self) -> None:
        lab = led()
        lab.now += lab.timing.election_ns - 1
        request = VoteRequest(term=Term(5), last_index=Index(9), last_term=Term(4))
        lab.send(3, 2, request)
        assert lab.status(2).term == 1
        lab.now += 1
        lab.send(3, 2, request)
        assert lab.status(2).term == 5

    def test_a_transfer_waives_it(self) -> None:
        lab = led()
        lab.send(
            3, 2, VoteRequest(term=Term(2), last_index=Index(1), last_term=Term(1), transfer=True)
        )
        assert len(lab.take(VoteReply)) == 1

    def test_a_broken_link_waives_it_only_for_the_voter_whose_link_broke(self) -> None:
        lab = led()
        request = VoteRequest(term=Term(2), last_index=Index(1), last_term=Term(1), pre=True)
        lab.link(2, 1, up=False)
        lab.send(3, 2, request)
        assert pre_answer(lab).granted
        lab.send(2, 3, request)
        assert not pre_answer(lab).granted

    def test_a_link_that_came_back_is_trusted_again(self) -> None:
        lab = led()
        request = VoteRequest(term=Term(2), last_index=Index(1), last_term=Term(1), pre=True)
        lab.link(2, 1, up=False)
        lab.link(2, 1, up=True)
        lab.send(3, 2, request)
        assert not pre_answer(lab).granted
        lab.link(2, 1, up=False)
        lab.beat(1)
        lab.send(3, 2, request)
        assert not pre_answer(lab).granted, "a heartbeat proves the link"


class TestFastElection:
    """A follower whose link to the leader broke campaigns within 20 ms."""

    def test_it_campaigns_soon(self) -> None:
        lab = led()
        lab.crash(1)
        for node in (2, 3):
            lab.link(node, 1, up=False)
            assert lab[node].next_deadline() <= lab.now + 20 * MS
        lab.elapse(40)
        assert len(lab.leaders()) == 1

    def test_it_fails_while_the_others_still_hear_the_leader(self) -> None:
        lab = led()
        lab.cut(1, 2)
        lab.link(2, 1, up=False)
        lab.elapse(50)
        assert lab.leaders() == [1]
        assert lab.status(2).term == 1

    def test_a_broken_link_to_somebody_else_means_nothing(self) -> None:
        lab = led()
        before = lab[2].next_deadline()
        lab.link(2, 3, up=False)
        assert lab[2].next_deadline() == before

    def test_it_never_postpones_an_election(self) -> None:
        lab = led()
        lab.now = lab[2]._parts.election.deadline_ns - 1
        lab.link(2, 1, up=False)
        assert lab[2]._parts.election.deadline_ns <= lab.now + 1


class TestCheckQuorum:
    """§6.2: a leader that hears no quorum for E gives up."""

    def test_a_leader_that_is_alone_steps_down(self) -> None:
        lab = led()
        lab.isolate(1)
        lab.elapse(599, only=[1])
        assert lab.leaders() == [1]
        lab.elapse(200, only=[1])
        assert lab.leaders() == []
        assert EventKind.STEPPED_DOWN in kinds(lab, 1)
        why = [e.detail for e in lab.members[1].events if e.kind is EventKind.STEPPED_DOWN]
        assert why == ["no quorum"], "hosts go by this word"

    def test_a_quorum_is_enough(self) -> None:
        lab = led()
        lab.isolate(3)
        lab.elapse(5000, only=[1, 2])
        assert lab.leaders() == [1]

    def test_learners_do_not_keep_a_leader_up(self) -> None:
        lab = Lab(1, 2, 3, learners=(4,))
        lab.elect(1)
        lab.cut(1, 2)
        lab.cut(1, 3)
        lab.elapse(800, only=[1])
        assert lab.leaders() == []

    def test_a_superseded_leader_learns_it_from_the_first_answer(self) -> None:
        lab = led()
        lab.isolate(1)
        lab.elapse(3000, only=[2, 3])
        assert len(lab.leaders()) == 2
        lab.heal()
        lab.now += lab.timing.heartbeat_ns
        lab[1]._parts.replication.forgive_silence()
        lab.tick(1)
        lab.settle()
        assert len(lab.leaders()) == 1


class TestTransfer:
    """§3.10."""

    def test_the_target_campaigns_at_once_and_wins(self) -> None:
        lab = led()
        lab.transfer(1, 3)
        lab.settle()
        assert lab.leaders() == [3]
        assert lab.status(3).term == 2
        assert EventKind.TRANSFER_STARTED in kinds(lab, 1)

    def test_a_target_that_lags_gets_the_log_first(self) -> None:
        lab = led()
        lab.isolate(3)
        lab.propose(1, b"a")
        lab.settle()
        lab.heal()
        lab.transfer(1, 3)
        assert lab.take(TimeoutNow) == []
        lab.beat(1)
        assert lab.leaders() == [3]
        assert b"a" in lab.commands(3)

    def test_no_proposals_reads_and_grants_meanwhile(self) -> None:
        lab = led()
        lab.transfer(1, 3)
        lab.letters.clear()
        assert refused(lambda: lab.propose(1)) == "transferring"
        assert refused(lambda: lab.grant(1, 1, 1)) == "transferring"
        assert refused(lambda: lab.transfer(1, 2)) == "transferring"
        lab.read(1, 5)
        assert lab.members[1].reads == [ReadDone(context=5, index=None)]
        lab.send(2, 1, ReadRequest(term=Term(1), context=6))
        assert [x.message for x in lab.take(ReadReply)] == [
            ReadReply(term=Term(1), context=6, index=None)
        ]

    def test_it_is_given_up_after_an_election_timeout(self) -> None:
        lab = led()
        lab.isolate(3)
        lab.transfer(1, 3)
        lab.elapse(599, only=[1, 2])
        assert refused(lambda: lab.propose(1)) == "transferring"
        lab.elapse(100, only=[1, 2])
        assert refused(lambda: lab.propose(1)) == ""
        assert EventKind.TRANSFER_ABORTED in kinds(lab, 1)

    def test_only_voters_can_be_meant(self) -> None:
        lab = Lab(1, 2, learners=(4,))
        lab.elect(1)
        for target in (1, 4, 9):
            assert refused(partial(lab.transfer, 1, target)) == "not_a_voter"

    def test_only_a_leader_can_do_it(self) -> None:
        lab = led()
        assert refused(lambda: lab.transfer(2, 3)) == "not_leader"

    def test_a_learner_that_is_told_to_campaign_does_not(self) -> None:
        lab = Lab(1, 2, learners=(4,))
        lab.elect(1)
        lab.send(1, 4, TimeoutNow(term=Term(1)))
        assert lab.status(4).role is Role.FOLLOWER

    def test_a_later_election_by_somebody_else_ends_it(self) -> None:
        lab = led()
        lab.isolate(3)
        lab.transfer(1, 3)
        lab.send(2, 1, Heartbeat(term=Term(5), commit=Index(0), round=1))
        assert refused(lambda: lab.propose(1)) == "not_leader"
        assert lab[1]._parts.handover.transfer is None
