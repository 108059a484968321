"""Changes of membership (thesis §4), one test per claim that matters."""

import pytest

from pgraft.core.limits import LEARNER_LAG_ENTRIES_MAX
from pgraft.core.types import (
    Append,
    Change,
    Config,
    EventKind,
    HardState,
    Index,
    NodeId,
    Recovered,
    Role,
    Term,
    VoteReply,
    VoteRequest,
)
from tests.support.raft_lab import Lab, entries, refused
from tests.support.raft_member import changed, halves
from tests.support.raft_membership import led, make, told, with_four


class TestRefusals:
    def test_only_the_leader_changes(self) -> None:
        assert refused(lambda: led().change(2, changed(remove=[3]))) == "not_leader"

    def test_not_during_a_transfer(self) -> None:
        lab = led()
        lab.isolate(3)
        lab.transfer(1, 3)
        assert refused(lambda: lab.change(1, changed(remove=[3]))) == "transferring"

    def test_not_before_an_entry_of_the_own_term_is_committed(self) -> None:
        """The bug of single-server changes (raft-dev, July 2015); §4.1 as corrected."""
        lab = Lab(1, 2, 3)
        lab.expire(1)
        while lab.leaders() != [1]:
            lab.deliver_all()
        assert refused(lambda: lab.change(1, changed(remove=[3]))) == "not_ready"
        lab.settle()
        assert refused(lambda: lab.change(1, changed(remove=[3]))) == ""

    def test_one_at_a_time(self) -> None:
        """§4.1: not before the last one is committed; and a joint one must be left first."""
        lab = with_four()
        lab.change(1, changed(promote=[4]))
        assert refused(lambda: lab.change(1, changed(remove=[2]))) == "change_in_flight"
        lab.take(Append)
        lab.settle()
        assert refused(lambda: lab.change(1, changed(remove=[2]))) == "change_in_flight"
        lab.beat(1)
        lab.beat(1)
        assert refused(lambda: lab.change(1, changed(remove=[2]))) == ""

    def test_a_change_of_learners_counts_as_one_and_so_does_leaving(self) -> None:
        lab = led()
        lab.change(1, changed(add=[4]))
        assert refused(lambda: lab.change(1, changed(add=[5]))) == "change_in_flight"
        lab.settle()
        lab.change(1, changed(remove=[3]))
        while lab[1].config.outgoing:
            lab.deliver_all()
        assert refused(lambda: lab.change(1, changed(add=[5]))) == "change_in_flight"

    def test_what_makes_no_sense_is_refused_here_too(self) -> None:
        assert refused(lambda: led().change(1, Change())) == "nothing_to_change"

    @pytest.mark.parametrize(("missing", "why"), [(0, ""), (1, "learner_behind")])
    def test_a_learner_must_be_near_before_it_is_promoted(self, missing: int, why: str) -> None:
        """§4.2.1: else commits would wait for it."""
        lab = with_four()
        lab.isolate(4)
        for _ in range(LEARNER_LAG_ENTRIES_MAX + missing):
            lab.propose(1)
        lab.settle()
        assert refused(lambda: lab.change(1, changed(promote=[4]))) == why

    def test_and_alive(self) -> None:
        lab = with_four()
        lab.isolate(4)
        lab.elapse(500, only=[1, 2, 3])
        assert refused(lambda: lab.change(1, changed(promote=[4]))) == ""
        lab = with_four()
        lab.isolate(4)
        lab.elapse(700, only=[1, 2, 3])
        assert refused(lambda: lab.change(1, changed(promote=[4]))) == "learner_behind"


