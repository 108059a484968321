"""The contract between the core and its host: Ready, disks, pauses, bounds, links, status."""

import random
import re

import pytest

from pgraft.core.limits import (
    AFTER_SYNC_MAX,
    ENTRY_BYTES_MAX,
    INFLIGHT_APPENDS_MAX,
    UNCOMMITTED_ENTRIES_MAX,
)
from pgraft.core.raft import Raft
from pgraft.core.types import (
    Append,
    AppendReply,
    Config,
    EventKind,
    Grant,
    HardState,
    Heartbeat,
    Index,
    NodeId,
    ProposalRefused,
    Recovered,
    Role,
    Term,
    Timing,
    VoteReply,
)
from tests.support.raft_lab import MS, TIMING, Lab, entries, recovered, refused

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def raft_of(found: Recovered, node: NodeId = ONE) -> Raft:
    return Raft(node, found, TIMING, random.Random(1), 0, boot=1)


def group_of_three(*terms: int) -> Recovered:
    found = recovered(*terms)
    return Recovered(
        hard_state=found.hard_state,
        entries=found.entries,
        config=Config(voters=frozenset({ONE, TWO, THREE})),
    )


def append(prev: int, *terms: int, term: int = 1, commit: int = 0) -> Append:
    return Append(
        term=Term(term),
        prev_index=Index(prev),
        prev_term=Term(term if prev else 0),
        commit=Index(commit),
        entries=entries(*terms, first=prev + 1),
    )


