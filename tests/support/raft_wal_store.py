"""A simulated member's disk with the real log's code on it, and power losses that tear writes.

Lives here: `WalStore`, the second implementation of `raft_store.Store`. Must not live here: the
disk itself (see `pgraft_disk`).
"""

from __future__ import annotations

import random

from pgraft.core.types import Config, NodeId, Ready, Recovered
from pgraft.storage.replay import recover
from pgraft.storage.segment import Owner
from pgraft.storage.wal import WalBatch, WalFailed, create
from tests.support.pgraft_disk import MemoryDisk
from tests.support.raft_store import Image


class WalStore:
    """`durable` is what recovery would find; the log's promise is checked at each crash."""

    def __init__(self, node: NodeId) -> None:
        self._owner = Owner(cluster_id="0" * 32, node=node, uuid=f"{node:032x}")
        self._disk = MemoryDisk()
        create(self._disk, self._owner)
        self._wal, _ = recover(self._disk, self._owner)
        self._unsynced: list[Ready] = []
        self.durable = Image()

    def write(self, ready: Ready) -> None:
        self._unsynced.append(ready)

    def sync(self) -> None:
        ready = self._unsynced.pop(0)
        self._wal.append((_batch(ready),))
        self.durable.write(ready)

    def crash(self, rng: random.Random) -> None:
        """The power fails during a write of some batches: all of them survive, or none."""
        written = self._unsynced[: rng.randint(0, len(self._unsynced))]
        self._unsynced.clear()
        if written:
            self._tear(written, rng)
        self._wal, found = recover(self._disk, self._owner)
        image = Image(found.hard_state, list(found.entries))
        whole = Image(self.durable.hard_state, list(self.durable.entries))
        for ready in written:
            whole.write(ready)
        assert image in (self.durable, whole), "recovery found what was never written"
        self.durable = image

    def recover(self, config: Config) -> Recovered:
        return Recovered(
            hard_state=self.durable.hard_state,
            entries=tuple(self.durable.entries),
            config=config,
        )

    def _tear(self, written: list[Ready], rng: random.Random) -> None:
        self._disk.fail_at = lambda kind: kind == "sync"
        try:
            self._wal.append([_batch(ready) for ready in written])
        except WalFailed:
            pass
        else:
            raise AssertionError("a failed sync went unnoticed")
        finally:
            self._disk.fail_at = lambda kind: False
        if rng.random() < 0.5:
            self._disk.crash([], keep_bytes=rng.randrange(400))
        else:
            self._disk.crash([rng.random() < 0.7 for _ in range(4)])


def _batch(ready: Ready) -> WalBatch:
    return WalBatch(
        truncate_from=ready.truncate_from,
        entries=ready.entries,
        hard_state=ready.hard_state,
    )