class TestJoint:
    def test_a_configuration_holds_from_its_append(self) -> None:
        """§4.1: a server uses the newest one in its log, committed or not."""
        lab = led()
        lab.change(1, changed(remove=[3]))
        status = lab.status(1)
        assert halves(status.config) == ({1, 2}, {1, 2, 3})
        assert status.committed_config.voters == {1, 2, 3}
        assert told(lab, 1, EventKind.CONFIG_CHANGED) == ["voters 1 2, before 1 2 3"]

    def test_it_is_left_by_itself_once_committed(self) -> None:
        lab = with_four()
        make(lab, changed(promote=[4]))
        for node in (1, 2, 3, 4):
            assert lab[node].config.voters == {1, 2, 3, 4}
            assert lab[node].config.outgoing == set()
        assert lab.status(1).committed_config == lab[1].config

    def test_a_new_leader_leaves_what_another_entered(self) -> None:
        """openraft: a group must not stay joint because its leader died."""
        lab = with_four()
        lab.change(1, changed(promote=[4]))
        lab.deliver_all()
        lab.letters.clear()
        lab.crash(1)
        lab.elapse(3000)
        (leader,) = lab.leaders()
        assert lab[leader].config.voters == {1, 2, 3, 4}
        assert lab[leader].config.outgoing == set()

    def test_commits_need_both_halves(self) -> None:
        lab = led(1, 2, 3, 4, 5)
        make(lab, changed(demote=[4, 5]))
        assert lab[1].config.voters == {1, 2, 3}
        lab.isolate(4)
        lab.isolate(5)
        lab.beat(1)
        lab.heal()
        lab.beat(1)
        lab.change(1, changed(promote=[4, 5], demote=[2, 3]))
        lab.take(Append, to=2)
        lab.take(Append, to=3)
        lab.settle()
        assert lab.status(1).config.outgoing == {1, 2, 3}, "4 and 5 alone do not commit it"

    def test_a_leader_that_hears_only_one_half_steps_down(self) -> None:
        lab = led(1, 2, 3, 4, 5)
        make(lab, changed(demote=[4, 5]))
        lab.change(1, changed(promote=[4, 5], demote=[2, 3]))
        for node in (2, 3):
            lab.isolate(node)
        lab.elapse(700, only=[1, 4, 5])
        assert lab.leaders() == []

    def test_a_round_needs_both_halves(self) -> None:
        lab = led(1, 2, 3, 4, 5)
        make(lab, changed(demote=[4, 5]))
        lab.change(1, changed(promote=[4, 5], demote=[2, 3]))
        for node in (2, 3):
            lab.isolate(node)
        lab.read(1, 7)
        lab.settle()
        assert lab.members[1].reads == []

    def test_a_dead_member_is_replaced_in_one_change(self) -> None:
        lab = with_four()
        lab.crash(3)
        make(lab, changed(promote=[4], remove=[3]))
        assert lab[1].config.voters == {1, 2, 4}
        lab.isolate(2)
        lab.propose(1, b"by 1 and 4")
        lab.settle()
        assert lab.commands(4)[-1] == b"by 1 and 4"

    def test_it_is_reverted_with_its_entry(self) -> None:
        """§4.1: a configuration whose entry is cut was never in effect."""
        lab = led()
        lab.isolate(1)
        lab.change(1, changed(remove=[3]))
        assert lab[1].config.outgoing == {1, 2, 3}
        lab.elapse(3000, only=[2, 3])
        (leader,) = set(lab.leaders()) - {1}
        lab.heal()
        lab.beat(leader)
        lab.beat(leader)
        assert lab[1].config == lab[2].config
        assert lab[1].config.voters == {1, 2, 3}
        assert told(lab, 1, EventKind.CONFIG_CHANGED) == [
            "voters 1 2, before 1 2 3",
            "voters 1 2 3",
        ]

    def test_in_a_group_of_one_all_of_it_happens_at_once(self) -> None:
        lab = led(1)
        lab.join(2)
        make(lab, changed(add=[2]))
        lab.beat(1)
        make(lab, changed(promote=[2]))
        assert lab[2].config.voters == {1, 2}


