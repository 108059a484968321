"""From when a new coordinator waits, how long, and what a suspect clock changes (C2, C3, M1)."""

import math

import pytest

from pgraft.core.types import EventKind, NodeId, Renew, Role, Term, VoteReply
from tests.support.raft_lab import MS, Lab, refused
from tests.support.raft_member import changed

WAIT_NS = 3030 * MS + 100 * MS
"""ttl·(1 + drift) and the allowance for scheduling."""
SUSPECT_NS = math.ceil(3000 * MS * 1.1 * 1.01) + 100 * MS


def held(*nodes: int, ttl_ms: int = 3000) -> Lab:
    """1 leads, 2 holds epoch 1 and has just renewed."""
    lab = Lab(*(nodes or (1, 2, 3)))
    lab.elect(1)
    lab.grant(1, 2, 1, ttl_ms)
    lab.settle()
    lab.renew(2)
    lab.settle()
    return lab


def suspect(lab: Lab, node: int, is_suspect: bool = True) -> None:
    lab[node].clock_suspect(is_suspect, lab.now)
    lab.pump(node)


def lead_after_death(lab: Lab, node: int = 3) -> int:
    """1 dies; `node` is elected after its timeout. Returns when 1 was last heard by the voters."""
    heard = max(lab[n]._parts.election.contact_ns for n in lab.members if n != 1)
    lab.crash(1)
    lab.expire(node)
    lab.settle()
    assert lab.leaders() == [node]
    return heard


def movable(lab: Lab, node: int) -> int:
    at = lab[node].granter.may_move_at(lab.now)
    assert at is not None
    return at


class TestDating:
    def test_the_wait_counts_from_the_newest_contact_not_from_the_election(self) -> None:
        lab = held()
        heard = lead_after_death(lab)
        assert lab.now > heard + 600 * MS
        assert movable(lab, 3) == heard + WAIT_NS

    def test_the_newest_of_the_votes_that_count_not_the_oldest(self) -> None:
        lab = held(1, 2, 3, 4, 5)
        lab.cut(1, 4)
        lab.now += 300 * MS
        lab.tick(1)
        lab.settle()
        newest = lab.now
        lab.crash(1)
        lab.expire(4)
        lab.settle()
        if lab.leaders() != [4]:
            lab.expire(4)
            lab.settle()
        assert movable(lab, 4) == newest + WAIT_NS, "4 itself heard nothing since"

    def test_our_own_contact_counts(self) -> None:
        lab = held(1, 2, 3, 4, 5)
        for node in (2, 3):
            lab.cut(1, node)
        lab.now += 300 * MS
        lab.tick(1)
        lab.settle()
        newest = lab.now
        lab.crash(1)
        for node in (2, 3):
            lab.cut(node, 5)
            lab.cut(4, node)
        lab.heal()
        lab.cut(4, 5)
        lab.expire(4)
        lab.settle()
        assert lab.leaders() == [4]
        assert movable(lab, 4) == newest + WAIT_NS

    def test_votes_that_were_refused_or_do_not_count_date_nothing(self) -> None:
        lab = held()
        lab.crash(1)
        lab.expire(3)
        lab.deliver_all()
        lab.deliver_all()
        contact = lab[3]._parts.election.contact_ns
        age = lab.now - contact
        for voter, reply in (
            (9, VoteReply(term=Term(2), granted=True, contact_age_ns=0)),
            (2, VoteReply(term=Term(2), granted=True, contact_age_ns=age + 5)),
        ):
            lab.send(voter, 3, reply)
        lab.settle()
        assert movable(lab, 3) == contact + WAIT_NS

    def test_a_refusal_dates_nothing(self) -> None:
        lab = held(1, 2, 3, 4, 5)
        contact = lab[3]._parts.election.contact_ns
        lab.crash(1)
        lab.expire(3)
        lab.deliver_all()
        lab.deliver_all()
        assert lab.status(3).role is Role.CANDIDATE
        lab.send(5, 3, VoteReply(term=Term(2), granted=False))
        lab.settle()
        assert lab.leaders() == [3]
        assert movable(lab, 3) == contact + WAIT_NS

    def test_a_vote_without_an_age_is_taken_for_the_newest(self) -> None:
        lab = held()
        lab.crash(1)
        lab.expire(3)
        lab.deliver_all()
        lab.deliver_all()
        lab.letters.clear()
        lab.send(2, 3, VoteReply(term=Term(2), granted=True))
        elected = lab.now
        lab.elapse(1)
        lab.settle()
        assert movable(lab, 3) == elected + WAIT_NS

    def test_a_voter_that_was_restarted_dates_from_its_start(self) -> None:
        lab = held()
        lab.now += 400 * MS
        lab.restart(2)
        started = lab.now
        lab.crash(1)
        lab.expire(3)
        lab.settle()
        if lab.leaders() != [3]:
            lab.expire(3)
            lab.settle()
        assert movable(lab, 3) == started + WAIT_NS

    def test_a_renewal_that_it_answers_counts_anew(self) -> None:
        lab = held()
        lead_after_death(lab)
        lab.now += 50 * MS
        lab.renew(2)
        asked = lab.now
        lab.settle()
        assert movable(lab, 3) == asked + WAIT_NS

    def test_votes_of_a_lost_election_are_not_kept(self) -> None:
        lab = held()
        lab.crash(1)
        lab.expire(3)
        lab.deliver_all()
        lab.deliver_all()
        assert lab.status(3).role is Role.CANDIDATE
        lab.letters.clear()
        lab.expire(3)
        lab.settle()
        assert lab.leaders() == [3]
        assert len(lab[3]._parts.election._contacts) == 2


