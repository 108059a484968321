"""Members that leave, members that come back, and ids that are given again (thesis §4.2)."""

import pytest

from pgraft.core.limits import APPEND_ENTRIES_MAX
from pgraft.core.types import (
    AppendReply,
    EventKind,
    NodeId,
    Role,
    Term,
    TimeoutNow,
)
from tests.support.raft_lab import Lab, refused
from tests.support.raft_member import changed
from tests.support.raft_membership import led, make, told


class TestLeaving:
    def test_a_leader_that_is_removed_hands_over_when_that_is_committed(self) -> None:
        """§4.2.2."""
        lab = led()
        make(lab, changed(remove=[1]))
        assert lab.leaders() in ([2], [3])
        assert told(lab, 1, EventKind.STEPPED_DOWN) == ["no voter any more"]
        assert told(lab, 1, EventKind.REMOVED) == [""]
        assert any("TimeoutNow" in line for line in lab.trace)

    def test_until_then_it_leads_and_does_not_count_itself(self) -> None:
        lab = led()
        lab.change(1, changed(remove=[1]))
        lab.deliver_all()
        while lab[1].config.outgoing:
            lab.deliver_all()
        lab.take(AppendReply)
        lab.letters.clear()
        assert lab.leaders() == [1]
        last = lab.status(1).last_index
        lab.send(2, 1, AppendReply(term=Term(1), ok=True, match=last))
        assert lab.status(1).commit < last, "one of {2, 3} is no majority"
        lab.send(3, 1, AppendReply(term=Term(1), ok=True, match=last))
        assert lab.status(1).commit == last
        assert lab.leaders() == []

    def test_if_nobody_is_ready_it_just_steps_down(self) -> None:
        lab = led()
        lab.change(1, changed(remove=[1]))
        while lab[2].config.outgoing or lab[2].config.voters != {2, 3}:
            lab.deliver_all()
        acks = lab.take(AppendReply)
        lab.propose(1)
        lab.letters.clear()
        for letter in acks:
            lab.deliver(letter)
        assert lab.leaders() == []
        assert lab.take(TimeoutNow) == []
        lab.elapse(3000)
        assert len(lab.leaders()) == 1

    def test_who_is_removed_learns_it_from_its_own_log(self) -> None:
        lab = led()
        make(lab, changed(remove=[3]))
        lab.beat(1)
        assert told(lab, 3, EventKind.REMOVED) == [""]
        assert lab[3].config.voters == {1, 2}
        lab.isolate(3)
        lab.elapse(5000, only=[3])
        assert lab.status(3).role is Role.FOLLOWER, "and does not campaign"

    def test_the_log_is_sent_to_it_for_a_bounded_time(self) -> None:
        lab = led()
        make(lab, changed(remove=[3]))
        lab.elapse(2900)
        assert NodeId(3) in lab.status(1).match
        lab.elapse(300)
        assert NodeId(3) not in lab.status(1).match
        lab.trace.clear()
        lab.elapse(500)
        assert not any("->3" in line for line in lab.trace)

    def test_one_that_comes_back_meanwhile_is_kept(self) -> None:
        lab = led()
        make(lab, changed(remove=[3]))
        lab.elapse(1000)
        make(lab, changed(add=[3]))
        lab.elapse(3000)
        assert NodeId(3) in lab.status(1).match

    def test_a_new_leader_tells_those_who_leave_by_what_is_not_committed(self) -> None:
        lab = led(1, 2, 3, 4)
        lab.isolate(4)
        lab.change(1, changed(remove=[4]))
        while lab[2].config.outgoing or lab[2].config.voters != {1, 2, 3}:
            lab.deliver_all()
        lab.letters.clear()
        assert lab.status(2).committed_config.outgoing
        lab.crash(1)
        lab.heal()
        lab.expire(2)
        lab.settle()
        lab.beat(2)
        assert told(lab, 4, EventKind.REMOVED) == [""]

    @pytest.mark.parametrize("long_gone", [False, True])
    def test_who_does_not_know_that_it_is_removed_disturbs_nobody(self, long_gone: bool) -> None:
        """§4.2.3."""
        lab = led(1, 2, 3, 4)
        lab.isolate(4)
        make(lab, changed(remove=[4]))
        if long_gone:
            lab.elapse(5000)
        lab.heal()
        lab.cut(1, 4)
        term = lab.status(1).term
        for _ in range(5):
            lab.elapse(1300)
        assert lab.leaders() == [1]
        assert [lab.status(n).term for n in (1, 2, 3, 4)] == [term] * 4

    def test_a_removal_that_may_not_be_committed_is_no_reason_to_keep_still(self) -> None:
        """§4.2.2: 2 needs the vote of 1, whose log is longer; so 1 must be able to win."""
        lab = led(1, 2)
        lab.change(1, changed(remove=[1]))
        while lab[1].config.outgoing:
            lab.deliver_all()
        lab.letters.clear()
        lab.restart(1)
        assert lab[1].config.voters == {2}
        assert lab[2].config.outgoing == {1, 2}
        lab.elapse(6000)
        assert lab.leaders() == [2]
        assert lab[2].config.voters == {2}
        assert told(lab, 1, EventKind.REMOVED) == [""]

    def test_a_single_node_cannot_remove_itself(self) -> None:
        assert refused(lambda: led(1).change(1, changed(remove=[1]))) == "last_voter"


class TestSecondLife:
    """A removed member's id may be given to a new member, whose log names the old one first."""

    def lab(self, *, rest_ms: int = 4000) -> Lab:
        lab = led(1, 2, 3)
        make(lab, changed(remove=[3]))
        lab.beat(1)
        lab.crash(3)
        for _ in range(2 * APPEND_ENTRIES_MAX):
            lab.propose(1)
            lab.settle()
        lab.elapse(rest_ms)
        return lab

    def test_it_neither_campaigns_nor_thinks_it_was_removed_while_it_catches_up(self) -> None:
        lab = self.lab()
        _, since = lab.change(1, changed(add=[3]))
        lab.settle()
        lab.join(3, since=since)
        lab.elapse(3000, only=[3])
        assert lab.status(3).term == 0, "the founding list means another"
        lab.beat(1)
        lab.beat(1)
        assert lab[3].config.learners == {3}
        assert told(lab, 3, EventKind.REMOVED) == []

    def test_what_the_former_one_acknowledged_does_not_count_for_it(self) -> None:
        """It comes while the leader still tells the former one that it is gone."""
        lab = self.lab(rest_ms=0)
        assert lab.status(1).match[NodeId(3)] > 0
        _, since = lab.change(1, changed(add=[3]))
        assert lab.status(1).match[NodeId(3)] == 0
        lab.settle()
        lab.join(3, since=since)
        lab.elapse(1000)
        assert lab.status(3).last_index == lab.status(1).last_index
        assert lab[3].config.learners == {3}

    def test_later_it_is_a_member_as_any(self) -> None:
        lab = self.lab()
        _, since = lab.change(1, changed(add=[3]))
        lab.settle()
        lab.join(3, since=since)
        lab.beat(1)
        lab.beat(1)
        make(lab, changed(promote=[3]))
        lab.crash(1)
        lab.elapse(3000)
        assert lab.leaders() in ([2], [3])
        lab.restart(3)
        lab.elapse(3000)
        assert len(lab.leaders()) == 1