class TestLearners:
    def test_a_promoted_learner_that_does_not_know_it_votes_when_asked(self) -> None:
        """etcd-io/raft#12359: else the group could wait for ever for the vote it needs."""
        lab = with_four()
        lab.isolate(4)
        make(lab, changed(promote=[4], remove=[3]))
        assert lab[2].config.voters == {1, 2, 4}
        assert lab[4].config.voters == {1, 2, 3}
        lab.crash(1)
        lab.heal()
        lab.now += 1000 * 1_000_000
        lab.send(2, 4, VoteRequest(term=Term(2), last_index=Index(9), last_term=Term(1)))
        (letter,) = lab.take(VoteReply)
        assert isinstance(letter.message, VoteReply)
        assert letter.message.granted

    def test_a_learner_removed_is_gone_at_once(self) -> None:
        lab = with_four()
        make(lab, changed(remove=[4]))
        assert not lab[1].config.learners
        assert lab[1].config.removed == ("uuid-4",)

    def test_the_admission_is_dated_by_its_entry(self) -> None:
        lab = led()
        _, index = lab.change(1, changed(add=[4]))
        assert [peer.since for peer in lab[1].config.peers] == [index]

    def test_a_leader_that_is_demoted_goes_on_as_a_learner(self) -> None:
        lab = led()
        make(lab, changed(demote=[1]))
        lab.beat(lab.leaders()[0])
        assert lab[1].config.voters == {2, 3}
        assert lab[1].config.learners == {1}
        assert lab.leaders() != [1]
        assert told(lab, 1, EventKind.REMOVED) == []
        lab.isolate(1)
        lab.elapse(3000)
        assert lab.status(1).role is Role.FOLLOWER


class TestStepDown:
    def test_the_host_may_give_up_leading_and_the_best_voter_takes_over(self) -> None:
        lab = led()
        lab.isolate(2)
        lab.propose(1)
        lab.settle()
        lab[1].step_down("maintenance", lab.now)
        lab.pump(1)
        lab.settle()
        assert lab.leaders() == [3]
        assert told(lab, 1, EventKind.STEPPED_DOWN) == ["maintenance"]

    def test_a_learner_is_not_asked_to_lead(self) -> None:
        lab = led(1, 2, 3, learners=(4,))
        lab[1].step_down("maintenance", lab.now)
        lab.pump(1)
        lab.settle()
        assert lab.leaders() == [3]

    def test_on_any_other_node_it_means_nothing(self) -> None:
        lab = led()
        lab[2].step_down("maintenance", lab.now)
        assert lab[2].ready() is None
        assert lab.leaders() == [1]


class TestStatus:
    def test_it_names_the_target_of_a_transfer(self) -> None:
        lab = led()
        assert lab.status(1).transfer_to == 0
        lab.isolate(3)
        lab.transfer(1, 3)
        assert lab.status(1).transfer_to == 3

    def test_a_voter_that_leaves_is_no_target(self) -> None:
        lab = led()
        lab.change(1, changed(remove=[3]))
        assert refused(lambda: lab.transfer(1, 3)) == "not_a_voter"


def test_a_joint_configuration_without_auto_leave_stays() -> None:
    joint = Config(voters=frozenset({NodeId(1)}), outgoing=frozenset({NodeId(1)}), auto_leave=False)
    lab = Lab(1)
    lab.restart(1)
    lab.config = joint
    lab.restart(1)
    lab.elect(1)
    assert lab[1].config == joint
    assert refused(lambda: lab.change(1, changed(add=[5]))) == "change_in_flight"


def test_a_log_that_ends_in_a_joint_configuration_is_recovered_so() -> None:
    joint = Config(
        voters=frozenset({NodeId(1)}), outgoing=frozenset({NodeId(1), NodeId(2)}), auto_leave=True
    )
    entry = entries(1)[0]
    found = Recovered(
        hard_state=HardState(term=Term(1)),
        entries=(type(entry)(term=Term(1), index=Index(1), kind=entry.kind, config=joint),),
    )
    lab = Lab(1, 2, logs={1: found, 2: found})
    assert lab[1].config == joint
    lab.elect(1)
    assert lab[1].config.voters == {1}
    assert not lab[1].config.outgoing
