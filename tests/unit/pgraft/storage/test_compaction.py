"""A log with snapshots: nothing older than they are is needed, and a full disk costs nothing."""

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pgraft.core.types import HardState, Index, Term
from pgraft.storage import snapshot as snapshots
from pgraft.storage import wal
from pgraft.storage.batches import encode_batches
from pgraft.storage.disk import OsDisk
from pgraft.storage.errors import DiskFull, WalCorrupt, WalFailed
from pgraft.storage.replay import Recovery, recover
from pgraft.storage.segment import (
    HEADER_BYTES,
    SegmentHeader,
    pack_header,
    pack_record,
    record_bytes,
)
from pgraft.storage.wal import SPARE, Wal, WalBatch
from tests.support.pgraft_disk import MemoryDisk
from tests.support.pgraft_log import OWNER, SMALL, entry, snap, state


@pytest.fixture(autouse=True, scope="module")
def _small_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgraft.storage.wal.SEGMENT_BYTES", SMALL)
        yield


def fresh(disk: MemoryDisk | OsDisk) -> Wal:
    wal.create(disk, OWNER)
    return recover(disk, OWNER)[0]


def segments(disk: MemoryDisk | OsDisk) -> list[int]:
    return [int(name[:16], 16) for name in disk.names() if name.endswith(".wal")]


def fill(log: Wal, first: int, last: int, term: int = 1) -> None:
    for index in range(first, last + 1):
        log.append([WalBatch(entries=(entry(index, term, 1000),), hard_state=state(term, index))])


def keep(disk: MemoryDisk | OsDisk, log: Wal, index: int, term: int = 1) -> int:
    """A snapshot of one's own, as the host takes it; returns how many segments went."""
    return log.compact(snapshots.save(disk, OWNER, snap(index, term)))


def test_segments_below_the_older_snapshot_go_and_recovery_needs_none_of_them() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    fill(log, 1, 30)
    before = segments(disk)
    assert keep(disk, log, 20) == 0, "the only snapshot may rot: the log still holds everything"
    assert keep(disk, log, 28) > 0
    left = segments(disk)
    assert left == before[-len(left) :]
    assert len(left) < len(before)
    _, found = recover(disk, OWNER)
    assert found.snapshot == snap(28)
    assert [e.index for e in found.entries] == [29, 30]
    assert found.hard_state == state(1, 30)


def test_rot_in_the_newest_snapshot_costs_nothing() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    fill(log, 1, 30)
    keep(disk, log, 20)
    keep(disk, log, 28)
    disk.files[f"{28:016x}.snap"].durable[-1] ^= 1
    _, found = recover(disk, OWNER)
    assert found.snapshot == snap(20)
    assert [e.index for e in found.entries] == list(range(21, 31))


def test_a_log_whose_snapshots_are_gone_refuses_to_start() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    fill(log, 1, 30)
    keep(disk, log, 20)
    keep(disk, log, 28)
    for index in (20, 28):
        disk.remove(f"{index:016x}.snap")
    with pytest.raises(WalCorrupt, match=r"no snapshot reaches that far.*to the group again"):
        recover(disk, OWNER)


def test_the_log_goes_on_and_is_compacted_through_many_restarts() -> None:
    disk = MemoryDisk()
    wal.create(disk, OWNER)
    for turn in range(12):
        log, found = recover(disk, OWNER)
        assert found.hard_state.commit == turn * 10
        log.prepare()
        fill(log, turn * 10 + 1, turn * 10 + 10)
        keep(disk, log, turn * 10 + 7)
    assert len(segments(disk)) < 12, "what 120 entries take is several times as much"


def test_an_installed_snapshot_takes_the_place_of_the_log() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    fill(log, 1, 5)
    log.append(
        [
            WalBatch(snapshot=snap(100, 4), entries=(entry(101, 5),), hard_state=state(6, 100)),
            WalBatch(entries=(entry(102, 6),)),
        ]
    )
    assert log.compact(Index(100)) > 0
    _, found = recover(disk, OWNER)
    assert found.snapshot == snap(100, 4)
    assert found.entries == (entry(101, 5), entry(102, 6))
    assert found.hard_state == state(6, 100)


