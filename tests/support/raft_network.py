"""The network between simulated nodes: delays, drops, duplicates, reordering, cuts.

Lives here: what happens to one message. Must not live here: when faults begin and end (see
`raft_faults`). Start reading at `Network.arrivals`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from pgraft.core.types import NodeId

MS = 1_000_000


class Network:
    """Decides the fate of each message; deterministic by its generator.

    `slow_ns`: how late a message that is held up may be.
    """

    def __init__(self, rng: random.Random, slow_ns: int) -> None:
        self._rng = rng
        self._slow_ns = slow_ns
        self.drop = 0.0
        self.duplicate = 0.0
        self.slow = 0.0
        self.cuts: set[tuple[NodeId, NodeId]] = set()

    def heal(self) -> None:
        """From now on everything arrives, once, soon."""
        self.drop = self.duplicate = self.slow = 0.0
        self.cuts.clear()

    def cut(self, left: Iterable[NodeId], right: Sequence[NodeId]) -> None:
        """Nothing passes between these any more, in either direction."""
        for a in left:
            for b in right:
                if a != b:
                    self.cuts |= {(a, b), (b, a)}

    def arrivals(self, sender: NodeId, to: NodeId) -> tuple[int, ...]:
        """Delays in ns after which copies of a message arrive: none, one or two."""
        if (sender, to) in self.cuts:
            return ()
        draw = self._rng.random
        if self.drop and draw() < self.drop:
            return ()
        if self.duplicate and draw() < self.duplicate:
            return (self._delay(), self._delay() * 4)
        return (self._delay(),)

    def _delay(self) -> int:
        if self.slow and self._rng.random() < self.slow:
            return int(20 * MS + self._rng.random() * self._slow_ns)
        return int(200_000 + self._rng.random() * 2_800_000)
