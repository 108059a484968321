"""A simulated member's disk, seen from the core: batches that become durable in order, or get lost.

Lives here: the `Store` seam and its simple in-memory form. Must not live here: message faults,
time (the simulated host decides when a sync ends). Start reading at `Store`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Protocol

from pgraft.core.types import (
    NO_NODE,
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
from pgraft.storage.errors import WalFailed


class Refused(Exception):
    """The member must not start on this disk; the text says why."""


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
            self._at_least(ready.snapshot)
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
            self._at_least(snapshot)

    def _at_least(self, snapshot: Snapshot) -> None:
        """What a snapshot stands for is committed, in its term or a later one."""
        old = self.hard_state
        new = replace(old, commit=max(old.commit, snapshot.index))
        if old.term < snapshot.term:
            new = replace(new, term=snapshot.term, vote=NO_NODE)
        self.hard_state = new

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
    """What the simulated host asks of a disk. WalFailed: the disk refused, the process must end."""

    durable: Image

    def write(self, ready: Ready) -> None:
        """Take a batch; it is not durable yet."""
        ...

    def sync(self) -> None:
        """The oldest batch that is not durable becomes so."""
        ...

    def compact(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of what was applied, durably, and forget what it stands for."""
        ...

    def crash(self, rng: random.Random) -> None:
        """Lose what was not synced; of that, a prefix may have reached the disk all the same."""
        ...

    def fail_next(self, rng: random.Random) -> None:
        """The disk refuses soon: a sync, or a new file."""
        ...

    def heal(self) -> None:
        """The disk refuses nothing any more."""
        ...

    def rot(self, rng: random.Random) -> None:
        """Something on it changes by itself."""
        ...

    def recover(self, config: Config) -> Recovered:
        """What a new process finds. Raises Refused."""
        ...


class MemoryStore:
    """Batches in a list; a crash keeps a random prefix of those that were not synced."""

    def __init__(self, node: NodeId) -> None:
        self.durable = Image()
        self._unsynced: list[Ready] = []
        self._failing = False

    def write(self, ready: Ready) -> None:
        self._unsynced.append(ready)

    def sync(self) -> None:
        if self._failing:
            self._failing = False
            raise WalFailed("injected")
        self.durable.write(self._unsynced.pop(0))

    def compact(self, snapshot: Snapshot) -> None:
        self.durable.compact(snapshot)

    def crash(self, rng: random.Random) -> None:
        for ready in self._unsynced[: rng.randint(0, len(self._unsynced))]:
            self.durable.write(ready)
        self._unsynced.clear()

    def fail_next(self, rng: random.Random) -> None:
        self._failing = True

    def heal(self) -> None:
        self._failing = False

    def rot(self, rng: random.Random) -> None:
        """Nothing here can rot: there are no bytes."""

    def recover(self, config: Config) -> Recovered:
        return self.durable.recovered(config)
