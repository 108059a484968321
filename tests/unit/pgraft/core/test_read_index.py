"""ReadIndex and the rounds under it (thesis §6.4), one test per claim."""

import pytest

from pgraft.core.limits import READS_MAX
from pgraft.core.types import (
    Heartbeat,
    HeartbeatReply,
    Index,
    NodeId,
    ReadDone,
    ReadReply,
    ReadRequest,
    Term,
)
from tests.support.raft_lab import Lab, recovered


def led(*nodes: int) -> Lab:
    lab = Lab(*(nodes or (1, 2, 3)))
    lab.elect(1)
    return lab


class TestReadIndex:
    """§6.4."""

    def test_the_leader_answers_after_one_round(self) -> None:
        lab = led()
        lab.read(1, 7)
        assert lab.members[1].reads == []
        lab.settle()
        assert lab.members[1].reads == [ReadDone(context=7, index=Index(1))]

    def test_a_follower_asks_the_leader(self) -> None:
        lab = led()
        lab.propose(1, b"a")
        lab.settle()
        lab.read(2, 7)
        lab.settle()
        assert lab.members[2].reads == [ReadDone(context=7, index=Index(2))]

    def test_a_round_that_began_before_the_read_proves_nothing(self) -> None:
        lab = led()
        lab.now += lab.timing.heartbeat_ns
        lab.tick(1)
        lab.deliver_all()
        lab.read(1, 7)
        lab.take(Heartbeat)
        lab.settle()
        assert lab.members[1].reads == []

    def test_reads_that_wait_together_share_a_round(self) -> None:
        lab = led()
        for context in range(5):
            lab[1].read_index(context, lab.now)
        lab.pump(1)
        assert len(lab.take(Heartbeat, to=2)) == 1
        lab.beat(1)
        assert len(lab.members[1].reads) == 5

    def test_a_new_leader_waits_for_a_commit_of_its_own_term(self) -> None:
        lab = Lab(1, 2, 3, logs={n: recovered(1, 1) for n in (1, 2, 3)})
        lab.expire(1)
        for _ in range(20):
            if lab.leaders():
                break
            lab.deliver_all()
        lab.read(1, 7)
        assert lab.members[1].reads == []
        lab.settle()
        lab.beat(1)
        assert lab.members[1].reads == [ReadDone(context=7, index=Index(3))]

    def test_a_leader_cut_off_never_answers_and_says_so_when_it_gives_up(self) -> None:
        lab = led()
        lab.isolate(1)
        lab[1].read_index(7, lab.now)
        lab[1].step(NodeId(2), ReadRequest(term=Term(1), context=8), lab.now)
        lab.pump(1)
        lab.elapse(800, only=[1])
        assert lab.members[1].reads == [ReadDone(context=7, index=None)]
        assert any("1->2 ReadReply t1 at None" in line for line in lab.trace)

    def test_a_single_voter_answers_once_its_own_entry_is_committed(self) -> None:
        lab = Lab(1)
        lab.hold(1)
        lab.expire(1)
        lab.sync(1)
        lab.read(1, 7)
        assert lab.members[1].reads == []
        lab.sync(1)
        assert lab.members[1].reads == [ReadDone(context=7, index=Index(1))]

    def test_without_a_leader_the_answer_is_none_at_once(self) -> None:
        lab = Lab(1, 2, 3)
        lab.read(1, 7)
        assert lab.members[1].reads == [ReadDone(context=7, index=None)]

    def test_a_read_whose_leader_fell_silent_is_given_up(self) -> None:
        lab = led()
        lab.cut(1, 2)
        lab.read(2, 7)
        lab.settle()
        lab.elapse(2000, only=[2])
        assert lab.members[2].reads == [ReadDone(context=7, index=None)]

    def test_a_read_whose_leader_is_silent_only_about_it_is_given_up_after_e(self) -> None:
        lab = led()
        lab.read(2, 7)
        lab.take(ReadRequest)
        lab.elapse(700)
        assert lab.members[2].reads == [ReadDone(context=7, index=None)]

    def test_somebody_who_does_not_lead_refuses(self) -> None:
        lab = led()
        lab.send(3, 2, ReadRequest(term=Term(1), context=6))
        assert [x.message for x in lab.take(ReadReply)] == [
            ReadReply(term=Term(1), context=6, index=None)
        ]

    def test_an_answer_nobody_asked_for_is_dropped(self) -> None:
        lab = led()
        lab.send(1, 2, ReadReply(term=Term(1), context=6, index=Index(1)))
        assert lab.members[2].reads == []

    def test_an_answer_to_a_process_of_before_is_not_taken(self) -> None:
        """Contexts are the host's and may repeat after a restart; tickets on the wire do not."""
        lab = led()
        lab.read(2, 7)
        lab.deliver_all()
        lab.deliver_all()
        lab.deliver_all()
        old = lab.take(ReadReply, to=2)
        assert len(old) == 1
        lab.restart(2)
        lab.beat(1)
        lab[2]._parts.state.me.rng.seed(99)
        lab.read(2, 7)
        lab.letters.clear()
        lab.deliver(old[0])
        assert lab.members[2].reads == []

    def test_waiting_reads_are_bounded(self) -> None:
        lab = led()
        lab.isolate(1)
        for context in range(READS_MAX + 1):
            lab.read(1, context)
        assert lab.members[1].reads == [ReadDone(context=READS_MAX, index=None)]
        for context in range(READS_MAX + 1):
            lab.read(2, context)
        assert lab.members[2].reads == [ReadDone(context=READS_MAX, index=None)]

    def test_a_round_that_never_began_is_not_confirmed(self) -> None:
        lab = led()
        confirmed = lab[1]._parts.rounds.confirmed()
        for peer in (2, 3):
            lab.send(peer, 1, HeartbeatReply(term=Term(1), round=10**6))
        assert lab[1]._parts.rounds.confirmed() == confirmed


@pytest.mark.parametrize("order", [(2, 1), (1, 2)])
def test_an_old_round_answer_does_not_take_back_a_newer_one(order: tuple[int, int]) -> None:
    lab = led()
    latest = lab[1]._parts.rounds.confirmed()
    for back in order:
        lab.send(2, 1, HeartbeatReply(term=Term(1), round=latest - back + 1))
    assert lab[1]._parts.rounds.confirmed() == latest


def test_one_answer_of_five_confirms_no_round() -> None:
    lab = led(1, 2, 3, 4, 5)
    for silent in (3, 4, 5):
        lab.cut(1, silent)
    lab.read(1, 7)
    lab.settle()
    assert lab.members[1].reads == []
    lab.heal()
    lab.beat(1)
    assert lab.members[1].reads == [ReadDone(context=7, index=Index(1))]
