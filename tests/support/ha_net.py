"""The network between simulated hosts: delays, order per pair, cuts in one or both directions.

Both consensus and WAL streams use it. Start reading at `HaNetwork.send`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from tests.support.ha_time import Actor

ALL, WAL, GROUP = "all", "wal", "group"


class HaNetwork:
    """`cuts`: (from, to, what) that pass nothing; `slow`: seconds more from a host."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.cuts: set[tuple[int, int, str]] = set()
        self.slow: dict[int, float] = {}
        self._last: dict[tuple[int, int], float] = {}

    def passes(self, sender: int, to: int, kind: str = GROUP) -> bool:
        """A packet sent now would arrive."""
        cuts = self.cuts
        return (sender, to, ALL) not in cuts and (sender, to, kind) not in cuts

    def both(self, one: int, other: int, kind: str = WAL) -> bool:
        """A connection between the two works."""
        return self.passes(one, other, kind) and self.passes(other, one, kind)

    def send(
        self, sender: int, to: int, actor: Actor, deliver: Callable[[], None], kind: str = GROUP
    ) -> None:
        """`deliver` runs as `actor` if nothing is in the way when it is sent and arrives."""
        if not self.passes(sender, to, kind):
            return
        loop = asyncio.get_running_loop()
        slow = self.slow.get(sender, 0.0) + self.slow.get(to, 0.0)
        at_s = loop.time() + self._rng.uniform(0.0003, 0.003) + slow
        at_s = max(at_s, self._last.get((sender, to), 0.0) + 1e-6)
        self._last[(sender, to)] = at_s

        def arrive() -> None:
            if self.passes(sender, to, kind):
                actor.call(deliver)

        loop.call_at(at_s, arrive, context=_NOBODY)

    def cut(self, one: int, other: int, kind: str = ALL) -> None:
        """Both directions."""
        self.cuts |= {(one, other, kind), (other, one, kind)}

    def heal(self) -> None:
        self.cuts.clear()
        self.slow.clear()


_NOBODY = Actor("network").context
