"""What a member promised and has forgotten (a disk that was set back)."""

import pytest

from pgraft.core.promises import Promises
from pgraft.core.types import (
    AppendReply,
    EventKind,
    HardState,
    HeartbeatReply,
    Index,
    NodeId,
    Term,
    VoteReply,
    VoteRequest,
)
from tests.support.raft_lab import Lab, refused
from tests.support.raft_member import changed
from tests.support.raft_store import Image

PEER = NodeId(2)


def kinds(lab: Lab, node: int) -> list[EventKind]:
    return [event.kind for event in lab.members[node].events]


def forgetful() -> Lab:
    """1 leads; 2 had acknowledged five entries, and its disk was set back to two."""
    lab = Lab(1, 2, 3)
    lab.elect(1)
    for _ in range(5):
        lab.propose(1)
    lab.settle()
    whole = lab.crash(2)
    then = HardState(term=whole.hard_state.term, vote=whole.hard_state.vote, commit=Index(1))
    lab.restart(2, Image(then, list(whole.entries[:2])))
    return lab


def test_a_claim_never_falls() -> None:
    promises = Promises()
    assert promises.confirmed(PEER) == (0, 0)
    promises.claimed(PEER, Term(2), Index(5))
    promises.claimed(PEER, Term(1), Index(9))
    assert promises.confirmed(PEER) == (2, 5)


def test_only_a_later_round_proves_that_something_is_gone() -> None:
    promises = Promises()
    promises.acked(PEER, Term(1), Index(5), 3)
    assert not promises.heard(PEER, 3, Index(2)), "the answer may be older than the ack"
    assert not promises.heard(PEER, 4, Index(5))
    assert promises.heard(PEER, 4, Index(4))
    assert not promises.heard(PEER, 5, Index(4)), "told once"
    assert promises.regressed == {PEER}


def test_a_repeated_ack_does_not_hide_what_is_known() -> None:
    promises = Promises()
    promises.acked(PEER, Term(1), Index(5), 3)
    promises.acked(PEER, Term(1), Index(5), 9)
    assert promises.heard(PEER, 4, Index(4))


def test_in_a_new_term_a_tail_may_have_been_cut() -> None:
    promises = Promises()
    promises.acked(PEER, Term(1), Index(5), 3)
    promises.new_leadership()
    assert not promises.heard(PEER, 9, Index(1))
    assert promises.confirmed(PEER) == (1, 5)


def test_who_has_the_id_anew_has_promised_nothing() -> None:
    promises = Promises()
    promises.acked(PEER, Term(1), Index(5), 3)
    promises.heard(PEER, 4, Index(0))
    promises.forget(PEER)
    promises.forget(PEER)
    assert not promises.regressed
    assert promises.confirmed(PEER) == (0, 0)


def test_acks_and_requests_for_votes_are_remembered() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.propose(1)
    lab.settle()
    assert lab[1].confirmed(PEER) == (1, 2)
    assert lab[2].confirmed(NodeId(1)) == (0, 0), "it asked for votes with an empty log"
    lab.send(9, 2, VoteRequest(term=Term(2), last_index=Index(7), last_term=Term(1), pre=True))
    assert lab[2].confirmed(NodeId(9)) == (1, 7)


def test_a_disk_that_was_set_back_is_told_and_does_not_count() -> None:
    lab = forgetful()
    lab.isolate(3)
    before = lab.status(1).commit
    lab.beat(1)
    lab.beat(1)
    assert [e.detail for e in lab.members[1].events if e.kind is EventKind.REGRESSED] == ["2"]
    lab.propose(1)
    lab.settle()
    assert lab.status(1).commit == before
    lab.send(2, 1, AppendReply(term=Term(1), ok=True, match=lab.status(1).last_index))
    assert lab.status(1).commit == before, "its word is not counted"
    lab.elapse(800, only=[1, 2])
    assert lab.leaders() == [], "its life does not keep a leader up"


def test_it_is_not_told_to_commit_what_it_may_hold_otherwise() -> None:
    lab = forgetful()
    lab.beat(1)
    lab.trace.clear()
    lab.beat(1)
    assert [line for line in lab.trace if "1->2 Heartbeat" in line] == [
        "1->2 Heartbeat t1 round 4 commit 0"
    ]


def test_its_rounds_do_not_count() -> None:
    lab = forgetful()
    lab.beat(1)
    lab.isolate(3)
    lab.read(1, 5)
    lab.settle()
    assert lab.members[1].reads == []


def test_it_is_not_elected_by_its_vote_nor_handed_leadership() -> None:
    lab = forgetful()
    lab.beat(1)
    assert refused(lambda: lab.transfer(1, 2)) == "not_a_voter"
    lab.isolate(1)
    lab.isolate(3)
    lab.elapse(800, only=[1])
    lab.expire(1)
    for reply in (
        VoteReply(term=Term(2), granted=True, pre=True),
        VoteReply(term=Term(2), granted=True),
    ):
        lab[1].step(PEER, reply, lab.now)
        lab.pump(1)
    assert lab.leaders() == []


def test_a_learner_that_forgot_is_not_promoted() -> None:
    lab = Lab(1, 2, 3, learners=(4,))
    lab.elect(1)
    lab.propose(1)
    lab.settle()
    lab.beat(1)
    lab.send(4, 1, HeartbeatReply(term=Term(1), round=2, last_index=Index(0)))
    assert EventKind.REGRESSED not in kinds(lab, 1), "it may be older than the acknowledgement"
    lab.send(4, 1, HeartbeatReply(term=Term(1), round=3, last_index=Index(0)))
    assert EventKind.REGRESSED in kinds(lab, 1)
    assert refused(lambda: lab.change(1, changed(promote=[4]))) == "learner_behind"


@pytest.mark.parametrize("again", [False, True])
def test_only_a_new_member_with_the_id_is_trusted_again(again: bool) -> None:
    lab = Lab(1, 3, 4, learners=(2,))
    lab.elect(1)
    lab.propose(1)
    lab.settle()
    lab.beat(1)
    lab.send(2, 1, HeartbeatReply(term=Term(1), round=3, last_index=Index(0)))
    assert EventKind.REGRESSED in kinds(lab, 1)
    if again:
        lab.change(1, changed(remove=[2]))
        lab.settle()
        lab.change(1, changed(add=[2]))
        lab.settle()
    lab.beat(1)
    assert refused(lambda: lab.change(1, changed(promote=[2]))) == (
        "" if again else "learner_behind"
    )
