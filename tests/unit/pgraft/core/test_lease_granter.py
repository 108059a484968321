"""The coordinator's half of the primary lease."""

import pytest

from pgraft.core.limits import BOOTS_MAX, RENEWALS_MAX
from pgraft.core.types import (
    EntryKind,
    EventKind,
    Grant,
    Heartbeat,
    HeartbeatReply,
    NodeId,
    Release,
    Renew,
    RenewReply,
    Term,
)
from tests.support.raft_lab import MS, Lab, refused

TTL_MS = 3000
WAIT_NS = 3030 * MS + 100 * MS
"""ttl·(1 + drift) and the allowance for scheduling."""


def held(holder: int = 2) -> Lab:
    """1 leads, `holder` holds epoch 1 and has not renewed yet."""
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.grant(1, holder, 1, TTL_MS)
    lab.settle()
    return lab


def renew(epoch: int = 1, boot: int = 7, sent_at: int = 5) -> Renew:
    return Renew(epoch=epoch, boot=boot, sent_at_ns=sent_at)


def answers(lab: Lab, to: int = 2) -> list[str]:
    """Refusals, "" for a renewal that was confirmed."""
    return [
        x.message.refusal for x in lab.take(RenewReply, to=to) if isinstance(x.message, RenewReply)
    ]


def movable_in(lab: Lab) -> int | None:
    at = lab[1].granter.may_move_at(lab.now)
    return None if at is None else at - lab.now


