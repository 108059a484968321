"""The log keeps what was synced through every crash, and refuses to start on damage to it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.types import Entry, EntryKind, HardState, Index, NodeId, Term
from pgraft.storage import wal
from pgraft.storage.disk import Disk, StorageError
from pgraft.storage.replay import Recovery, recover
from pgraft.storage.segment import (
    HEADER_BYTES,
    Owner,
    Record,
    record_bytes,
    scan,
    unpack_header,
)
from pgraft.storage.wal import (
    SEGMENT_BYTES,
    Wal,
    WalBatch,
    WalCorrupt,
    WalFailed,
    WalForeign,
)
from tests.support.pgraft_disk import MemoryDisk

OWNER = Owner(cluster_id="c" * 32, node=1, uuid="a" * 32)
FIRST = "0000000000000001.wal"
SECOND = "0000000000000002.wal"


def entry(index: int, term: int = 1, data: bytes = b"x") -> Entry:
    return Entry(term=Term(term), index=Index(index), kind=EntryKind.COMMAND, data=data)


def state(term: int, vote: int = 0, commit: int = 0) -> HardState:
    return HardState(term=Term(term), vote=NodeId(vote), commit=Index(commit))


def fresh(disk: Disk) -> Wal:
    wal.create(disk, OWNER)
    return recover(disk, OWNER)[0]


def recovered(disk: Disk) -> Recovery:
    return recover(disk, OWNER)[1]


class Model:
    """What the log must hold, kept the simple way."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hard_state = HardState()

    def take(self, batch: WalBatch) -> None:
        if batch.truncate_from is not None:
            del self.entries[batch.truncate_from - 1 :]
        self.entries += batch.entries
        self.hard_state = batch.hard_state or self.hard_state

    def picture(self) -> tuple[tuple[Entry, ...], HardState]:
        return tuple(self.entries), self.hard_state


@st.composite
def histories(draw: st.DrawFn, size_max: int = 2000) -> list[WalBatch]:
    """Batches a core could hand out: terms and commits only grow, nothing committed is cut."""
    batches: list[WalBatch] = []
    last = commit = 0
    term = 1
    for _ in range(draw(st.integers(1, 8))):
        cut = draw(st.none() | st.integers(commit + 1, last + 1))
        last = last if cut is None else cut - 1
        term += draw(st.integers(0, 2))
        sizes = draw(st.lists(st.integers(0, size_max), max_size=4))
        entries = tuple(
            entry(last + number, term, bytes([number]) * size)
            for number, size in enumerate(sizes, 1)
        )
        last += len(entries)
        commit = draw(st.integers(commit, last))
        # One vote per term: the node of a term is a function of the term.
        batches.append(
            WalBatch(
                truncate_from=None if cut is None else Index(cut),
                entries=entries,
                hard_state=state(term, term % 3 + 1, commit),
            )
        )
    return batches


def write_all(disk: Disk, batches: Sequence[WalBatch]) -> Model:
    log, model = fresh(disk), Model()
    for batch in batches:
        log.append([batch])
        model.take(batch)
    return model


@given(histories())
def test_what_was_synced_is_recovered(batches: list[WalBatch]) -> None:
    disk = MemoryDisk()
    model = write_all(disk, batches)
    disk.crash([False])
    found = recovered(disk)
    assert (found.entries, found.hard_state) == model.picture()
    assert found.torn_bytes == 0