def test_a_snapshot_beyond_the_log_was_saved_before_a_crash_and_counts() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    fill(log, 1, 5)
    snapshots.save(disk, OWNER, snap(100, 4))
    log, found = recover(disk, OWNER)
    assert (found.snapshot, found.entries) == (snap(100, 4), ())
    # It has not voted in term 4, or that would be durable: it may still.
    assert found.hard_state == HardState(term=Term(4), commit=Index(100))
    log.append([WalBatch(entries=(entry(101, 5),), hard_state=state(5, 101))])
    assert recover(disk, OWNER)[1].entries == (entry(101, 5),)


def test_an_uncommitted_end_that_disagrees_with_a_saved_snapshot_goes() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    entries = tuple(entry(index) for index in range(1, 9))
    log.append([WalBatch(entries=entries, hard_state=state(1, 2))])
    snapshots.save(disk, OWNER, snap(5, 3))
    assert recover(disk, OWNER)[1].entries == ()
    # One that agrees stays: this member may have confirmed it.
    disk = MemoryDisk()
    log = fresh(disk)
    log.append([WalBatch(entries=entries, hard_state=state(1, 2))])
    snapshots.save(disk, OWNER, snap(5, 1))
    found = recover(disk, OWNER)[1]
    assert found.entries == entries[5:]
    assert found.hard_state == state(1, 5)


def test_a_committed_entry_that_disagrees_with_a_snapshot_is_refused() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    fill(log, 1, 5)
    snapshots.save(disk, OWNER, snap(4, 9))
    with pytest.raises(WalCorrupt, match="disagree"):
        recover(disk, OWNER)


def test_a_log_of_the_first_format_is_read_and_goes_on_in_the_new_one() -> None:
    disk = MemoryDisk()
    header = SegmentHeader(owner=OWNER, first_seq=1, format=1)
    data = pack_header(header)
    for seq in (1, 2, 3):
        payload = encode_batches([WalBatch(entries=(entry(seq),), hard_state=state(1, seq))])
        data += pack_record(header, len(data), seq, payload)
    disk.replace(wal.name_of(1), data.ljust(SMALL, b"\0"))
    log, found = recover(disk, OWNER)
    assert [e.index for e in found.entries] == [1, 2, 3]
    assert segments(disk) == [1, 2], "an earlier version must not read what follows"
    fill(log, 4, 12)
    keep(disk, log, 8)
    assert keep(disk, log, 10) >= 1
    assert segments(disk)[0] > 1
    assert [e.index for e in recover(disk, OWNER)[1].entries] == [11, 12]


def test_a_segment_of_the_first_format_that_is_not_the_first_misses_those_before() -> None:
    disk = MemoryDisk()
    header = SegmentHeader(owner=OWNER, first_seq=9, format=1)
    disk.replace(wal.name_of(2), pack_header(header).ljust(SMALL, b"\0"))
    with pytest.raises(WalCorrupt, match=f"{wal.name_of(1)} is missing"):
        recover(disk, OWNER)


def test_a_format_of_the_future_is_refused_with_what_to_do() -> None:
    disk = MemoryDisk()
    header = SegmentHeader(owner=OWNER, first_seq=1, format=3)
    disk.replace(wal.name_of(1), pack_header(header).ljust(SMALL, b"\0"))
    with pytest.raises(WalCorrupt, match=r"format 3.*start this node with the version"):
        recover(disk, OWNER)


def test_the_next_segment_is_made_ahead_and_taken_without_making_another() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    before = log.wants_room
    log.prepare()
    assert (before, log.wants_room) == (True, False)
    assert SPARE in disk.names()
    disk.steps.clear()
    log.prepare()
    assert disk.steps == []
    fill(log, 1, 5)
    assert "replace" not in disk.steps
    assert disk.steps.count("rename") == 1
    assert SPARE not in disk.names()
    assert len(recover(disk, OWNER)[1].entries) == 5