class TestRenewal:
    def test_it_is_answered_after_a_round_that_began_after_it(self) -> None:
        lab = held()
        lab.send(2, 1, renew())
        assert answers(lab) == []
        (beat,) = lab.take(Heartbeat, to=2)
        lab.take(Heartbeat, to=3)
        lab.deliver(beat)
        lab.deliver_all()
        (letter,) = lab.take(RenewReply)
        assert letter.message == RenewReply(epoch=1, boot=7, sent_at_ns=5, ttl_ns=TTL_MS * MS)

    def test_a_round_already_under_way_proves_nothing(self) -> None:
        lab = held()
        lab.now += lab.timing.heartbeat_ns
        lab.tick(1)
        lab.deliver_all()
        old = lab.take(HeartbeatReply)
        lab.send(2, 1, renew())
        lab.letters.clear()
        for letter in old:
            lab.deliver(letter)
        assert answers(lab) == []

    def test_without_a_quorum_there_is_no_answer(self) -> None:
        lab = held()
        lab.isolate(1)
        lab.send(1, 1, renew())
        lab[1].step(NodeId(2), renew(), lab.now)
        lab.pump(1)
        lab.settle()
        assert not any("RenewReply" in line for line in lab.trace)

    def test_the_ttl_is_that_of_the_grant(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.grant(1, 2, 1, ttl_ms=30_000)
        lab.settle()
        lab.renew(2)
        lab.settle()
        assert lab[2].holder.deadline_ns == lab.now + 29_700 * MS

    @pytest.mark.parametrize(
        ("sender", "epoch", "refusal"),
        [(3, 1, "not_holder"), (2, 2, "not_holder"), (2, 0, "not_holder")],
    )
    def test_only_the_holder_of_the_applied_epoch_is_answered(
        self, sender: int, epoch: int, refusal: str
    ) -> None:
        lab = held()
        lab.send(sender, 1, renew(epoch))
        assert answers(lab, to=sender) == [refusal]

    def test_a_stranger_is_refused_as_anybody_who_does_not_hold_it(self) -> None:
        lab = held()
        lab.send(9, 1, renew())
        assert answers(lab, to=9) == ["not_holder"]

    def test_before_any_grant_there_is_nothing_to_renew(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.send(2, 1, renew())
        assert answers(lab) == ["not_holder"]

    def test_who_does_not_lead_refuses(self) -> None:
        lab = held()
        lab.send(2, 3, renew())
        assert answers(lab) == ["not_leader"]

    def test_while_sealing_it_is_refused(self) -> None:
        lab = held()
        lab[1].granter.seal(1)
        lab.send(2, 1, renew())
        assert answers(lab) == ["sealing"]
        lab[1].granter.unseal()
        lab.send(2, 1, renew())
        lab.settle()
        assert "1->2 RenewReply epoch 1 ttl 3000 ms" in lab.trace

    def test_sealing_between_receipt_and_round_counts_too(self) -> None:
        lab = held()
        lab.send(2, 1, renew())
        lab[1].granter.seal(1)
        lab.settle()
        assert "1->2 RenewReply epoch 1 refused: sealing" in lab.trace

    def test_a_seal_of_another_epoch_does_not_matter(self) -> None:
        lab = held()
        lab[1].granter.seal(2)
        lab.send(2, 1, renew())
        assert answers(lab) == []

    def test_waiting_renewals_are_bounded(self) -> None:
        lab = held()
        lab.isolate(1)
        for _ in range(RENEWALS_MAX + 1):
            lab[1].step(NodeId(2), renew(), lab.now)
        lab.pump(1)
        assert answers(lab) == ["busy"]

    def test_when_leadership_is_lost_the_waiting_ones_are_refused(self) -> None:
        lab = held()
        lab.send(2, 1, renew())
        lab.letters.clear()
        lab.send(3, 1, Heartbeat(term=Term(9), commit=lab.status(1).commit, round=1))
        assert answers(lab) == ["not_leader"]

    def test_during_a_transfer_renewals_go_on(self) -> None:
        """A confirmed round proves leadership whatever the leader intends."""
        lab = held()
        lab.isolate(3)
        lab.transfer(1, 3)
        lab.send(2, 1, renew())
        lab.settle()
        assert "1->2 RenewReply epoch 1 ttl 3000 ms" in lab.trace


class TestMoving:
    def test_the_first_epoch_may_be_granted_at_once(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        assert movable_in(lab) == 0
        lab.grant(1, 3, 1)
        lab.settle()
        assert (lab.status(2).epoch, lab.status(2).holder) == (1, 3)

    def test_a_new_holder_gets_a_full_ttl_to_be_heard(self) -> None:
        lab = held()
        assert movable_in(lab) == WAIT_NS

    def test_each_answered_renewal_counts_from_its_receipt(self) -> None:
        lab = held()
        lab.now += 1000 * MS
        lab.send(2, 1, renew())
        lab.now += 50 * MS
        lab.settle()
        assert movable_in(lab) == WAIT_NS - 50 * MS

    def test_a_renewal_that_was_not_answered_does_not_count(self) -> None:
        lab = held()
        lab.now += 500 * MS
        lab[1].granter.seal(1)
        lab.send(2, 1, renew())
        lab.settle()
        assert movable_in(lab) == WAIT_NS - 500 * MS

    def test_the_lease_bars_the_grant_until_the_last_nanosecond(self) -> None:
        lab = held()
        granted = lab.now
        lab.isolate(2)
        lab.elapse(3000, only=[1, 3])
        lab.now = granted + WAIT_NS - 1
        assert refused(lambda: lab.grant(1, 3, 2)) == "lease_running"
        lab.now += 1
        assert refused(lambda: lab.grant(1, 3, 2)) == ""

    def test_a_release_moves_it_at_once(self) -> None:
        lab = held()
        lab.renew(2)
        lab.settle()
        lab.release(2, b"0/3000148")
        lab.settle()
        assert lab[1].granter.released(1) == b"0/3000148"
        assert lab[1].granter.released(2) is None
        assert movable_in(lab) == 0
        lab.grant(1, 2, 2)
        lab.settle()
        assert lab[2].holder.epoch == 2, "the same node gets the next epoch, never the old one"

    def test_a_new_coordinator_waits_one_full_ttl_from_its_election(self) -> None:
        lab = held()
        lab.elapse(2000)
        lab.transfer(1, 3)
        lab.settle()
        assert lab.leaders() == [3]
        assert lab[3].granter.may_move_at(lab.now) == lab.now + WAIT_NS
        assert lab[1].granter.may_move_at(lab.now) is None

    def test_a_new_coordinator_waits_for_the_ttl_that_was_granted(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.grant(1, 2, 1, ttl_ms=30_000)
        lab.settle()
        lab.transfer(1, 3)
        lab.settle()
        assert lab[3].granter.may_move_at(lab.now) == lab.now + 30_300 * MS + 100 * MS

    def test_a_coordinator_without_a_commit_in_its_term_does_not_know(self) -> None:
        lab = held()
        lab.elapse(1000)
        lab.isolate(3)
        lab.crash(1)
        lab.expire(2)
        lab.heal()
        for _ in range(20):
            if lab.leaders() == [2]:
                break
            lab.deliver_all()
        assert lab[2].granter.may_move_at(lab.now) is None
        assert refused(lambda: lab.grant(2, 3, 2)) == "not_ready"
        assert refused(lambda: lab.propose(2)) == ""

    def test_after_its_own_pause_a_coordinator_first_completes_a_round(self) -> None:
        lab = held()
        lab.renew(2)
        lab.settle()
        lab.now += 5000 * MS
        lab.renew(2)
        lab.tick(1)
        assert movable_in(lab) is None
        assert refused(lambda: lab.grant(1, 3, 2)) == "lease_running"
        lab.settle()
        assert movable_in(lab) == WAIT_NS, "the renewal that had waited in the queue counts"
        assert EventKind.PAUSED in [event.kind for event in lab.members[1].events]

    @pytest.mark.parametrize("epoch", [1, 3, 0])
    def test_only_the_next_epoch_can_be_granted(self, epoch: int) -> None:
        lab = held()
        assert refused(lambda: lab.grant(1, 2, epoch)) == "wrong_epoch"

    def test_one_grant_at_a_time(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.grant(1, 2, 1)
        assert refused(lambda: lab.grant(1, 3, 1)) == "grant_in_flight"

    def test_only_the_coordinator_grants(self) -> None:
        lab = held()
        assert refused(lambda: lab.grant(2, 2, 2)) == "not_leader"

    def test_a_void_grant_changes_nothing(self) -> None:
        """Two grants of one epoch in the log: the second is ignored by everybody."""
        lab = held()
        lab[1]._parts.replication.append(
            EntryKind.GRANT, grant=Grant(holder=NodeId(3), epoch=1, ttl_ns=1)
        )
        lab.pump(1)
        lab.settle()
        assert [(lab.status(n).epoch, lab.status(n).holder) for n in (1, 2, 3)] == [(1, 2)] * 3
        assert lab.status(1).applied == 3


class TestRelease:
    def release(self, epoch: int = 1, boot: int = 7, sent_at: int = 50) -> Release:
        return Release(epoch=epoch, boot=boot, sent_at_ns=sent_at, evidence=b"end")

    def test_only_of_the_holder_and_the_applied_epoch(self) -> None:
        lab = held()
        lab.send(3, 1, self.release())
        lab.send(2, 1, self.release(epoch=2))
        lab.send(2, 3, self.release())
        assert lab[1].granter.released(1) is None
        assert lab[3].granter.released(1) is None
        assert lab[1].granter.released(2) is None

    def test_before_any_grant_it_means_nothing(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.send(2, 1, self.release())
        assert lab[1].granter.released(1) is None

    def test_a_later_renewal_of_the_same_boot_makes_it_void(self) -> None:
        lab = held()
        lab.send(2, 1, renew(sent_at=51))
        lab.send(2, 1, self.release(sent_at=50))
        assert lab[1].granter.released(1) is None

    def test_an_earlier_renewal_does_not(self) -> None:
        lab = held()
        lab.send(2, 1, renew(sent_at=51))
        lab.send(2, 1, renew(sent_at=49))
        lab.send(2, 1, self.release(sent_at=51))
        assert lab[1].granter.released(1) == b"end"

    def test_nor_does_one_of_another_boot(self) -> None:
        lab = held()
        lab.send(2, 1, renew(boot=6, sent_at=10**12))
        lab.send(2, 1, self.release())
        assert lab[1].granter.released(1) == b"end"

    def test_the_first_one_counts_and_is_told_once(self) -> None:
        lab = held()
        lab.send(2, 1, self.release())
        lab.send(2, 1, self.release())
        kinds = [event.kind for event in lab.members[1].events]
        assert kinds.count(EventKind.RELEASED) == 1

    def test_after_it_no_renewal_is_answered(self) -> None:
        lab = held()
        lab.send(2, 1, renew())
        lab.send(2, 1, self.release())
        lab.send(2, 1, renew(sent_at=60))
        assert answers(lab) == ["released"]
        lab.settle()
        assert lab.trace.count("1->2 RenewReply epoch 1 refused: released") == 1

    def test_a_new_coordinator_hears_it_because_it_is_repeated(self) -> None:
        lab = held()
        lab.elapse(100)
        lab.release(2)
        lab.settle()
        lab.transfer(1, 3)
        lab.settle()
        assert lab[3].granter.released(1) is None
        lab.elapse(300)
        assert lab[3].granter.released(1) == b"end"

    def test_the_memory_of_boots_is_bounded(self) -> None:
        lab = held()
        for boot in range(BOOTS_MAX + 3):
            lab.send(2, 1, renew(boot=boot, sent_at=100))
            lab.settle()
        assert len(lab[1].granter._newest) == BOOTS_MAX