class TestSuspectClocks:
    def test_a_holder_with_a_suspect_clock_does_not_renew(self) -> None:
        lab = held()
        suspect(lab, 2)
        assert not lab[2].holder.renew(lab.now)
        assert lab.take(Renew) == []
        suspect(lab, 2, False)
        assert lab[2].holder.renew(lab.now)

    def test_it_is_told_once(self) -> None:
        lab = held()
        for is_suspect in (True, True, False, False):
            suspect(lab, 2, is_suspect)
        told = [e.detail for e in lab.members[2].events if e.kind is EventKind.CLOCK]
        assert told == ["suspect", "sound"]

    def test_a_suspect_coordinator_dates_nothing_and_waits_longer(self) -> None:
        lab = held()
        suspect(lab, 3)
        lead_after_death(lab)
        assert movable(lab, 3) == lab.now + SUSPECT_NS

    def test_nor_does_one_that_counted_a_suspect_vote(self) -> None:
        lab = held()
        suspect(lab, 2)
        lead_after_death(lab)
        assert movable(lab, 3) == lab.now + SUSPECT_NS

    def test_a_suspect_vote_that_was_not_counted_does_not_matter(self) -> None:
        lab = held(1, 2, 3, 4, 5)
        suspect(lab, 5)
        lab.isolate(5)
        heard = lead_after_death(lab)
        assert movable(lab, 3) == heard + WAIT_NS

    def test_a_clock_that_becomes_suspect_later_voids_the_dating(self) -> None:
        lab = held()
        lead_after_death(lab)
        elected = lab.now
        lab.now += 10 * MS
        suspect(lab, 3)
        assert movable(lab, 3) == elected + SUSPECT_NS
        suspect(lab, 3, False)
        assert movable(lab, 3) == elected + SUSPECT_NS, "what it showed meanwhile is not known"
        lab.renew(2)
        asked = lab.now
        lab.settle()
        assert movable(lab, 3) == asked + WAIT_NS

    def test_while_it_is_suspect_every_wait_is_longer(self) -> None:
        lab = held()
        suspect(lab, 1)
        lab.renew(2)
        lab.settle()
        assert movable(lab, 1) == lab.now + SUSPECT_NS


