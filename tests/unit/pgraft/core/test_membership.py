"""Who is listened to, who votes, who only receives: strangers, learners, joint configurations."""

import random

import pytest

from pgraft.core.raft import Raft
from pgraft.core.types import (
    AppendReply,
    HardState,
    Heartbeat,
    HeartbeatReply,
    Index,
    Message,
    NodeId,
    Recovered,
    Role,
    Term,
    VoteReply,
    VoteRequest,
)
from tests.support.raft_lab import MS, TIMING, Lab, joint, recovered


class TestMembership:
    @pytest.mark.parametrize(
        "message",
        [
            Heartbeat(term=Term(9), commit=Index(0), round=1),
            VoteRequest(term=Term(9), last_index=Index(9), last_term=Term(9)),
            VoteRequest(term=Term(9), last_index=Index(9), last_term=Term(9), pre=True),
        ],
    )
    def test_echoes_of_our_own_messages_are_dropped(self, message: Heartbeat | VoteRequest) -> None:
        lab = Lab(1, 2, 3)
        before = lab.status(1)
        lab.send(1, 1, message)
        assert lab.status(1) == before
        assert lab.letters == []

    def test_a_leader_that_is_not_known_yet_is_heard(self) -> None:
        """Thesis §4.2: a member that lags must take entries of whoever leads."""
        lab = Lab(1, 2, 3)
        lab.send(9, 1, Heartbeat(term=Term(9), commit=Index(0), round=1))
        assert (lab.status(1).term, lab.status(1).leader) == (9, 9)

    def test_a_stranger_may_ask_for_a_vote(self) -> None:
        """§4.2: a voter may lack the configuration that makes the candidate one."""
        lab = Lab(1, 2, 3)
        lab.send(9, 1, VoteRequest(term=Term(1), last_index=Index(0), last_term=Term(0)))
        (letter,) = lab.take(VoteReply)
        assert isinstance(letter.message, VoteReply)
        assert letter.message.granted

    @pytest.mark.parametrize(
        "message",
        [
            VoteReply(term=Term(9), granted=False, pre=True),
            AppendReply(term=Term(9), ok=False),
            HeartbeatReply(term=Term(9), round=0),
        ],
    )
    def test_answers_of_a_stranger_do_not_move_the_term(self, message: Message) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.send(9, 1, message)
        assert lab.leaders() == [1]
        assert lab.status(1).term == 1

    def test_a_learner_gets_the_log_and_never_campaigns(self) -> None:
        lab = Lab(1, 2, learners=(4,))
        lab.elect(1)
        lab.propose(1, b"a")
        lab.settle()
        assert lab.commands(4) == [b"a"]
        lab.isolate(4)
        lab.elapse(5000)
        assert lab.status(4).role is Role.FOLLOWER
        assert lab.status(4).term == 1

    def test_a_learner_forgets_a_leader_that_it_does_not_hear_and_renews_nothing(self) -> None:
        """Else a holder that can speak and not hear would keep its epoch from moving for ever."""
        lab = Lab(1, 2, learners=(4,))
        lab.elect(1)
        lab.settle()
        lab.grant(1, 4, 1)
        lab.settle()
        assert lab[4].holder.renew(lab.now)
        lab.isolate(4)
        lab.elapse(5000)
        assert lab.status(4).leader == 0
        assert not lab[4].holder.renew(lab.now)

    def test_a_learner_does_not_help_to_commit(self) -> None:
        lab = Lab(1, 2, 3, learners=(4,))
        lab.elect(1)
        lab.isolate(2)
        lab.isolate(3)
        lab.propose(1)
        lab.settle()
        assert lab.status(1).commit == lab.status(1).last_index - 1

    def test_a_node_outside_the_configuration_never_campaigns(self) -> None:
        raft = Raft(NodeId(1), recovered(), TIMING, random.Random(1), 0, boot=1)
        for now in range(0, 10_000 * MS, 100 * MS):
            raft.tick(now)
        assert raft.status().term == 0

    def test_a_joint_configuration_elects_and_commits_with_both_halves(self) -> None:
        lab = Lab(1, 2, 3, 4, 5)
        config = joint((1, 2, 3), (3, 4, 5))
        for node in (1, 2, 3, 4, 5):
            lab.members[node].raft = Raft(
                NodeId(node),
                Recovered(hard_state=HardState(), config=config),
                TIMING,
                random.Random(node),
                lab.now,
                boot=node,
            )
        lab.isolate(4)
        lab.isolate(5)
        lab.expire(1)
        lab.settle()
        assert lab.leaders() == []
        lab.heal()
        lab.isolate(5)
        lab.elapse(5000, only=[1])
        assert lab.leaders() == [1]
        lab.isolate(4)
        before = lab.status(1).commit
        lab.propose(1)
        lab.settle()
        assert lab.status(1).commit == before
