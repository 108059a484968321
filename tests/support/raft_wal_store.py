"""A simulated member's disk with the real log's code on it: torn writes, failed syncs, rot.

Lives here: `WalStore`, the second implementation of `raft_store.Store`. Must not live here: the
disk itself (see `pgraft_disk`). Start reading at `WalStore.crash`.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from pgraft.core.types import Config, NodeId, Ready, Recovered, Snapshot
from pgraft.storage import snapshot as snapshots
from pgraft.storage import wal as wal_module
from pgraft.storage.disk import StorageError
from pgraft.storage.errors import DiskFull, WalCorrupt, WalFailed
from pgraft.storage.replay import Recovery, recover
from pgraft.storage.segment import Owner
from pgraft.storage.wal import WalBatch, create
from tests.support.pgraft_disk import MemoryDisk
from tests.support.raft_store import Image, Refused

STEPS_MAX = 8
"""A write is made of at most about so many steps; a power loss falls on any of them."""


@contextmanager
def segments_of(size: int) -> Iterator[None]:
    """Logs in segments of this many bytes, so that they roll often."""
    before = wal_module.SEGMENT_BYTES
    wal_module.SEGMENT_BYTES = size  # type: ignore[misc]
    try:
        yield
    finally:
        wal_module.SEGMENT_BYTES = before  # type: ignore[misc]


class WalStore:
    """`durable` is what recovery would find; the log's promise is checked at each crash."""

    def __init__(self, node: NodeId) -> None:
        self._owner = Owner(cluster_id="0" * 32, node=node, uuid=f"{node:032x}")
        self._disk = MemoryDisk()
        create(self._disk, self._owner)
        self._wal, _ = recover(self._disk, self._owner)
        self._unsynced: list[Ready] = []
        self._rotten = False
        self._half_written = False
        self._saving: Snapshot | None = None
        self.durable = Image()

    def write(self, ready: Ready) -> None:
        self._unsynced.append(ready)

    def sync(self) -> None:
        ready = self._unsynced[0]
        if self._wal.wants_room and not self._half_written and len(self._disk.steps) % 3 == 0:
            self._wal.prepare()
        self._half_written = True
        self._wal.append((_batch(ready),))
        self._half_written = False
        self.durable.write(ready)
        del self._unsynced[0]

    def compact(self, snapshot: Snapshot) -> None:
        self._saving = snapshot
        unneeded = snapshots.save(self._disk, self._owner, snapshot)
        self._saving = None
        self.durable.compact(snapshot)
        self._wal.compact(unneeded)

    def fail_next(self, rng: random.Random) -> None:
        kind = rng.choice(("sync", "sync", "write", "replace", "rename", "remove"))
        self._disk.error = rng.choice((errno.EIO, errno.ENOSPC))
        self._disk.fail_at = lambda step: step == kind

    def heal(self) -> None:
        self._disk.fail_at = lambda step: False

    def crash(self, rng: random.Random) -> None:
        """The power fails, perhaps while batches are being written: all of them survive, or none.

        What recovery finds must be what was durable, or that and a prefix of what was under way.
        """
        self.heal()
        begun = int(self._half_written)  # it may all be there, whatever the error said
        written = self._unsynced[: rng.randint(begun, len(self._unsynced))]
        self._unsynced.clear()
        starts = [self.durable.copy()]
        if self._saving is not None:
            # It may have got its name before whatever failed then.
            starts.append(self.durable.copy())
            starts[1].compact(self._saving)
            self._saving = None
        possible = [image for start in starts for image in _steps(start, written)]
        self._lose_power(written, rng)
        self._wal, found = recover(self._disk, self._owner)
        image = _image(found)
        if image not in possible:
            raise AssertionError(
                f"recovery found what was never written: {_show(image)}; "
                f"possible were {' or '.join(_show(one) for one in possible)}"
            )
        self.durable = image

    def rot(self, rng: random.Random) -> None:
        """A byte of some file changes while nobody looks; `recover` will tell."""
        names = [name for name in self._disk.names() if not name.endswith(".segment")]
        content = self._disk.files[rng.choice(names)].durable
        used = len(content.rstrip(b"\0"))
        content[rng.randrange(used)] ^= 1 << rng.randrange(8)
        self._rotten = True

    def recover(self, config: Config) -> Recovered:
        if self._rotten:
            self._look_at_rot()
        return self.durable.recovered(config)

    def _look_at_rot(self) -> None:
        """Rot is noticed, or harmless, or (in the very last record) looks like a torn write.

        The last means that promises are forgotten. The member cannot know; its peers can
        (`Raft.confirmed`), and what they would do is done here: it is not let in again.
        """
        try:
            self._wal, found = recover(self._disk, self._owner)
        except (WalCorrupt, StorageError) as error:
            raise Refused(str(error)) from error
        image = _image(found)
        if (image.hard_state, image.last_index) != (
            self.durable.hard_state,
            self.durable.last_index,
        ):
            raise Refused("rot in the last record: it forgot what it had promised")
        assert all(image.term_at(e.index) in (e.term, None) for e in self.durable.entries), (
            "rot changed the log and went unnoticed"
        )
        self.durable = image
        self._rotten = False

    def _lose_power(self, written: Sequence[Ready], rng: random.Random) -> None:
        """Write batches as the writer does, some at a time, until some step of it fails."""
        left = rng.randrange(STEPS_MAX)

        def fail_at(step: str) -> bool:
            nonlocal left
            left -= 1
            return left < 0

        self._disk.fail_at, self._disk.error = fail_at, errno.EIO
        try:
            for group in _groups(written, alone=int(self._half_written)):
                self._wal.append([_batch(ready) for ready in group])
        except (WalFailed, DiskFull):
            pass
        self.heal()
        self._half_written = False
        if rng.random() < 0.5:
            self._disk.crash([], keep_bytes=rng.randrange(400))
        else:
            self._disk.crash([rng.random() < 0.7 for _ in range(4)])


def _groups(written: Sequence[Ready], alone: int) -> Iterator[list[Ready]]:
    """Batches that may be one record: a snapshot begins a new one. The first so many go `alone`,
    because what a full disk refused must be asked again unchanged."""
    number = 0
    numbers = []
    for place, ready in enumerate(written):
        number += ready.snapshot is not None or place <= alone
        numbers.append(number)
    for _, group in groupby(zip(numbers, written, strict=True), key=lambda pair: pair[0]):
        yield [ready for _, ready in group]


def _steps(before: Image, written: Sequence[Ready]) -> Iterator[Image]:
    """What a disk may hold while batches are being written, one after the other."""
    yield before
    for ready in written:
        if ready.snapshot is not None:
            part = before.copy()
            part.write(Ready(snapshot=ready.snapshot))
            yield part
        before = before.copy()
        before.write(ready)
        yield before


def _image(found: Recovery) -> Image:
    return Image(found.hard_state, list(found.entries), found.snapshot)


def _show(image: Image) -> str:
    return f"{image.hard_state}, entries {image.base + 1} to {image.last_index}"


def _batch(ready: Ready) -> WalBatch:
    return WalBatch(
        snapshot=ready.snapshot,
        truncate_from=ready.truncate_from,
        entries=ready.entries,
        hard_state=ready.hard_state,
    )
