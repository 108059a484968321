"""Interleavings that broke earlier drafts of the lease. Each fails when its rule is taken out."""

from pgraft.core.types import (
    Append,
    NodeId,
    Release,
    Renew,
    RenewReply,
    Role,
    VoteReply,
)
from tests.support.raft_lab import MS, Lab


def held(*nodes: int) -> Lab:
    """1 leads, 2 holds epoch 1 and has just renewed."""
    lab = Lab(*(nodes or (1, 2, 3)))
    lab.elect(1)
    lab.grant(1, 2, 1)
    lab.settle()
    lab.renew(2)
    lab.settle()
    assert lab[2].holder.deadline_ns > lab.now
    return lab


def lease_of(lab: Lab, node: int, epoch: int) -> bool:
    holder = lab[node].holder
    return holder.epoch == epoch and holder.deadline_ns > lab.now


def test_c1a_a_late_renewal_meets_the_next_grant_in_the_log() -> None:
    """A's lease ends; the next grant is appended but not committed; A's late renewal arrives."""
    lab = held()
    lab.renew(2)
    late = lab.take(Renew)
    lab.isolate(2)
    lab.elapse(3200, only=[1, 3])
    lab.grant(1, 3, 2)
    lab.heal()
    for letter in late:
        lab.deliver(letter)
    lab.take(Append)
    lab.settle()
    assert not lease_of(lab, 2, 1)
    assert any("RenewReply epoch 1 refused: grant_in_flight" in line for line in lab.trace)


def test_c1a_a_renewal_received_before_the_grant_was_appended_is_tested_again() -> None:
    lab = held()
    lab.isolate(2)
    lab.elapse(3200, only=[1, 3])
    lab.heal()
    lab[1].step(
        NodeId(2),
        Renew(epoch=1, boot=lab.members[2].boot, sent_at_ns=lab.now),
        lab.now,
    )
    lab.grant(1, 3, 2)
    lab.settle()
    assert any("RenewReply epoch 1 refused" in line for line in lab.trace)
    assert not lease_of(lab, 2, 1)


def test_c1_a_slow_answer_does_not_lengthen_the_lease() -> None:
    """The coordinator counts from when the renewal arrived; the holder from when it was sent."""
    lab = held()
    lab.renew(2)
    for _ in range(3):
        lab.deliver_all()
    movable = lab[1].granter.may_move_at(lab.now)
    assert movable is not None
    lab.now += 2000 * MS
    lab.settle()
    assert lab[2].holder.deadline_ns < movable


def test_c1b_a_new_coordinator_does_not_renew_before_its_own_entry_is_applied() -> None:
    """L1 appends the next grant, on itself and 4 only, and is cut off. L2 renews A by heartbeats
    before its own entry is committed, and dies. 4 has the longer log, is elected, and commits the
    old grant while A holds the lease it had from L2.
    """
    lab = held(1, 2, 3, 4, 5)
    lab.isolate(2)
    lab.elapse(3200, only=[1, 3, 4, 5])
    for node in (3, 5):
        lab.cut(1, node)
    lab.grant(1, 4, 2)
    lab.deliver_all()
    assert lab.status(4).last_index == lab.status(1).last_index
    lab.letters.clear()
    lab.heal()
    lab.isolate(1)
    lab.isolate(4)
    lab.expire(3)
    deliver_all_but_appends(lab)
    assert lab.status(3).role is Role.LEADER
    lab.renew(2)
    deliver_all_but_appends(lab)
    lab.crash(3)
    lab.heal()
    for _ in range(3):  # it first has to learn the term L2 had
        lab.expire(4)
        lab.settle()
        if lab.status(4).role is Role.LEADER:
            break
    lab.renew(4)
    lab.settle()
    assert lease_of(lab, 4, 2)
    assert not lease_of(lab, 2, 1)
    assert any("RenewReply epoch 1 refused: not_ready" in line for line in lab.trace)


def deliver_all_but_appends(lab: Lab) -> None:
    """Rounds get through, entries do not."""
    for _ in range(20):
        lab.take(Append)
        lab.deliver_all()


