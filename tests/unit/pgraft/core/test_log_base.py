"""A log that begins after a snapshot."""

import pytest

from pgraft.core.limits import TAIL_ENTRIES
from pgraft.core.log import RaftLog, search
from pgraft.core.types import (
    Config,
    Grant,
    HardState,
    Index,
    LeaseTerms,
    NodeId,
    Recovered,
    SafetyViolation,
    Session,
    Snapshot,
    Term,
)
from tests.support.raft_lab import Lab, entries, recovered
from tests.support.raft_member import changed

GROUP = Config(voters=frozenset(NodeId(n) for n in (1, 2, 3)))
MANY = TAIL_ENTRIES + 40


def snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    return Snapshot(index=Index(index), term=Term(term), config=GROUP, data=data)


def based(index: int, *terms: int, term: int = 1, commit: int = 0) -> RaftLog:
    """A log that begins after a snapshot."""
    return RaftLog(
        Recovered(
            hard_state=HardState(term=Term(max(terms, default=term)), commit=Index(commit)),
            entries=entries(*terms, first=index + 1),
            snapshot=snapshot(index, term),
        )
    )


class TestLog:
    def test_it_begins_after_its_snapshot(self) -> None:
        log = based(7, 1, 2, commit=8)
        assert (log.base, log.last_index, log.last_term) == (7, 9, 2)
        assert [log.term_at(Index(i)) for i in (6, 7, 8, 9, 10)] == [None, 1, 1, 2, None]
        assert log.configs.effective == GROUP
        assert [e.index for e in log.take_committed()] == [8]

    def test_an_empty_one_ends_where_its_snapshot_does(self) -> None:
        log = based(7, term=3)
        assert (log.last_index, log.last_term, log.commit, log.applied.index) == (7, 3, 7, 7)
        assert not log.is_current(Index(9), Term(2))

    def test_a_snapshot_saved_after_the_last_hard_state_is_committed_all_the_same(self) -> None:
        assert based(7, 1, commit=3).commit == 7

    @pytest.mark.parametrize("first", [7, 9])
    def test_entries_must_follow_it(self, first: int) -> None:
        with pytest.raises(ValueError, match="not contiguous"):
            RaftLog(
                Recovered(
                    hard_state=HardState(),
                    entries=entries(1, first=first),
                    snapshot=snapshot(7),
                )
            )

    def test_a_commit_past_the_end_is_refused(self) -> None:
        with pytest.raises(ValueError, match="commit"):
            based(7, 1, commit=9)

    def test_a_compacted_entry_has_no_term_and_never_0(self) -> None:
        log = based(7, 2)
        assert log.term_at(Index(3)) is None
        assert search(log, Index(3), Term(1)) == (3, 0)
        assert search(log, Index(8), Term(1)) == (7, 1)
        assert search(based(7, 3, term=3), Index(8), Term(2)) == (6, 0), "below the base: unknown"

    def test_compaction_leaves_a_tail(self) -> None:
        log = RaftLog(recovered(*[1] * MANY, commit=MANY))
        log.take_committed()
        log.compact(snapshot(MANY))
        assert (log.base, log.last_index) == (MANY - TAIL_ENTRIES, MANY)
        assert log.term_at(log.base) == 1
        assert len(log.slice_from(Index(log.base + 1), bounded=False)) == TAIL_ENTRIES

    def test_a_short_log_is_kept_whole(self) -> None:
        log = RaftLog(recovered(1, 1, commit=2))
        log.take_committed()
        log.compact(snapshot(2))
        assert (log.base, log.snapshot.index) == (0, 2)

    def test_an_older_snapshot_is_ignored(self) -> None:
        log = based(7, 1, commit=8)
        log.take_committed()
        log.compact(snapshot(8))
        log.compact(snapshot(5, term=9))
        assert log.snapshot.index == 8

    @pytest.mark.parametrize("bad", [snapshot(9), snapshot(8, term=2)])
    def test_one_of_another_log_is_a_violation(self, bad: Snapshot) -> None:
        log = based(7, 1, 1, commit=8)
        log.take_committed()
        with pytest.raises(SafetyViolation, match="snapshot"):
            log.compact(bad)

    def test_what_a_snapshot_brings_takes_the_place_of_all(self) -> None:
        grant = Grant(holder=NodeId(2), epoch=3, ttl_ns=5)
        lease = LeaseTerms(grant=grant, ttl_ns=5, longest_ns=9)
        sessions = (Session(session=1, floor=4),)
        log = RaftLog(recovered(1, 1, 1, commit=1))
        log.install(
            Snapshot(index=Index(9), term=Term(4), config=GROUP, lease=lease, sessions=sessions)
        )
        assert (log.base, log.last_index, log.last_term) == (9, 9, 4)
        assert (log.commit, log.applied.index) == (9, 9)
        assert (log.applied.lease, log.applied.sessions) == (lease, sessions)
        assert (log.applied.epoch, log.configs.effective) == (3, GROUP)
        assert log.take_committed() == ()

    def test_configurations_before_the_base_are_forgotten_but_the_last(self) -> None:
        lab = Lab(1)
        lab.elect(1)
        for node in (4, 5):
            lab.change(1, changed(add=[node]))
        for _ in range(MANY):
            lab.propose(1)
        lab.compact(1)
        configs = lab[1]._parts.state.log.configs
        assert configs.since == 3
        assert configs.at(lab.status(1).commit) == (3, lab[1].config)
        assert len(configs._history) == 1
