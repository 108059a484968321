"""Batches and tokens: what is durable, and what an acknowledgement does not prove."""

import pytest

from pgraft.core.types import Config, HardState, Index, NodeId, Snapshot, Term, VoteReply
from pgraft.core.writes import WriteQueue

VOTED = HardState(term=Term(1), vote=NodeId(2))
LOOP = (VoteReply(term=Term(1), granted=True),)


def queue(last: int = 0) -> WriteQueue:
    return WriteQueue(Index(last), HardState())


def take(writes: WriteQueue, last: int, hard_state: HardState | None = None, now: int = 0) -> int:
    batch = writes.take(hard_state or HardState(), Index(last), now, ())
    assert batch.token is not None
    return batch.token


def needed(writes: WriteQueue, last: int, term: int = 0, vote: int = 0) -> bool:
    return writes.needed(Term(term), NodeId(vote), Index(last))


def test_what_was_recovered_is_durable() -> None:
    writes = queue(7)
    assert writes.stable == 7
    assert not needed(writes, 7)
    assert not writes.in_flight
    assert writes.stalled_ns(100) == 0


def test_entries_a_new_ballot_or_a_cut_need_a_write() -> None:
    assert needed(queue(), 1)
    assert needed(queue(), 0, term=1)
    assert needed(queue(), 0, vote=1)
    cut = queue(3)
    cut.cut(Index(3))
    assert needed(cut, 2)


def test_a_commit_index_alone_is_not_worth_a_sync() -> None:
    writes = queue(3)
    assert not needed(writes, 3)
    batch = writes.take(HardState(commit=Index(3)), Index(4), 0, ())
    assert batch.hard_state == HardState(commit=Index(3)), "but it travels with what is written"


def test_an_unchanged_hard_state_is_not_written_again() -> None:
    writes = queue()
    assert writes.take(VOTED, Index(1), 0, ()).hard_state == VOTED
    assert writes.take(VOTED, Index(2), 0, ()).hard_state is None


def test_stable_moves_when_the_batch_is_durable() -> None:
    writes = queue()
    first, second = take(writes, 2), take(writes, 5)
    assert writes.stable == 0
    writes.persisted(first)
    assert writes.stable == 2
    assert writes.in_flight
    writes.persisted(second)
    assert writes.stable == 5
    assert not writes.in_flight


def test_a_token_covers_the_ones_before_it_and_may_come_twice() -> None:
    writes = queue()
    take(writes, 2)
    second = take(writes, 5)
    writes.persisted(second)
    assert writes.stable == 5
    assert writes.persisted(second) == ()


def test_a_token_that_was_never_handed_out_is_an_error() -> None:
    with pytest.raises(ValueError, match="never handed out"):
        queue().persisted(1)


def test_messages_to_oneself_come_back_with_their_batch() -> None:
    writes = queue()
    first = take(writes, 1)
    second = writes.take(VOTED, Index(1), 0, LOOP)
    assert second.token is not None
    assert writes.persisted(first) == ()
    assert writes.persisted(second.token) == LOOP


def test_a_cut_lowers_what_is_durable_and_is_written_once() -> None:
    writes = queue(5)
    writes.cut(Index(4))
    assert writes.stable == 3
    batch = writes.take(HardState(), Index(6), 0, ())
    assert (batch.truncate_from, batch.first) == (4, 4)
    assert writes.take(HardState(), Index(7), 0, ()).truncate_from is None


def test_of_two_cuts_the_deeper_one_is_written() -> None:
    for cuts in ((4, 2), (2, 4)):
        writes = queue(5)
        for first in cuts:
            writes.cut(Index(first))
        assert writes.take(HardState(), Index(1), 0, ()).truncate_from == 2


def test_what_was_never_handed_out_needs_no_cut_on_disk() -> None:
    writes = queue(3)
    writes.cut(Index(5))
    assert not needed(writes, 3)
    assert writes.stable == 3


def test_a_restored_tail_is_not_durable_by_the_word_of_its_first_write() -> None:
    """ABA: entry 3 is written, cut, replaced, cut, and the very same entry written again."""
    writes = queue(2)
    first = take(writes, 3)
    writes.cut(Index(3))
    second = take(writes, 3)
    writes.cut(Index(3))
    third = take(writes, 3)
    writes.persisted(first)
    assert writes.stable == 2
    writes.persisted(second)
    assert writes.stable == 2
    writes.persisted(third)
    assert writes.stable == 3


def test_a_stall_is_counted_from_the_oldest_batch() -> None:
    writes = queue()
    first = take(writes, 1, now=100)
    take(writes, 2, now=200)
    assert writes.stalled_ns(350) == 250
    writes.persisted(first)
    assert writes.stalled_ns(350) == 150


def test_a_snapshot_needs_a_write_and_takes_the_place_of_a_cut() -> None:
    writes = queue(5)
    writes.cut(Index(4))
    snapshot = Snapshot(index=Index(9), term=Term(1), config=Config(voters=frozenset()))
    writes.reset(Index(2), snapshot)
    assert needed(writes, 9)
    assert writes.stable == 2
    batch = writes.take(HardState(commit=Index(9)), Index(9), 0, ())
    assert (batch.snapshot, batch.truncate_from, batch.first) == (snapshot, None, 10)
    assert not needed(writes, 9)
    assert batch.token is not None
    writes.persisted(batch.token)
    assert writes.stable == 9
    assert writes.take(HardState(), Index(10), 0, ()).snapshot is None


def test_what_was_written_before_a_snapshot_proves_nothing_beyond_the_commit() -> None:
    writes = queue()
    first = take(writes, 5)
    snapshot = Snapshot(index=Index(9), term=Term(1), config=Config(voters=frozenset()))
    writes.reset(Index(2), snapshot)
    writes.persisted(first)
    assert writes.stable == 2