def test_c2_a_transfer_does_not_shorten_the_wait() -> None:
    """The only common voter of both quorums is the old leader, which never heard a leader."""
    lab = held()
    lab.elapse(500)
    lab.isolate(3)
    lab.renew(2)
    lab.settle()
    renewed = lab.now
    lab.cuts = {(2, 3), (3, 2), (1, 2), (2, 1)}
    lab.transfer(1, 3)
    lab.now += lab.timing.heartbeat_ns
    lab.tick(1)
    lab.settle()
    assert lab.leaders() == [3]
    movable = lab[3].granter.may_move_at(lab.now)
    assert movable is not None
    assert movable > renewed + 3000 * MS
    assert lab[2].holder.deadline_ns < movable


def test_c2_a_leader_that_steps_down_was_its_own_contact_until_then() -> None:
    lab = held()
    lab.elapse(1000)
    stepped_down = lab.now
    lab.transfer(1, 3)
    lab.deliver_all()
    lab.deliver_all()
    (letter,) = [x for x in lab.take(VoteReply, to=3) if x.sender == 1]
    assert isinstance(letter.message, VoteReply)
    assert letter.message.granted
    assert letter.message.contact_age_ns == lab.now - stepped_down


def test_c2_a_new_term_does_not_clear_the_contact() -> None:
    lab = held()
    contact = lab[3]._parts.election.contact_ns
    lab.crash(1)
    lab.expire(2)
    for _ in range(3):
        lab.deliver_all()
    assert lab.status(3).term == 2
    assert lab[3]._parts.election.contact_ns == contact


def test_c2_after_a_start_the_contact_is_the_start() -> None:
    lab = held()
    lab.now += 10_000 * MS
    lab.restart(3)
    assert lab[3]._parts.election.contact_ns == lab.now


def test_c3_a_longer_lease_is_waited_for_by_every_coordinator() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.grant(1, 2, 1, ttl_ms=30_000)
    lab.settle()
    lab.renew(2)
    lab.settle()
    deadline = lab[2].holder.deadline_ns
    lab.crash(1)
    lab.elapse(3000)
    (leader,) = lab.leaders()
    movable = lab[leader].granter.may_move_at(lab.now)
    assert movable is not None
    assert movable > deadline


def test_c4a_an_answer_in_flight_does_not_undo_a_fence() -> None:
    lab = held()
    lab.renew(2)
    for _ in range(3):
        lab.deliver_all()
    in_flight = lab.take(RenewReply)
    assert in_flight
    lab.release(2)
    for letter in in_flight:
        lab.deliver(letter)
    lab.settle()
    lab.isolate(2)
    lab.grant(1, 3, 2)
    lab.settle()
    lab.renew(3)
    lab.settle()
    assert lease_of(lab, 3, 2)
    assert not lease_of(lab, 2, 1)


def test_c4b_an_old_release_read_late_meets_a_daemon_that_kept_its_word() -> None:
    """A fences; its Release hangs in the old connection; the daemon restarts; then it is read."""
    lab = held()
    lab.release(2)
    old_release = lab.take(Release)
    lab.restart(2)
    lab.beat(1)
    lab.elapse(200)
    lab.renew(2)
    lab.settle()
    for letter in old_release:
        lab.deliver(letter)
    lab.isolate(2)
    lab.grant(1, 3, 2)
    lab.settle()
    lab.renew(3)
    lab.settle()
    assert lease_of(lab, 3, 2)
    assert not lease_of(lab, 2, 1)


def test_c4_a_release_overtaken_by_a_later_renewal_of_the_same_daemon_is_void() -> None:
    lab = held()
    boot = lab.members[2].boot
    lab.now += 50 * MS
    lab.send(2, 1, Release(epoch=1, boot=boot, sent_at_ns=lab.now - 20 * MS))
    assert lab[1].granter.released(1) is not None
    other = held()
    other.renew(2)
    other.settle()
    boot = other.members[2].boot
    other.send(2, 1, Release(epoch=1, boot=boot, sent_at_ns=other.now - 1))
    assert other[1].granter.released(1) is None


def test_h2a_between_seal_and_unseal_no_renewal_is_answered_and_a_round_does_not_help() -> None:
    lab = held()
    lab[1].granter.seal(1)
    before = lab[2].holder.deadline_ns
    for _ in range(5):
        lab.now += 100 * MS
        lab.renew(2)
        lab.beat(1)
    assert lab[2].holder.deadline_ns == before