@given(histories(), st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_a_crash_during_the_last_write_loses_all_of_it_or_nothing(
    batches: list[WalBatch], keep: list[bool], data: st.DataObject
) -> None:
    disk = MemoryDisk()
    model = write_all(disk, batches[:-1])
    before = model.picture()
    disk.crash([True])
    log, _ = recover(disk, OWNER)
    disk.fail_at = lambda kind: kind == "sync"
    with pytest.raises(WalFailed):
        log.append([batches[-1]])
    model.take(batches[-1])
    written = sum(len(part) for _, part in disk.files[FIRST].pending)
    keep_bytes = data.draw(st.none() | st.integers(0, written))
    disk.crash(keep, keep_bytes)
    disk.fail_at = lambda kind: False

    found = recovered(disk)
    assert (found.entries, found.hard_state) in (before, model.picture())
    # And the log goes on from there as if nothing had happened.
    again = recovered(disk)
    assert (again.entries, again.hard_state) == (found.entries, found.hard_state)
    assert again.torn_bytes == 0


@given(histories(), st.data())
def test_after_a_torn_write_the_log_goes_on(batches: list[WalBatch], data: st.DataObject) -> None:
    disk = MemoryDisk()
    model = write_all(disk, batches)
    log, _ = recover(disk, OWNER)
    torn = WalBatch(entries=(entry(len(model.entries) + 1, 50, b"t" * 3000),))
    disk.fail_at = lambda kind: kind == "sync"
    with pytest.raises(WalFailed):
        log.append([torn])
    disk.crash([], data.draw(st.integers(1, 3000)))
    disk.fail_at = lambda kind: False

    log, found = recover(disk, OWNER)
    assert found.torn_bytes > 0
    assert (found.entries, found.hard_state) == model.picture()
    log.append([WalBatch(entries=(entry(len(model.entries) + 1, 60, b"s"),))])
    disk.crash([False])
    assert recovered(disk).entries[-1].data == b"s"


def records_of(disk: MemoryDisk) -> tuple[Record, ...]:
    """The records of the first segment; the first of them is its base."""
    content = bytes(disk.files[FIRST].durable)
    return scan(unpack_header(content), content).records


HEAD_BYTES = 20
"""Length, checksum, kind, three bytes of padding, sequence number."""


def carries(record: Record, place: int) -> bool:
    """The byte at `place` means something in `record`: padding, in its head and at its end, does
    not, so damage there is no damage."""
    inside = place - record.offset
    head_padding = range(9, 12)
    return 0 <= inside < HEAD_BYTES + len(record.payload) and inside not in head_padding


@given(histories(size_max=300), st.data())
def test_no_flipped_bit_is_ever_believed(batches: list[WalBatch], data: st.DataObject) -> None:
    """Damage before the last record refuses to start; in the last one it looks like a torn write;
    elsewhere it changes nothing."""
    disk = MemoryDisk()
    model = write_all(disk, batches[:-1])
    before_last = model.picture()
    log, _ = recover(disk, OWNER)
    log.append([batches[-1]])
    model.take(batches[-1])

    content = disk.files[FIRST].durable
    records = records_of(disk)
    last = records[-1]
    end = last.offset + record_bytes(len(last.payload))
    place = data.draw(st.integers(0, end + 64))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    if place < HEADER_BYTES or any(carries(record, place) for record in records[:-1]):
        with pytest.raises(WalCorrupt, match=f"/memory/{FIRST}, offset .* to the group again"):
            recovered(disk)
    else:
        found = recovered(disk)
        picture = (found.entries, found.hard_state)
        inside_last = last.offset <= place < end
        assert picture == model.picture() or (inside_last and picture == before_last)


def test_rot_in_the_middle_names_file_offset_and_remedy() -> None:
    disk = MemoryDisk()
    write_all(disk, [WalBatch(entries=(entry(n),)) for n in range(1, 4)])
    place = records_of(disk)[1].offset
    disk.files[FIRST].durable[place + 30] ^= 0x10
    with pytest.raises(WalCorrupt, match=f"{FIRST}, offset {place}: .*valid record follows"):
        recovered(disk)


def test_segments_are_chained_and_a_batch_larger_than_one_gets_its_own() -> None:
    disk = MemoryDisk()
    sizes = [700_000, 700_000, 3 << 20, 10]
    batches = [WalBatch(entries=(entry(n, data=bytes(size)),)) for n, size in enumerate(sizes, 1)]
    model = write_all(disk, batches)
    assert len(disk.names()) == 4
    found = recovered(disk)
    assert (found.entries, found.hard_state) == model.picture()
    assert len(disk.read(disk.names()[2])) > 3 << 20


def two_segments() -> MemoryDisk:
    disk = MemoryDisk()
    write_all(disk, [WalBatch(entries=(entry(n, data=bytes(700_000)),)) for n in (1, 2)])
    assert disk.names() == [FIRST, SECOND]
    return disk


def test_damage_at_the_end_of_an_earlier_segment_is_rot() -> None:
    disk = two_segments()
    disk.files[FIRST].durable[HEADER_BYTES + 5000] ^= 1
    with pytest.raises(WalCorrupt, match="another segment follows"):
        recovered(disk)


def test_a_record_wiped_at_the_end_of_an_earlier_segment_is_missed() -> None:
    disk = two_segments()
    place = records_of(disk)[1].offset
    disk.files[FIRST].durable[place:] = bytes(SEGMENT_BYTES - place)
    with pytest.raises(WalCorrupt, match="is lost"):
        recovered(disk)


@pytest.mark.parametrize(
    ("lost", "told"),
    [(FIRST, f"{SECOND} begins after entry 1, and no snapshot"), (SECOND, f"{SECOND} is missing")],
)
def test_a_missing_segment_is_noticed_unless_it_is_the_newest(lost: str, told: str) -> None:
    disk = two_segments()
    write_all_more(disk)
    del disk.files[lost]
    with pytest.raises(WalCorrupt, match=told):
        recovered(disk)


def write_all_more(disk: MemoryDisk) -> None:
    log, _ = recover(disk, OWNER)
    log.append([WalBatch(entries=(entry(3, data=bytes(700_000)),))])
    assert len(disk.names()) == 3


def test_no_log_at_all_is_not_an_empty_log() -> None:
    with pytest.raises(WalCorrupt, match="missing"):
        recovered(MemoryDisk())


def test_a_crash_right_after_a_new_segment_was_made_is_harmless() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    log.append([WalBatch(entries=(entry(1, data=bytes(700_000)),))])
    disk.fail_at = lambda kind: kind == "write"
    with pytest.raises(WalFailed):
        log.append([WalBatch(entries=(entry(2, data=bytes(700_000)),))])
    disk.crash([False])
    disk.fail_at = lambda kind: False
    assert disk.names() == [FIRST, SECOND]
    log, found = recover(disk, OWNER)
    assert len(found.entries) == 1
    log.append([WalBatch(entries=(entry(2),))])
    assert len(recovered(disk).entries) == 2


def test_a_failed_sync_stops_the_log_for_good() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    log.append([WalBatch(entries=(entry(1),))])
    disk.fail_at = lambda kind: kind == "sync"
    with pytest.raises(WalFailed, match="check the disk"):
        log.append([WalBatch(entries=(entry(2),))])
    disk.fail_at = lambda kind: False
    with pytest.raises(WalFailed):
        log.append([WalBatch(entries=(entry(2),))])
    assert disk.steps.count("write") == 2, "nothing more was written"


def test_what_only_the_page_cache_held_is_made_durable_before_it_is_believed() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    disk.fail_at = lambda kind: kind == "sync"
    with pytest.raises(WalFailed):
        log.append([WalBatch(entries=(entry(1),), hard_state=state(5, 2))])
    disk.fail_at = lambda kind: False
    seen = recovered(disk)  # the process restarts, the machine does not
    assert seen.hard_state == state(5, 2)
    disk.crash([False])  # now the power goes
    assert recovered(disk).hard_state == state(5, 2)


def test_one_append_is_one_write_and_one_sync() -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    disk.steps.clear()
    log.append([WalBatch(entries=(entry(n),), hard_state=state(n, 1)) for n in range(1, 20)])
    assert disk.steps == ["write", "sync"]


BROKEN = {
    "term goes back": [WalBatch(hard_state=state(5)), WalBatch(hard_state=state(4))],
    "second vote": [WalBatch(hard_state=state(5, 1)), WalBatch(hard_state=state(5, 2))],
    "vote withdrawn": [WalBatch(hard_state=state(5, 1)), WalBatch(hard_state=state(5, 0))],
    "commit goes back": [
        WalBatch(entries=(entry(1),), hard_state=state(1, commit=1)),
        WalBatch(hard_state=state(1, commit=0)),
    ],
    "commit beyond the log": [WalBatch(hard_state=state(1, commit=1))],
    "gap": [WalBatch(entries=(entry(2),))],
    "committed entry cut": [
        WalBatch(entries=(entry(1), entry(2)), hard_state=state(1, commit=2)),
        WalBatch(truncate_from=Index(2)),
    ],
    "cut beyond the end": [WalBatch(truncate_from=Index(2))],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_batch_that_breaks_the_rules_is_refused_before_it_is_written(name: str) -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    *good, bad = BROKEN[name]
    for batch in good:
        log.append([batch])
    disk.steps.clear()
    with pytest.raises(AssertionError):
        log.append([bad])
    assert disk.steps == []


@pytest.mark.parametrize(
    "owner",
    [
        Owner(cluster_id="d" * 32, node=1, uuid="a" * 32),
        Owner(cluster_id="c" * 32, node=2, uuid="a" * 32),
        Owner(cluster_id="c" * 32, node=1, uuid="b" * 32),
    ],
)
def test_the_log_of_another_member_is_refused_by_name(owner: Owner) -> None:
    disk = MemoryDisk()
    wal.create(disk, OWNER)
    with pytest.raises(WalForeign, match=f"node {OWNER.node} .*{OWNER.cluster_id}"):
        recover(disk, owner)


def test_a_log_is_made_once() -> None:
    disk = MemoryDisk()
    wal.create(disk, OWNER)
    with pytest.raises(StorageError, match="already holds a log"):
        wal.create(disk, OWNER)


def test_a_copy_of_a_record_inside_an_entry_is_not_taken_for_a_record() -> None:
    """Else a torn write of such an entry would look like rot."""
    disk = MemoryDisk()
    log = fresh(disk)
    log.append([WalBatch(entries=(entry(1, data=b"y" * 64),))])
    place = records_of(disk)[1].offset
    copy = bytes(disk.files[FIRST].durable[place : place + 400])
    disk.fail_at = lambda kind: kind == "sync"
    with pytest.raises(WalFailed):
        log.append([WalBatch(entries=(entry(2, data=copy * 20),))])
    disk.fail_at = lambda kind: False
    content = disk.files[FIRST]
    ((offset, part),) = content.pending
    # Everything reached the disk but the first sector of the write.
    content.pending[:] = [(offset + 100, part[100:])]
    disk.crash([True])
    assert len(recovered(disk).entries) == 1


def test_a_record_of_a_later_version_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    log = fresh(disk)
    monkeypatch.setattr("pgraft.storage.segment.pack_record.__defaults__", (7,))
    log.append([WalBatch(entries=(entry(1),))])
    with pytest.raises(WalCorrupt, match="later version"):
        recovered(disk)
