"""A log with a base, and snapshots for who lags behind it (Raft §7, thesis §5)."""

import pytest

from pgraft.core.limits import SNAPSHOT_BYTES_MAX, TAIL_ENTRIES
from pgraft.core.types import (
    Append,
    AppendReply,
    Config,
    EventKind,
    HardState,
    Index,
    InstallSnapshot,
    NodeId,
    Origin,
    Recovered,
    SafetyViolation,
    Session,
    Snapshot,
    Term,
)
from tests.support.raft_lab import Lab, entries, recovered, refused
from tests.support.raft_member import changed

GROUP = Config(voters=frozenset(NodeId(n) for n in (1, 2, 3)))
MANY = TAIL_ENTRIES + 40


def snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    return Snapshot(index=Index(index), term=Term(term), config=GROUP, data=data)


def filled(*nodes: int, lagging: int = 0) -> Lab:
    """1 leads and has compacted a long log; `lagging` has seen nothing of it since."""
    lab = Lab(*(nodes or (1, 2, 3)))
    lab.elect(1)
    if lagging:
        lab.isolate(lagging)
    for number in range(MANY):
        lab.propose(1, b"%d" % number)
        lab.settle()
    lab.compact(1)
    return lab


class TestFollower:
    """§7: what a follower does with a snapshot."""

    def test_one_that_lags_takes_it_and_goes_on_with_entries(self) -> None:
        lab = filled(lagging=3)
        lab.heal()
        lab.beat(1)
        lab.beat(1)
        assert lab.commands(3) == lab.commands(1)
        assert lab.status(3).snapshot_index == lab.status(1).snapshot_index
        assert any("1->3 InstallSnapshot" in line for line in lab.trace)
        lab.propose(1, b"more")
        lab.settle()
        assert lab.commands(3)[-1] == b"more"

    def test_the_ack_leaves_when_it_is_durable(self) -> None:
        lab = filled(lagging=3)
        lab.heal()
        lab.hold(3)
        lab.beat(1)
        lab.trace.clear()
        lab.settle()
        assert not any("3->1 AppendReply t1 match" in line for line in lab.trace)
        lab.release_disk(3)
        lab.settle()
        assert any("3->1 AppendReply t1 match" in line for line in lab.trace)

    def test_it_is_one_batch_with_the_hard_state_and_what_follows(self) -> None:
        lab = Lab(1, 2, 3)
        raft = lab[2]
        raft.step(NodeId(1), InstallSnapshot(term=Term(2), snapshot=snapshot(9)), lab.now)
        raft.step(
            NodeId(1),
            Append(
                term=Term(2),
                prev_index=Index(9),
                prev_term=Term(1),
                commit=Index(10),
                entries=entries(2, first=10),
            ),
            lab.now,
        )
        ready = raft.ready()
        assert ready is not None
        assert ready.snapshot == snapshot(9)
        assert ready.truncate_from is None
        assert ready.hard_state == HardState(term=Term(2), commit=Index(10))
        assert [e.index for e in ready.entries] == [10]
        assert [e.index for e in ready.committed] == [10]
        assert [x.message for x in ready.send_after_sync] == [
            AppendReply(term=Term(2), ok=True, match=Index(9)),
            AppendReply(term=Term(2), ok=True, match=Index(10)),
        ]

    @pytest.mark.parametrize("compacted", [False, True])
    def test_an_older_one_changes_nothing(self, compacted: bool) -> None:
        """NuRaft#407 and its kin."""
        lab = filled()
        if compacted:
            lab.compact(2)
        before = lab.status(2)
        old = InstallSnapshot(term=Term(1), snapshot=snapshot(3, data=b"old"))
        lab.send(1, 2, old)
        assert lab.status(2) == before
        assert lab.commands(2) == lab.commands(1)
        (letter,) = lab.take(AppendReply)
        assert letter.message == AppendReply(term=Term(1), ok=True, match=before.commit)

    def test_a_log_that_holds_its_last_entry_is_kept(self) -> None:
        lab = Lab(1, 2, 3, logs={2: recovered(1, 1, 1)})
        lab.send(1, 2, InstallSnapshot(term=Term(1), snapshot=snapshot(2)))
        assert lab.terms(2) == [1, 1, 1]
        assert (lab.status(2).commit, lab.status(2).snapshot_index) == (2, 0)
        assert lab.commands(2) == [b"1/1", b"1/2"], "applied from its own log"

    def test_one_that_contradicts_it_is_reset(self) -> None:
        lab = Lab(1, 2, 3, logs={2: recovered(1, 2, 2, commit=1)})
        lab.send(1, 2, InstallSnapshot(term=Term(3), snapshot=snapshot(3, term=1, data=b"a\nb")))
        assert (lab.terms(2), lab.status(2).last_index) == ([], 3)
        assert lab.commands(2) == [b"a", b"b"]
        assert lab.members[2].disk.entries == []
        assert [
            e.detail for e in lab.members[2].events if e.kind.value == "snapshot_installed"
        ] == ["3"]

    def test_one_of_an_older_term_is_not_taken(self) -> None:
        lab = Lab(1, 2, 3, logs={2: recovered(2)})
        lab.send(1, 2, InstallSnapshot(term=Term(1), snapshot=snapshot(3)))
        assert lab.status(2).last_index == 1

    def test_it_survives_a_restart(self) -> None:
        lab = filled(lagging=3)
        lab.heal()
        lab.beat(1)
        lab.beat(1)
        lab.restart(3)
        assert lab.commands(3) == lab.commands(1)
        lab.propose(1, b"more")
        lab.settle()
        lab.beat(1)
        assert lab.commands(3) == lab.commands(1)

    @pytest.mark.parametrize(
        ("prev", "terms", "match", "last"),
        [
            (0, (1, 1), 7, 8),
            (3, (1, 1, 1, 1, 1, 1), 9, 9),
            (6, (1, 1, 1), 9, 9),
            (6, (1,), 7, 8),
            (2, (), 7, 8),
        ],
        ids=["wholly below", "beyond", "beyond by two", "up to the base", "nothing"],
    )
    def test_an_append_from_below_the_base_skips_what_is_committed(
        self, prev: int, terms: tuple[int, ...], match: int, last: int
    ) -> None:
        """RedisLabs/raft#49, openraft#511: never a rejection, never a wrong conflict."""
        found = Recovered(
            hard_state=HardState(term=Term(1)),
            entries=entries(1, first=8),
            snapshot=snapshot(7),
        )
        lab = Lab(1, 2, 3, logs={2: found})
        lab.send(
            1,
            2,
            Append(
                term=Term(1),
                prev_index=Index(prev),
                prev_term=Term(1 if prev else 0),
                commit=Index(0),
                entries=entries(*terms, first=prev + 1),
            ),
        )
        (letter,) = lab.take(AppendReply)
        assert letter.message == AppendReply(term=Term(1), ok=True, match=Index(match))
        assert lab.status(2).last_index == last

    def test_one_that_contradicts_the_base_is_a_violation(self) -> None:
        found = Recovered(hard_state=HardState(term=Term(2)), snapshot=snapshot(7))
        lab = Lab(1, 2, 3, logs={2: found})
        with pytest.raises(SafetyViolation, match="entry 7 is committed"):
            lab.send(
                1,
                2,
                Append(
                    term=Term(2),
                    prev_index=Index(6),
                    prev_term=Term(1),
                    commit=Index(0),
                    entries=entries(2, 2, first=7),
                ),
            )

    def test_the_terms_of_the_lease_come_with_it(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab.isolate(3)
        lab.grant(1, 3, 1)
        lab.settle()
        for _ in range(MANY):
            lab.propose(1)
            lab.settle()
        lab.compact(1)
        lab.heal()
        lab.beat(1)
        lab.beat(1)
        assert lab[3].holder.epoch == 1
        lab.renew(3)
        lab.settle()
        held = lab[3].holder.deadline_ns
        assert held > lab.now
        lab.send(1, 3, InstallSnapshot(term=Term(1), snapshot=lab[1].snapshot(b"")))
        assert lab[3].holder.deadline_ns == held, "a snapshot of the same grant takes nothing away"


class TestLeader:
    def sending(self) -> Lab:
        """A snapshot to 3 is under way and gets lost."""
        lab = filled(lagging=3)
        lab.heal()
        lab.now += lab.timing.heartbeat_ns
        lab.tick(1)
        for _ in range(20):
            if lab.take(InstallSnapshot):
                return lab
            lab.deliver_all()
        raise AssertionError("no snapshot was sent")

    def test_while_one_is_under_way_nothing_else_is_sent(self) -> None:
        lab = self.sending()
        lab.send(3, 1, AppendReply(term=Term(1), ok=False, rejected=Index(1)))
        lab.propose(1)
        assert lab.take(Append, to=3) == []
        assert lab.take(InstallSnapshot) == []

    def test_one_that_got_lost_is_sent_again_after_a_while(self) -> None:
        lab = self.sending()
        lab.elapse(2900)
        assert lab.status(3).snapshot_index == 0
        lab.elapse(400)
        assert lab.commands(3) == lab.commands(1)
        sent = [e for e in lab.members[1].events if e.kind is EventKind.SNAPSHOT_SENT]
        assert [e.detail for e in sent] == ["3", "3"]

    def test_and_at_once_when_the_link_changed(self) -> None:
        lab = self.sending()
        lab.link(1, 3, up=True)
        lab.settle()
        assert lab.commands(3) == lab.commands(1)

    def test_an_ack_of_less_does_not_end_it(self) -> None:
        lab = self.sending()
        lab.send(3, 1, AppendReply(term=Term(1), ok=True, match=Index(1)))
        lab.propose(1)
        assert lab.take(Append, to=3) == []

    def test_who_lags_by_less_than_the_tail_needs_none(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        for _ in range(MANY):
            lab.propose(1)
            lab.settle()
        lab.isolate(3)
        for _ in range(5):
            lab.propose(1)
            lab.settle()
        lab.compact(1)
        lab.heal()
        lab.beat(1)
        assert lab.status(3).last_index == lab.status(1).last_index
        assert not any("InstallSnapshot" in line for line in lab.trace)

    def test_what_is_too_large_is_refused(self) -> None:
        lab = filled()
        data = b"x" * SNAPSHOT_BYTES_MAX
        assert lab[1].snapshot(data).data == data
        assert refused(lambda: lab[1].snapshot(data + b"x")) == "too_large"

    def test_a_snapshot_holds_what_was_applied(self) -> None:
        lab = Lab(1, 2, 3)
        lab.elect(1)
        lab[1].propose(b"a", lab.now, Origin(session=5, serial=1))
        lab.pump(1)
        lab.grant(1, 2, 1)
        lab.settle()
        lab.change(1, changed(add=[4]))
        taken = lab[1].snapshot(b"state")
        assert (taken.index, taken.term, taken.data) == (3, 1, b"state")
        assert taken.config == lab.config, "the change is not committed yet"
        assert taken.sessions == (Session(session=5, floor=1),)
        assert taken.lease.grant is not None
        assert taken.lease.grant.epoch == 1

    def test_a_new_leader_with_a_base_finds_out_where_the_others_are(self) -> None:
        lab = filled(lagging=3)
        lab.heal()
        lab.transfer(1, 2)
        lab.settle()
        lab.compact(2)
        lab.elapse(1000)
        assert lab.commands(3) == lab.commands(2)
