"""The network between simulated nodes: delays, drops, duplicates, reordering, cuts.

Lives here: what happens to one message. Must not live here: when faults begin and end (see
`raft_faults`). Start reading at `Network.send`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from pgraft.core.types import NodeId

MS = 1_000_000


class Network:
    """Decides the fate of each message; deterministic by its generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.drop = 0.0
        self.duplicate = 0.0
        self.slow = 0.0
        self.cuts: set[tuple[NodeId, NodeId]] = set()

    def heal(self) -> None:
        """From now on everything arrives, once, soon."""
        self.drop = self.duplicate = self.slow = 0.0
        self.cuts.clear()

    def arrivals(self, sender: NodeId, to: NodeId) -> Iterator[int]:
        """Delays in ns after which copies of a message arrive: none, one or two."""
        if (sender, to) in self.cuts or self._rng.random() < self.drop:
            return
        yield self._delay()
        if self._rng.random() < self.duplicate:
            yield self._delay() * 4

    def _delay(self) -> int:
        if self._rng.random() < self.slow:
            return self._rng.randrange(20 * MS, 400 * MS)
        return self._rng.randrange(200_000, 3 * MS)
