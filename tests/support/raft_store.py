"""A simulated member's disk, seen from the core: batches that become durable in order, or get lost.

Lives here: the `Store` seam and its simple in-memory form. Must not live here: message faults,
time (the simulated host decides when a sync ends). Start reading at `Store`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

from pgraft.core.types import Config, Entry, HardState, NodeId, Ready, Recovered, Term


@dataclass(slots=True)
class Image:
    """What a disk holds: the log and the hard state."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)

    def write(self, ready: Ready) -> None:
        """Take one batch: cut, append, hard state."""
        if ready.truncate_from is not None:
            assert 1 <= ready.truncate_from <= len(self.entries) + 1
            del self.entries[ready.truncate_from - 1 :]
        for entry in ready.entries:
            assert entry.index == len(self.entries) + 1, "a batch left a gap in the log"
            self.entries.append(entry)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        assert self.hard_state.commit <= len(self.entries)

    def term_at(self, index: int) -> Term | None:
        """Term of a durable entry, None if there is none."""
        return self.entries[index - 1].term if 0 < index <= len(self.entries) else None


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
