"""A leader that stood still, a member that forgot: neither may make the group do harm to itself."""

from pgraft.core.types import HardState, Index, NodeId
from tests.support.raft_lab import MS, Lab, refused
from tests.support.raft_store import Image


def paused_leader() -> Lab:
    """1 leads and 2 holds epoch 1; then everybody stands still for longer than the lease lasts."""
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.grant(1, 2, 1)
    lab.settle()
    lab.renew(2)
    lab.settle()
    lab.now += 10_000 * MS
    return lab


def test_a_leader_that_stood_still_does_not_judge_silence_before_it_has_ticked() -> None:
    # The host's own timer may fire before the core's.
    lab = paused_leader()
    assert lab[1].granter.may_move_at(lab.now) is None
    assert refused(lambda: lab.grant(1, 3, 2)) == "lease_running"


def test_a_message_that_waited_during_the_pause_does_not_end_it() -> None:
    lab = paused_leader()
    lab.renew(2)
    (letter,) = lab.letters
    lab.letters.clear()
    lab.deliver(letter)
    assert lab[1].granter.may_move_at(lab.now) is None
    lab.settle()
    movable = lab[1].granter.may_move_at(lab.now)
    assert movable is not None
    assert movable > lab.now, "the renewal was in time to be heard"


def test_after_the_pause_one_round_is_enough_to_judge() -> None:
    lab = paused_leader()
    lab.tick(1)
    assert lab[1].granter.may_move_at(lab.now) is None
    lab.settle()
    movable = lab[1].granter.may_move_at(lab.now)
    assert movable is not None
    assert movable < lab.now


def test_a_member_that_forgot_its_log_is_not_asked_without_end() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    for _ in range(5):
        lab.propose(1)
    lab.settle()
    whole = lab.crash(2)
    then = HardState(term=whole.hard_state.term, vote=whole.hard_state.vote, commit=Index(1))
    lab.restart(2, Image(then, list(whole.entries[:2])))
    lab.link(1, 2, up=True)
    lab.settle()  # fails if it never comes to rest
    assert lab.status(1).match[NodeId(2)] == 6