class TestReady:
    def test_nothing_to_do_is_none(self) -> None:
        assert raft_of(group_of_three()).ready() is None

    def test_a_batch_holds_entries_and_hard_state_and_what_waits_for_them(self) -> None:
        raft = raft_of(group_of_three())
        raft.step(TWO, append(0, 1, 1, commit=1), 5)
        ready = raft.ready()
        assert ready is not None
        assert ready.token == 1
        assert ready.hard_state == HardState(term=Term(1), commit=Index(1))
        assert [e.index for e in ready.entries] == [1, 2]
        assert ready.truncate_from is None
        assert [x.message for x in ready.send_after_sync] == [
            AppendReply(term=Term(1), ok=True, match=Index(2))
        ]
        assert [e.index for e in ready.committed] == [1]
        assert ready.send_now == ()
        assert raft.ready() is None

    def test_a_cut_comes_before_the_entries_of_the_same_batch(self) -> None:
        raft = raft_of(group_of_three(1, 1, 1))
        raft.step(TWO, append(1, 2, term=2), 5)
        assert raft.ready() is not None
        raft.step(
            TWO,
            Append(
                term=Term(2),
                prev_index=Index(1),
                prev_term=Term(1),
                commit=Index(0),
                entries=entries(2, first=2),
            ),
            6,
        )
        ready = raft.ready()
        assert ready is not None
        assert (ready.truncate_from, [e.index for e in ready.entries]) == (2, [2])

    def test_several_batches_may_be_in_flight_and_end_in_order(self) -> None:
        raft = raft_of(group_of_three())
        tokens = []
        for prev in range(3):
            raft.step(TWO, append(prev, 1), 5)
            ready = raft.ready()
            assert ready is not None
            tokens.append(ready.token)
        assert tokens == [1, 2, 3]
        raft.persisted(3, 6)
        assert raft.ready() is None

    def test_what_depends_on_nothing_new_leaves_at_once_if_nothing_is_in_flight(self) -> None:
        raft = raft_of(group_of_three(1))
        raft.step(TWO, append(0, 1), 5)
        ready = raft.ready()
        assert ready is not None
        assert ready.token is None
        assert ready.send_after_sync == ()
        assert [x.message for x in ready.send_now] == [
            AppendReply(term=Term(1), ok=True, match=Index(1))
        ]

    def test_and_waits_for_what_is_in_flight_without_an_empty_batch(self) -> None:
        raft = raft_of(group_of_three())
        raft.step(TWO, append(0, 1), 5)
        first = raft.ready()
        assert first is not None
        assert first.token is not None
        raft.step(TWO, append(0, 1), 6)
        assert raft.ready() is None
        raft.persisted(first.token, 7)
        ready = raft.ready()
        assert ready is not None
        assert ready.token is None
        assert len(ready.send_now) == 1

    def test_what_waits_behind_a_hanging_disk_is_bounded(self) -> None:
        raft = raft_of(group_of_three())
        raft.step(TWO, append(0, 1), 5)
        first = raft.ready()
        assert first is not None
        assert first.token is not None
        for _ in range(AFTER_SYNC_MAX + 10):
            raft.step(TWO, append(0, 1), 6)
        raft.persisted(first.token, 7)
        ready = raft.ready()
        assert ready is not None
        assert len(ready.send_now) == AFTER_SYNC_MAX

    def test_a_commit_alone_is_handed_out_without_a_write(self) -> None:
        raft = raft_of(group_of_three(1))
        raft.step(TWO, append(0, 1, commit=1), 5)
        ready = raft.ready()
        assert ready is not None
        assert ready.token is None
        assert len(ready.committed) == 1

    def test_what_was_committed_before_a_restart_is_handed_out_again(self) -> None:
        found = recovered(1, 1, 1, commit=2)
        ready = raft_of(found).ready()
        assert ready is not None
        assert [e.index for e in ready.committed] == [1, 2]

    def test_an_unknown_token_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="never handed out"):
            raft_of(group_of_three()).persisted(5, 0)

    def test_heartbeats_are_answered_without_waiting_for_the_disk(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.hold(2)
        lab.propose(1)
        lab.settle()
        lab.trace.clear()
        lab.beat(1)
        assert any(line.startswith("2->1 HeartbeatReply") for line in lab.trace)


class TestOwnPauses:
    def test_after_a_pause_a_node_waits_a_fresh_timeout(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.now += 10_000 * MS
        lab.tick(2)
        assert lab.status(2).role is Role.FOLLOWER
        assert [e.kind for e in lab.members[2].events if e.kind is EventKind.PAUSED]
        lab.now += 600 * MS
        lab[2]._parts.election._ticked_ns = lab.now
        lab.tick(2)
        assert lab.status(2).role is Role.FOLLOWER

    def test_a_leader_forgives_the_silence_it_could_not_hear(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.hold(1)
        lab.propose(1)
        lab.now += 10_000 * MS
        lab.tick(1)
        assert lab.leaders() == [1]
        lab.release_disk(1)
        lab.settle()
        lab.elapse(1000)
        assert lab.leaders() == [1]

    def test_ticks_are_asked_for_at_least_once_a_heartbeat(self) -> None:
        lab = Lab(1, 2, 3)
        for node in (1, 2, 3):
            assert lab[node].next_deadline() <= lab.now + lab.timing.heartbeat_ns
        lab.elect(1)
        assert lab[1].next_deadline() <= lab.now + lab.timing.heartbeat_ns

    def test_a_short_timeout_wakes_earlier(self) -> None:
        timing = Timing(heartbeat_ns=1000 * MS, election_ns=100 * MS)
        lab = Lab(1, 2, 3, timing=timing)
        assert 100 * MS < lab[1].next_deadline() - lab.now <= 200 * MS


class TestStalledDisk:
    def test_a_leader_whose_disk_hangs_for_e_steps_down(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.hold(1)
        lab.propose(1)
        lab.elapse(600, only=[1])
        assert lab.leaders() == [1]
        lab.elapse(150, only=[1])
        assert lab.leaders() == []
        details = [e.detail for e in lab.members[1].events if e.kind is EventKind.STEPPED_DOWN]
        assert len(details) == 1
        assert re.fullmatch(r"own disk stalled for \d+ ms", details[0])

    def test_and_does_not_campaign_until_it_works_again(self) -> None:
        lab = Lab(1, 2, 3)
        lab.hold(1)
        lab.send(2, 1, append(0, 1))
        lab.isolate(1)
        lab.elapse(5000, only=[1])
        assert lab.status(1).role is Role.FOLLOWER
        lab.release_disk(1)
        lab.elapse(2500, only=[1])
        assert lab.status(1).role is Role.PRE_CANDIDATE

    def test_a_disk_that_is_slow_but_works_is_no_reason(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.hold(1)
        for _ in range(5):
            lab.propose(1)
            lab.elapse(500)
            lab.sync(1)
        assert lab.leaders() == [1]


class TestBounds:
    def test_a_proposal_that_is_too_large_is_refused(self) -> None:
        lab = Lab(1)
        lab.elect(1)
        assert refused(lambda: lab.propose(1, b"x" * ENTRY_BYTES_MAX)) == ""
        assert refused(lambda: lab.propose(1, b"x" * (ENTRY_BYTES_MAX + 1))) == "too_large"
        grant = Grant(holder=ONE, epoch=1, ttl_ns=1, payload=b"x" * (ENTRY_BYTES_MAX + 1))
        assert refused(lambda: lab[1].propose_grant(grant, lab.now)) == "too_large"

    def test_too_many_uncommitted_entries_are_refused(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.isolate(1)
        for _ in range(UNCOMMITTED_ENTRIES_MAX):
            lab.propose(1)
        assert refused(lambda: lab.propose(1)) == "overloaded"

    def test_a_refusal_names_who_may_be_asked(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        with pytest.raises(ProposalRefused) as caught:
            lab.propose(2)
        assert (caught.value.reason, caught.value.leader) == ("not_leader", 1)


class TestLinks:
    def test_a_leader_sends_again_what_was_lost_with_the_link(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.propose(1, b"a")
        lab.letters.clear()
        lab.link(1, 2, up=True)
        lab.settle()
        assert lab.commands(2) == [b"a"]

    def test_a_stale_rejection_is_not_followed(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.send(2, 1, AppendReply(term=Term(1), ok=False, rejected=Index(1), hint_index=Index(0)))
        assert lab.take(Append) == []

    def test_a_candidate_is_not_hurried_by_a_broken_link(self) -> None:
        lab = Lab(1, 2, 3)
        lab.expire(1)
        before = lab[1].next_deadline()
        lab.link(1, 2, up=False)
        assert lab[1].next_deadline() == before

    def test_the_window_fills_and_opens(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.cut(1, 2)
        for _ in range(2 * INFLIGHT_APPENDS_MAX):
            lab.propose(1)
        lab.settle()
        lab.heal()
        lab.beat(1)
        lab.beat(1)
        assert lab.status(2).last_index == lab.status(1).last_index


class TestStatus:
    def test_of_a_leader(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.grant(1, 2, 1)
        lab.settle()
        status = lab.status(1)
        assert (status.node, status.role, status.term, status.leader) == (1, Role.LEADER, 1, 1)
        assert (status.commit, status.applied, status.last_index) == (2, 2, 2)
        assert status.match == {ONE: 2, TWO: 2, THREE: 2}
        assert set(status.last_contact_ns) == {TWO, THREE}
        assert (status.epoch, status.holder) == (1, 2)

    def test_of_a_follower(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        status = lab.status(2)
        assert (status.role, status.leader, status.match) == (Role.FOLLOWER, 1, {})
        assert set(status.last_contact_ns) == {ONE}
        assert (status.epoch, status.holder) == (0, 0)


def test_votes_of_several_batches_come_back_with_their_own() -> None:
    """A candidate whose disk is slow enters the next term before its first vote is durable."""
    lab = Lab(1, 2, 3)
    lab.expire(1)
    lab.hold(1)
    lab.deliver_all()
    lab.deliver_all()
    lab.send(2, 1, VoteReply(term=Term(1), granted=True))
    lab.send(2, 1, Heartbeat(term=Term(2), commit=Index(0), round=1))
    lab.release_disk(1)
    assert (lab.status(1).role, lab.status(1).term) == (Role.FOLLOWER, 2)
    assert lab.members[1].disk.hard_state == HardState(term=Term(2))
