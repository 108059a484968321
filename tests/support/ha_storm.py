"""Whom a fault strikes, and for how long: what every fault of `ha_faults` is made with.

Start reading at `Striker.any_host`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.ha_host import Host
from tests.support.ha_time import Actor
from tests.support.ha_world import World

PAUSE_S = (0.05, 0.3, 1.0, 3.0)
LONG_S = (0.3, 1.0, 2.5, 4.0, 7.0, 15.0)


class Striker:
    """One run's faults, as far as they have to be undone in the calm."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.frozen: list[Actor] = []
        self.foreign: list[Callable[[], None]] = []
        """Puts directories back."""

    def any_host(self) -> Host:
        """A host: often the one that matters."""
        special = self.rng.random()
        if special < 0.4 and (primary := self.world.primary()) is not None:
            return primary
        if special < 0.6 and (coordinator := self.world.coordinator()) is not None:
            return coordinator
        return self.world.hosts[self.rng.choice(sorted(self.world.hosts))]

    def whole(self) -> int:
        """Members that could become primary with all of their data."""
        members = {member.node_id for member in self.world.state().members}
        return len(members - self.world.remade - set(self.world.plan.nofailover))

    def after(self, seconds: tuple[float, ...], action: Callable[[], object]) -> None:
        delay_s = self.rng.choice(seconds) * self.rng.uniform(0.5, 1.5)
        asyncio.get_running_loop().call_later(delay_s, action)

    def back_after(self, seconds: tuple[float, ...], host: Host) -> None:
        """Power it on again."""
        self.after(seconds, lambda: self.world.boot(host.node_id))

    def freeze(self, actors: list[Actor]) -> None:
        for actor in actors:
            actor.freeze()
        self.frozen += actors

        def thaw() -> None:
            for actor in actors:
                if actor.frozen and actor in self.frozen:
                    actor.thaw()

        self.after(LONG_S, thaw)