def test_a_full_disk_shows_before_a_batch_is_written_and_the_batch_may_come_again() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    disk.error = errno.ENOSPC
    disk.fail_at = lambda kind: kind == "replace"
    with pytest.raises(DiskFull, match="free some space"):
        log.prepare()
    fill(log, 1, 2)
    batch = WalBatch(entries=(entry(3, 1, 3000),), hard_state=state(1, 3))
    disk.steps.clear()
    for _ in range(3):
        with pytest.raises(DiskFull):
            log.append([batch])
    assert set(disk.steps) == {"replace"}, "nothing of it was written"
    assert len(recover_copy(disk).entries) == 2
    disk.fail_at = lambda kind: False
    log.append([batch])
    log.prepare()
    assert len(recover(disk, OWNER)[1].entries) == 3


def recover_copy(disk: MemoryDisk) -> Recovery:
    """What another process would find; `disk` itself stays as it is."""
    return recover(disk.copy(), OWNER)[1]


@pytest.mark.parametrize(("at", "prepared"), [("write", False), ("write", True), ("rename", True)])
def test_no_room_for_a_write_in_place_is_asked_again_unchanged(at: str, prepared: bool) -> None:
    """As on file systems that never write in place."""
    disk = MemoryDisk()
    log = fresh(disk)
    if prepared:
        log.prepare()
    fill(log, 1, 2)
    disk.error = errno.ENOSPC
    disk.fail_at = lambda kind: kind == at
    batches = [WalBatch(entries=(entry(3, 1, 3000),), hard_state=state(1, 3))]
    if not prepared:
        batches = [WalBatch(entries=(entry(3, 1, 300),), hard_state=state(1, 3))]
    with pytest.raises(DiskFull):
        log.append(batches)
    disk.fail_at = lambda kind: False
    if not prepared:
        with pytest.raises(AssertionError, match="unchanged"):
            log.append([replace(batches[0], entries=(entry(3),))])
    log.append(batches)
    fill(log, 4, 6)
    assert [e.index for e in recover(disk, OWNER)[1].entries] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("prepared", [False, True])
def test_a_sync_that_fails_is_final_even_if_it_says_that_the_disk_is_full(prepared: bool) -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    if prepared:
        log.prepare()
        fill(log, 1, 3)
    disk.error = errno.ENOSPC
    disk.fail_at = lambda kind: kind == "sync"
    with pytest.raises(WalFailed, match="has stopped"):
        fill(log, 4 if prepared else 1, 5)
    disk.fail_at = lambda kind: False
    with pytest.raises(WalFailed):
        fill(log, 5, 5)
    with pytest.raises(WalFailed):
        log.prepare()


def test_recovery_takes_the_room_that_was_made_ahead_before_it_writes() -> None:
    disk = MemoryDisk()
    fresh(disk).prepare()
    disk.steps.clear()
    recover(disk, OWNER)
    assert disk.steps == ["remove", "replace"]
    assert SPARE not in disk.names()


def test_recovery_on_a_full_disk_says_so() -> None:
    disk = MemoryDisk()
    wal.create(disk, OWNER)
    disk.error = errno.ENOSPC
    disk.fail_at = lambda kind: kind == "replace"
    with pytest.raises(DiskFull, match="free some space"):
        recover(disk, OWNER)


def test_records_know_the_place_of_their_base() -> None:
    """A segment is never larger than it needs to be, and a large batch gets one of its own."""
    disk = MemoryDisk()
    log = fresh(disk)
    log.append([WalBatch(entries=(entry(1, 1, 3 * SMALL),))])
    assert len(disk.read(wal.name_of(2))) > 3 * SMALL
    assert len(disk.read(wal.name_of(2))) < HEADER_BYTES + 200 + record_bytes(4 * SMALL)
    assert len(recover(disk, OWNER)[1].entries) == 1
