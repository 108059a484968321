"""Stories of a log with snapshots: a crash, a failure or a full disk at any step loses nothing."""

import errno
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgraft.core.types import Entry, HardState, Index
from pgraft.storage import snapshot as snapshots
from pgraft.storage import wal
from pgraft.storage.errors import DiskFull, WalFailed
from pgraft.storage.replay import Recovery, recover
from pgraft.storage.wal import WalBatch
from tests.support.pgraft_disk import MemoryDisk
from tests.support.pgraft_log import OWNER, SMALL, entry, snap, state


@pytest.fixture(autouse=True, scope="module")
def _small_segments() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgraft.storage.wal.SEGMENT_BYTES", SMALL)
        yield


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Steps of a member: append so many entries, cut and append, snapshot, install, make room."""
    kinds = st.sampled_from(["append", "append", "conflict", "snapshot", "install", "prepare"])
    return draw(st.lists(st.tuples(kinds, st.integers(1, 12)), min_size=1, max_size=14))


class Member:
    """Runs a story over a log, and knows what must be found after a crash."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        wal.create(disk, OWNER)
        self.log = recover(disk, OWNER)[0]
        self.entries: dict[int, Entry] = {}
        self.hard_state = HardState()
        self.applied = 0
        self.pending: tuple[dict[int, Entry], HardState] | None = None
        self.newest = 0

    def play(self, kind: str, size: int) -> None:
        getattr(self, kind)(size)

    def append(self, size: int) -> None:
        self._write(max(self.entries, default=self.newest) + 1, size)

    def conflict(self, size: int) -> None:
        last = max(self.entries, default=self.newest)
        self._write(max(self.hard_state.commit + 1, last - size), size)

    def _write(self, first: int, size: int) -> None:
        last = max(self.entries, default=self.newest)
        term = self.hard_state.term + 1
        new = tuple(entry(first + n, term, 100 * size) for n in range(size))
        self.batch(
            WalBatch(
                truncate_from=Index(first) if first <= last else None,
                entries=new,
                hard_state=state(term, max(self.hard_state.commit, first + size // 2)),
            )
        )

    def batch(self, batch: WalBatch) -> None:
        entries = dict(self.entries)
        if batch.snapshot is not None:
            entries.clear()
        if batch.truncate_from is not None:
            entries = {n: e for n, e in entries.items() if n < batch.truncate_from}
        entries.update({int(e.index): e for e in batch.entries})
        assert batch.hard_state is not None
        self.pending = (entries, batch.hard_state)
        self.log.append([batch])
        self.entries, self.hard_state = self.pending
        self.newest = max(self.newest, batch.snapshot.index if batch.snapshot else 0)
        self.pending = None

    def snapshot(self, size: int) -> None:
        commit = self.hard_state.commit
        if commit > self.newest:
            taken = snap(commit, self.entries[commit].term)
            older = snapshots.save(self.disk, OWNER, taken)
            self.newest = commit
            self.log.compact(older)

    def install(self, size: int) -> None:
        last = max(self.entries, default=self.newest)
        term = self.hard_state.term + 1
        taken = snap(last + size, term)
        self.batch(WalBatch(snapshot=taken, hard_state=state(term, taken.index)))
        self.log.compact(taken.index)

    def prepare(self, size: int) -> None:
        self.log.prepare()

    def check(self, found: Recovery) -> None:
        """Exactly what was durable, or that and the whole step under way."""
        start = found.snapshot.index if found.snapshot else 0
        assert start >= self.newest
        pictures = [(self.entries, self.hard_state)]
        if self.pending is not None:
            pictures.append(self.pending)
        seen = {int(e.index): e for e in found.entries}
        possible = []
        for entries, hard_state in pictures:
            tail = {n: e for n, e in entries.items() if n > start}
            commit = Index(max(hard_state.commit, start))
            possible.append((tail, replace(hard_state, commit=commit)))
        if found.snapshot is not None and found.snapshot.index > max(
            self.entries, default=self.newest
        ):
            # The snapshot that was being installed is there, and the rest of its batch is not.
            term = max(self.hard_state.term, found.snapshot.term)
            possible.append(({}, HardState(term=term, commit=found.snapshot.index)))
        assert (seen, found.hard_state) in possible


@settings(max_examples=300)
@given(stories(), st.integers(1, 200), st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_crash_at_any_step_of_any_story_loses_nothing_durable(
    story: list[tuple[str, int]], at: int, survives: list[bool]
) -> None:
    disk = MemoryDisk()
    member = Member(disk)
    disk.steps.clear()
    disk.fail_at = lambda kind: len(disk.steps) >= at
    try:
        for step in story:
            member.play(*step)
    except (WalFailed, DiskFull):
        assert len(disk.steps) == at, "the first failure stops it"
    disk.fail_at = lambda kind: False
    disk.crash(survives)
    log, found = recover(disk, OWNER)
    member.check(found)
    again = recover(disk, OWNER)[1]
    assert replace(again, segments=found.segments, torn_bytes=found.torn_bytes) == found
    # And it goes on.
    last = found.entries[-1].index if found.entries else found.hard_state.commit
    log, _ = recover(disk, OWNER)
    term = found.hard_state.term + 1
    log.append([WalBatch(entries=(entry(last + 1, term),), hard_state=state(term, last + 1))])
    assert recover(disk, OWNER)[1].hard_state == state(term, last + 1)


@settings(max_examples=150)
@given(stories(), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_a_disk_that_is_full_now_and_then_costs_nothing(
    story: list[tuple[str, int]], gaps: list[int]
) -> None:
    """Each step that does not fit is simply asked again."""
    disk = MemoryDisk()
    member = Member(disk)
    disk.error = errno.ENOSPC
    left = list(gaps)

    def fail(kind: str) -> bool:
        if not left or kind in ("sync", "remove"):
            return False
        left[0] -= 1
        if left[0] > 0:
            return False
        left.pop(0)
        return True

    disk.fail_at = fail
    for step in story:
        for _ in range(len(gaps) + 1):
            try:
                member.play(*step)
            except DiskFull:
                continue
            break
    disk.fail_at = lambda kind: False
    disk.crash([False])
    found = recover(disk, OWNER)[1]
    member.check(found)
    assert member.pending is None
