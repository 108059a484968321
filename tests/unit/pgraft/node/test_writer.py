"""The writing thread: batches in order and first, chores between them, a full disk only waits."""

import errno
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from pgraft.core.types import Config, Entry, EntryKind, HardState, Index, NodeId, Snapshot, Term
from pgraft.node import writer as writer_module
from pgraft.node.writer import LogWriter, SyncTimes, WriterEvents
from pgraft.storage import wal
from pgraft.storage.errors import WalFailed
from pgraft.storage.replay import recover
from pgraft.storage.segment import Owner
from pgraft.storage.wal import SEGMENT_BYTES, SPARE, WalBatch
from tests.support.pgraft_disk import MemoryDisk
from tests.support.wait import wait_for_async

OWNER = Owner(cluster_id="c" * 32, node=1, uuid="a" * 32)
DEADLINE_S = 20


def batch(index: int, size: int = 10) -> WalBatch:
    entry = Entry(term=Term(1), index=Index(index), kind=EntryKind.COMMAND, data=bytes(size))
    return WalBatch(entries=(entry,), hard_state=HardState(term=Term(1), commit=Index(index)))


def snap(index: int, term: int = 1) -> Snapshot:
    config = Config(voters=frozenset({NodeId(1)}))
    return Snapshot(index=Index(index), term=Term(term), config=config)


@dataclass
class Heard:
    durable: list[int] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    saved: list[Snapshot] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)


class Gate(MemoryDisk):
    """Its steps wait for `open`."""

    def __init__(self) -> None:
        super().__init__()
        self.open_gate = threading.Event()
        self.open_gate.set()

    def step(self, kind: str) -> None:
        self.open_gate.wait(DEADLINE_S)
        super().step(kind)


@dataclass
class Bench:
    disk: Gate
    heard: Heard
    writer: LogWriter

    async def until(self, token: int) -> None:
        await wait_for_async(
            lambda: self.heard.durable and self.heard.durable[-1] >= token,
            DEADLINE_S,
            f"batch {token} is durable",
        )


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    disk, heard = Gate(), Heard()
    wal.create(disk, OWNER)
    log, _ = recover(disk, OWNER)
    events = WriterEvents(
        durable=heard.durable.append,
        failed=heard.failed.append,
        saved=heard.saved.append,
        full=heard.full.append,
    )
    bench = Bench(disk, heard, LogWriter(log, events))
    yield bench
    disk.open_gate.set()
    disk.fail_at = lambda kind: False
    await bench.writer.close()


async def test_batches_come_before_chores_and_share_a_sync(bench: Bench) -> None:
    bench.disk.steps.clear()
    bench.disk.open_gate.clear()
    bench.writer.submit(1, batch(1))
    bench.writer.save(snap(1))
    bench.writer.submit(2, batch(2))
    bench.writer.submit(3, batch(3))
    bench.disk.open_gate.set()
    await wait_for_async(lambda: bench.heard.saved, DEADLINE_S, "the snapshot is saved")
    assert bench.heard.durable == [1, 3]
    assert bench.disk.steps[:4] == ["write", "sync", "write", "sync"], "then the snapshot"
    assert bench.disk.steps.count("replace") == 2, "a snapshot, and room for the next segment"
    assert SPARE in bench.disk.names()
    assert bench.writer.durable() == (1, 3)


async def test_an_installed_snapshot_begins_a_group_and_old_segments_go(bench: Bench) -> None:
    bench.disk.open_gate.clear()
    bench.writer.submit(1, batch(1))
    bench.writer.submit(2, batch(2))
    after = HardState(term=Term(3), commit=Index(50))
    bench.writer.submit(3, WalBatch(snapshot=snap(50, 3), hard_state=after))
    bench.writer.submit(4, WalBatch(hard_state=HardState(term=Term(4), commit=Index(50))))
    bench.disk.open_gate.set()
    await bench.until(4)
    assert bench.heard.durable == [1, 2, 4]
    await wait_for_async(
        lambda: wal.name_of(1) not in bench.disk.names(), DEADLINE_S, "the old segment is gone"
    )
    _, found = recover(bench.disk.copy(), OWNER)
    assert found.snapshot == snap(50, 3)
    assert found.hard_state.term == 4


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.01)
    monkeypatch.setattr(writer_module, "LOOK_S", 0.01)


