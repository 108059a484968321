"""The log: conflicts, the configuration in effect, what may be cut, what was handed out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.limits import APPEND_BYTES_MAX, APPEND_ENTRIES_MAX
from pgraft.core.log import RaftLog, is_contiguous, search
from pgraft.core.types import (
    Config,
    Entry,
    EntryKind,
    Grant,
    HardState,
    Index,
    NodeId,
    Recovered,
    SafetyViolation,
    Term,
)
from tests.support.raft_lab import entries, recovered


def log_of(*terms: int, commit: int = 0) -> RaftLog:
    return RaftLog(recovered(*terms, commit=commit))


def terms_of(log: RaftLog) -> list[int | None]:
    return [log.term_at(Index(i)) for i in range(1, log.last_index + 1)]


def config_entry(index: int, term: int, *voters: int) -> Entry:
    return Entry(
        term=Term(term),
        index=Index(index),
        kind=EntryKind.CONFIG,
        config=Config(voters=frozenset(NodeId(v) for v in voters)),
    )


def grant_entry(index: int, epoch: int) -> Entry:
    grant = Grant(holder=NodeId(epoch), epoch=epoch, ttl_ns=1)
    return Entry(term=Term(1), index=Index(index), kind=EntryKind.GRANT, grant=grant)


def test_an_empty_log_ends_at_zero() -> None:
    log = log_of()
    assert (log.last_index, log.last_term, log.commit, log.applied.index) == (0, 0, 0, 0)
    assert log.term_at(Index(0)) == 0
    assert log.term_at(Index(1)) is None
    assert log.applied.grant is None


@pytest.mark.parametrize(
    "bad",
    [
        Recovered(hard_state=HardState(), entries=entries(1, first=2)),
        Recovered(hard_state=HardState(), entries=(*entries(1), *entries(1, first=3))),
        Recovered(hard_state=HardState(), entries=entries(2, 1)),
        Recovered(hard_state=HardState(commit=Index(2)), entries=entries(1)),
    ],
    ids=["no index 1", "gap", "falling term", "commit past the end"],
)
def test_what_is_no_log_is_refused(bad: Recovered) -> None:
    with pytest.raises(ValueError, match="recovered"):
        RaftLog(bad)


@pytest.mark.parametrize(
    ("prev", "new", "expected"),
    [
        (3, (), [1, 1, 2]),
        (3, (2, 3), [1, 1, 2, 2, 3]),
        (0, (1, 1), [1, 1, 2]),
        (1, (1,), [1, 1, 2]),
        (1, (1, 2), [1, 1, 2]),
        (1, (1, 2, 3), [1, 1, 2, 3]),
        (2, (3,), [1, 1, 3]),
        (1, (3,), [1, 3]),
    ],
    ids=[
        "nothing",
        "at the end",
        "all known, shorter",
        "one known, shorter",
        "up to the end",
        "overlapping",
        "conflict at the end",
        "conflict cuts the whole tail",
    ],
)
def test_splice(prev: int, new: tuple[int, ...], expected: list[int]) -> None:
    log = log_of(1, 1, 2)
    log.splice(Index(prev), entries(*new, first=prev + 1))
    assert terms_of(log) == expected


def test_a_committed_entry_is_never_cut() -> None:
    log = log_of(1, 1, 2, commit=2)
    with pytest.raises(SafetyViolation, match="entry 2 is committed"):
        log.splice(Index(1), entries(3, first=2))
    assert terms_of(log) == [1, 1, 2]


def test_a_configuration_holds_from_append_and_is_reverted_with_its_entry() -> None:
    """Thesis §4.1; reverting is what several implementations forgot."""
    log = log_of(1)
    founding = log.configs.effective
    log.splice(Index(1), (config_entry(2, 1, 1, 2), config_entry(3, 1, 1, 2, 3)))
    assert log.configs.effective.voters == {1, 2, 3}
    log.splice(Index(2), entries(2, first=3))
    assert log.configs.effective.voters == {1, 2}
    log.splice(Index(1), entries(3, first=2))
    assert log.configs.effective is founding


def test_a_recovered_configuration_is_in_effect() -> None:
    log = RaftLog(
        Recovered(
            hard_state=HardState(term=Term(1)),
            entries=(config_entry(1, 1, 4),),
            config=Config(voters=frozenset({NodeId(1)})),
        )
    )
    assert log.configs.effective.voters == {4}


def test_commit_only_grows() -> None:
    log = log_of(1, 1, 1)
    assert log.commit_to(Index(2))
    assert not log.commit_to(Index(2))
    assert not log.commit_to(Index(1))
    assert log.commit == 2


def test_each_entry_is_handed_out_once() -> None:
    log = log_of(1, 1, 1, commit=1)
    assert [e.index for e in log.take_committed()] == [1]
    assert log.take_committed() == ()
    log.commit_to(Index(3))
    assert [e.index for e in log.take_committed()] == [2, 3]
    assert log.applied.index == 3


def test_only_the_next_epoch_is_a_grant() -> None:
    log = log_of()
    for entry in (grant_entry(1, 2), grant_entry(2, 1), grant_entry(3, 1), grant_entry(4, 2)):
        log.append(entry)
    seen = []
    for index in range(1, 5):
        log.commit_to(Index(index))
        log.take_committed()
        seen.append(log.applied.epoch)
    assert seen == [0, 1, 1, 2]


def test_a_grant_beyond_what_was_applied_is_seen() -> None:
    log = log_of(1)
    assert not log.has_unapplied_grant()
    log.append(grant_entry(2, 1))
    assert log.has_unapplied_grant()
    log.commit_to(Index(2))
    assert log.has_unapplied_grant()
    log.take_committed()
    assert not log.has_unapplied_grant()


def test_slices_are_bounded_by_count() -> None:
    log = log_of(*[1] * (APPEND_ENTRIES_MAX + 5))
    assert len(log.slice_from(Index(1))) == APPEND_ENTRIES_MAX
    assert len(log.slice_from(Index(APPEND_ENTRIES_MAX + 1))) == 5
    assert len(log.slice_from(Index(1), bounded=False)) == APPEND_ENTRIES_MAX + 5
    assert log.slice_from(Index(APPEND_ENTRIES_MAX + 6)) == ()


def test_slices_are_bounded_by_bytes_but_one_entry_always_fits() -> None:
    log = log_of()
    for index in range(1, 5):
        data = b"x" * (APPEND_BYTES_MAX * 2 // 3 if index < 4 else APPEND_BYTES_MAX * 2)
        log.append(Entry(term=Term(1), index=Index(index), kind=EntryKind.COMMAND, data=data))
    assert [e.index for e in log.slice_from(Index(1))] == [1]
    assert [e.index for e in log.slice_from(Index(4))] == [4]


def test_a_grant_counts_with_its_payload() -> None:
    log = log_of()
    for index in (1, 2):
        grant = Grant(holder=NodeId(1), epoch=index, ttl_ns=1, payload=b"x" * APPEND_BYTES_MAX)
        log.append(Entry(term=Term(1), index=Index(index), kind=EntryKind.GRANT, grant=grant))
    assert len(log.slice_from(Index(1))) == 1


@pytest.mark.parametrize(
    ("index", "term", "found"),
    [
        (6, 3, (6, 3)),
        (6, 2, (4, 2)),
        (9, 2, (4, 2)),
        (3, 1, (2, 1)),
        (6, 0, (0, 0)),
        (0, 9, (0, 0)),
    ],
)
def test_search_skips_whole_terms(index: int, term: int, found: tuple[int, int]) -> None:
    log = log_of(1, 1, 2, 2, 3, 3)
    assert search(log, Index(index), Term(term)) == found


@pytest.mark.parametrize(
    ("last", "current"),
    [((2, 3), True), ((3, 3), True), ((1, 4), True), ((1, 3), False), ((9, 2), False)],
)
def test_up_to_date_is_by_term_then_length(last: tuple[int, int], current: bool) -> None:
    """Raft §5.4.1."""
    log = log_of(1, 3)
    assert log.is_current(Index(last[0]), Term(last[1])) is current


def test_contiguous() -> None:
    assert is_contiguous(Index(0), Term(0), ())
    assert is_contiguous(Index(2), Term(1), entries(1, 2, first=3))
    assert not is_contiguous(Index(2), Term(2), entries(1, first=3))
    assert not is_contiguous(Index(1), Term(1), entries(1, first=3))


histories = st.lists(st.integers(0, 1), min_size=1, max_size=8).map(
    lambda steps: [1 + sum(steps[:i]) for i in range(len(steps))]
)


@given(mine=histories, theirs=histories, prev=st.integers(0, 8), repeat=st.booleans())
def test_after_a_splice_the_logs_agree_up_to_the_message(
    mine: list[int], theirs: list[int], prev: int, repeat: bool
) -> None:
    """Raft §5.3; also when the message comes twice."""
    log = log_of(*mine)
    prev = min(prev, len(mine), len(theirs))
    if mine[:prev] != theirs[:prev]:
        return
    message = entries(*theirs)[prev:]
    agreed = sum(1 for a, b in zip(mine, theirs, strict=False) if a == b)
    for _ in range(2 if repeat else 1):
        log.splice(Index(prev), message)
    assert terms_of(log)[: len(theirs)] == theirs
    if agreed == len(theirs):
        assert terms_of(log) == mine, "a message that agrees removed something"
