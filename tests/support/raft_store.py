"""A simulated member's disk, seen from the core: batches that become durable in order, or get lost.

Lives here: the `Store` seam and its simple in-memory form. Must not live here: message faults,
time (the simulated host decides when a sync ends). Start reading at `Store`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

from pgraft.core.types import (
    Config,
    Entry,
    HardState,
    Index,
    NodeId,
    Ready,
    Recovered,
    Snapshot,
    Term,
)


@dataclass(slots=True)
class Image:
    """What a disk holds: a snapshot or none, the log that follows it, the hard state."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None

    @property
    def base(self) -> Index:
        """Up to here the snapshot stands for the entries."""
        return self.snapshot.index if self.snapshot is not None else Index(0)

    @property
    def last_index(self) -> Index:
        """Index of the newest entry."""
        return Index(self.base + len(self.entries))

    def write(self, ready: Ready) -> None:
        """Take one batch: snapshot, cut, append, hard state."""
        base = self.base
        if ready.snapshot is not None:
            assert ready.snapshot.index > base, "a snapshot goes back"
            self.snapshot = ready.snapshot
            self.entries.clear()
            base = self.base
        if ready.truncate_from is not None and ready.snapshot is None:
            assert base < ready.truncate_from <= base + len(self.entries) + 1
            del self.entries[ready.truncate_from - base - 1 :]
        for entry in ready.entries:
            assert entry.index == base + len(self.entries) + 1, "a batch left a gap in the log"
            self.entries.append(entry)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        assert self.hard_state.commit <= self.last_index

    def compact(self, snapshot: Snapshot) -> None:
        """A snapshot of what was applied here takes the place of the entries up to it."""
        assert snapshot.index <= self.last_index, "a snapshot of what is not durable"
        if snapshot.index > self.base:
            del self.entries[: snapshot.index - self.base]
            self.snapshot = snapshot

    def term_at(self, index: Index) -> Term | None:
        """Term of a durable entry, None if there is none; of the snapshot's, what it says."""
        place = index - self.base
        if place == 0 and self.snapshot is not None:
            return self.snapshot.term
        return self.entries[place - 1].term if 0 < place <= len(self.entries) else None

    def copy(self) -> Image:
        """The same, to be changed."""
        return Image(self.hard_state, list(self.entries), self.snapshot)

    def recovered(self, config: Config) -> Recovered:
        """What a process that starts on this disk is given."""
        return Recovered(
            hard_state=self.hard_state,
            entries=tuple(self.entries),
            config=config,
            snapshot=self.snapshot,
        )


class Store(Protocol):
    """What the simulated host asks of a disk; another one may run the real log's code."""

    durable: Image

    def write(self, ready: Ready) -> None:
        """Take a batch; it is not durable yet."""
        ...

    def sync(self) -> None:
        """The oldest batch that is not durable becomes so."""
        ...

    def crash(self, rng: random.Random) -> None:
        """Lose what was not synced; of that, a prefix may have reached the disk all the same."""
        ...

    def recover(self, config: Config) -> Recovered:
        """What a new process finds."""
        ...


class MemoryStore:
    """Batches in a list; a crash keeps a random prefix of those that were not synced."""

    def __init__(self, node: NodeId) -> None:
        self.durable = Image()
        self._unsynced: list[Ready] = []

    def write(self, ready: Ready) -> None:
        self._unsynced.append(ready)

    def sync(self) -> None:
        self.durable.write(self._unsynced.pop(0))

    def crash(self, rng: random.Random) -> None:
        for ready in self._unsynced[: rng.randint(0, len(self._unsynced))]:
            self.durable.write(ready)
        self._unsynced.clear()

    def recover(self, config: Config) -> Recovered:
        return Recovered(
            hard_state=self.durable.hard_state,
            entries=tuple(self.durable.entries),
            config=config,
        )