@pytest.mark.usefixtures("quick")
async def test_what_does_not_fit_waits_for_room_and_is_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.disk.error = errno.ENOSPC
    bench.disk.fail_at = lambda kind: kind != "sync"
    for number in range(1, 6):
        bench.writer.submit(number, batch(number))
    await wait_for_async(
        lambda: bench.disk.steps.count("write") > 4, DEADLINE_S, "it is tried again and again"
    )
    bench.writer.save(snap(1))
    assert (bench.heard.durable, bench.heard.full) == ([], [True])
    assert bench.writer.state.word == "full"
    assert "free some space" in caplog.text
    bench.disk.fail_at = lambda kind: False
    await bench.until(5)
    assert bench.heard.full == [True, False]
    await wait_for_async(lambda: bench.heard.saved, DEADLINE_S, "chores go on")
    assert bench.writer.state.word == "ok"
    assert len(recover(bench.disk.copy(), OWNER)[1].entries) == 4, "the snapshot is of the first"
    assert not bench.heard.failed


@pytest.mark.usefixtures("quick")
async def test_no_room_for_chores_is_said_and_the_log_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.disk.error = errno.ENOSPC
    bench.disk.fail_at = lambda kind: kind == "replace"
    bench.writer.prepare()
    bench.writer.save(snap(0))
    bench.writer.submit(1, batch(1))
    await bench.until(1)
    await wait_for_async(lambda: bench.writer.state.low, DEADLINE_S, "it is noticed")
    assert bench.writer.state.word == "low"
    assert "room for less than one more segment" in caplog.text
    await wait_for_async(
        lambda: "no snapshot was taken" in caplog.text, DEADLINE_S, "the snapshot is given up"
    )
    assert bench.heard.saved == []
    # Then the running segment ends: this waits for room, and lets nothing past.
    bench.writer.submit(2, batch(2, SEGMENT_BYTES))
    await wait_for_async(lambda: bench.heard.full == [True], DEADLINE_S, "it is full")
    bench.disk.fail_at = lambda kind: False
    await bench.until(2)
    await wait_for_async(lambda: bench.writer.state.word == "ok", DEADLINE_S, "all is well")


async def test_no_room_to_remove_a_segment_is_put_off(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """There are file systems on which even that takes room."""
    bench.disk.error = errno.ENOSPC
    bench.disk.fail_at = lambda kind: kind == "remove"
    bench.writer.submit(1, batch(1))
    installed = WalBatch(snapshot=snap(50), hard_state=HardState(term=Term(1), commit=Index(50)))
    bench.writer.submit(2, installed)
    await bench.until(2)
    await wait_for_async(lambda: "put off" in caplog.text, DEADLINE_S, "it is said")
    bench.writer.submit(3, batch(51))
    await bench.until(3)
    assert not bench.heard.failed


async def test_a_chore_that_fails_is_as_final_as_a_write(bench: Bench) -> None:
    bench.disk.fail_at = lambda kind: kind == "replace"
    bench.writer.save(snap(0))
    await wait_for_async(lambda: bench.heard.failed, DEADLINE_S, "it is told")
    assert isinstance(bench.heard.failed[0], WalFailed)
    bench.disk.fail_at = lambda kind: False
    bench.writer.submit(1, batch(1))
    await bench.writer.close()
    assert bench.heard.durable == []


def test_times_of_syncs_are_those_of_the_last_ones() -> None:
    times = SyncTimes()
    assert times.picture() == (0, 0, 0)
    for number in range(1, 2001):
        times.note(number)
    median, p99, longest = times.picture()
    assert 1700 < median < 1800
    assert 1990 < p99 < longest == 2000