class TestTtl:
    def change(self, lab: Lab, ttl_ms: int, *, node: int = 1, epoch: int = 1) -> None:
        lab.change_ttl(node, epoch, ttl_ms)

    def test_it_is_used_once_it_is_committed(self) -> None:
        """C3."""
        lab = held()
        lab.isolate(3)
        self.change(lab, 30_000)
        lab.letters.clear()
        lab.renew(2)
        lab.deliver_all()
        before = lab[2].holder.deadline_ns
        assert before <= lab.now + 3000 * MS
        lab.heal()
        lab.beat(1)
        lab.renew(2)
        lab.settle()
        assert lab[2].holder.deadline_ns == lab.now + 29_700 * MS
        assert movable(lab, 1) == lab.now + 30_300 * MS + 100 * MS

    def test_every_later_coordinator_waits_for_the_longer_one(self) -> None:
        lab = held()
        self.change(lab, 30_000)
        lab.settle()
        lab.renew(2)
        lab.settle()
        heard = lead_after_death(lab)
        assert movable(lab, 3) == heard + 30_300 * MS + 100 * MS
        assert movable(lab, 3) > lab[2].holder.deadline_ns

    def test_a_lower_one_is_waited_out_from_when_it_was_learnt(self) -> None:
        lab = held(ttl_ms=30_000)
        lab.now += 100 * MS
        self.change(lab, 3000)
        lab.settle()
        learnt = lab.now
        old = 30_300 * MS + 100 * MS
        for _ in range(3):
            lab.renew(2)
            lab.beat(1)
        assert movable(lab, 1) == learnt + old, "renewals since then were for less"
        heard = lead_after_death(lab)
        assert movable(lab, 3) == learnt + old
        assert movable(lab, 3) < heard + old

    def test_when_the_old_one_is_over_only_the_new_one_counts(self) -> None:
        lab = held(ttl_ms=5000)
        self.change(lab, 3000)
        lab.settle()
        for _ in range(70):
            lab.renew(2)
            lab.beat(1)
        assert movable(lab, 1) == lab.now + WAIT_NS

    def test_a_restart_learns_it_anew(self) -> None:
        """Later than true is safe."""
        lab = held(ttl_ms=30_000)
        self.change(lab, 3000)
        lab.settle()
        lab.compact(3)
        lab.now += 2000 * MS
        lab.restart(3)
        started = lab.now
        lab.crash(1)
        lab.elapse(2500)
        (leader,) = lab.leaders()
        if leader != 3:
            lab.transfer(leader, 3)
            lab.settle()
        assert movable(lab, 3) == started + 30_300 * MS + 100 * MS

    def test_it_ends_with_the_epoch(self) -> None:
        lab = held()
        self.change(lab, 30_000)
        lab.settle()
        lab.release(2)
        lab.settle()
        lab.grant(1, 3, 2)
        lab.settle()
        assert movable(lab, 1) == lab.now + WAIT_NS

    def test_for_another_epoch_it_is_refused_and_void(self) -> None:
        lab = held()
        assert refused(lambda: self.change(lab, 1000, epoch=2)) == "wrong_epoch"
        lab.release(2)
        lab.settle()
        lab.grant(1, 3, 2)
        self.change(lab, 30_000)
        lab.settle()
        lab.renew(3)
        lab.settle()
        assert lab[3].holder.deadline_ns <= lab.now + 3000 * MS

    def test_before_any_grant_there_is_nothing_to_change(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        assert refused(lambda: self.change(lab, 1000, epoch=0)) == "wrong_epoch"

    def test_only_a_coordinator_that_knows_the_epoch_changes_it(self) -> None:
        lab = held()
        assert refused(lambda: self.change(lab, 1000, node=2)) == "not_leader"
        lab.crash(1)
        lab.expire(3)
        while lab.leaders() != [3]:
            lab.deliver_all()
        assert refused(lambda: self.change(lab, 1000, node=3)) == "not_ready"

    @pytest.mark.parametrize("ttl_ns", [0, -1])
    def test_nothing_is_no_ttl(self, ttl_ns: int) -> None:
        lab = held()
        with pytest.raises(ValueError, match="longer than nothing"):
            lab[1].change_ttl(1, ttl_ns, lab.now)


class TestChangesOfMembership:
    def test_a_quorum_of_the_configuration_before_dates_the_wait(self) -> None:
        """The round that confirmed the last renewal was judged by a configuration that the new
        coordinator does not know: the one before it, which it has, meets it."""
        lab = held()
        lab.join(4)
        lab.change(1, changed(add=[4]))
        lab.settle()
        lab.beat(1)
        lab.isolate(3)
        lab.change(1, changed(promote=[4], remove=[3]))
        lab.settle()
        lab.now += 200 * MS
        lab.renew(2)
        lab.settle()
        renewed = lab.now
        lab.crash(1)
        lab.heal()
        lab.elapse(4000, only=[2, 3])
        leaders = [n for n in lab.leaders() if n != 1]
        assert leaders == [2], "3 lacks what is committed"
        assert lab[2].holder.deadline_ns < renewed + WAIT_NS <= movable(lab, 2)
        assert lab.status(2).config.voters == {NodeId(1), NodeId(2), NodeId(4)}
