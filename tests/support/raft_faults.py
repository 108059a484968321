"""Random faults for a simulated group: crashes, pauses, partitions, bad networks, slow disks.

Lives here: when faults begin and end. Must not live here: what they do to a message or a process
(see `raft_network`, `raft_host`). Start reading at `Faults.begin`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from pgraft.core.types import NodeId
from tests.support.raft_host import MS, Host, Process
from tests.support.raft_network import Network


class Target(Protocol):
    """What faults are done to."""

    rng: random.Random
    counts: dict[str, int]
    hosts: dict[NodeId, Host]
    network: Network
    now: int

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Run an action after a delay in true time."""
        ...

    def leaders(self) -> list[Host]:
        """Hosts whose core believes that it leads."""
        ...


class Faults:
    """A fault now and then, until `end`.

    Each seed draws its own subset of faults and its own pace: all of them at once hide what a few
    of them, over and over, would bring up.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._rng = target.rng
        self._over = False
        self._pace_ns = self._rng.choice((60, 200, 200, 400)) * MS
        self._menu = self._draw_menu()

    def begin(self) -> None:
        """Start the storm, after a moment of calm so that something is there to break."""
        self._target.later(600 * MS, self._next)

    def end(self) -> NodeId | None:
        """Nothing goes wrong from now on, and everything that did is repaired.

        Often but one node stays cut off for good, and the others must do without: its number.
        """
        self._over = True
        network = self._target.network
        network.heal()
        left_out = None
        if self._rng.random() < 0.4:
            left_out = self._rng.choice(list(self._target.hosts))
            network.cuts = {(left_out, other) for other in self._target.hosts}
            network.cuts |= {(b, a) for a, b in network.cuts}
        for host in self._target.hosts.values():
            if host.process is None:
                host.start()
                continue
            host.process.paused_until = 0
            host.process.sync_ns = 2 * MS
            host.process.raft.granter.unseal()
        return left_out

    def _next(self) -> None:
        if self._over:
            return
        self._target.later(self._rng.randrange(MS, 2 * self._pace_ns), self._next)
        self._rng.choice(self._menu)()

    def _draw_menu(self) -> list[Callable[[], None]]:
        kinds: list[Callable[[], None]] = [
            self._crash,
            self._partition,
            self._one_way,
            self._isolate_holder,
            self._bad_network,
            self._pause,
            self._slow_disk,
            self._transfer,
            self._release,
            self._seal,
            self._link,
        ]
        chosen = [kind for kind in kinds if self._rng.random() < 0.5]
        heal = [self._heal] * self._rng.choice((1, 2))
        return chosen * self._rng.choice((1, 2, 3)) + heal

    def _victim(self) -> Host:
        leaders = self._target.leaders()
        if leaders and self._rng.random() < 0.5:
            return self._rng.choice(leaders)
        return self._rng.choice(list(self._target.hosts.values()))

    def _process(self) -> Process | None:
        return self._victim().process

    def _crash(self) -> None:
        host = self._victim()
        if host.process is None:
            return
        host.crash()
        self._target.later(self._rng.choice((1, 30, 300, 900)) * MS, lambda: self._restart(host))

    def _restart(self, host: Host) -> None:
        if host.process is None:
            host.start()

    def _partition(self) -> None:
        nodes = list(self._target.hosts)
        self._rng.shuffle(nodes)
        at = self._rng.randrange(1, len(nodes))
        left, right = nodes[:at], nodes[at:]
        self._target.network.cuts = {(a, b) for a in left for b in right}
        self._target.network.cuts |= {(b, a) for a, b in self._target.network.cuts}
        self._target.counts["partitions"] += 1

    def _isolate_holder(self) -> None:
        """Whoever holds a lease is cut off until it has run out, and the epoch moves."""
        for host in self._holders():
            cuts = {(host.node, other) for other in self._target.hosts if other != host.node}
            self._target.network.cuts |= cuts | {(b, a) for a, b in cuts}
        self._target.later(self._rng.randrange(300, 900) * MS, self._heal)

    def _holders(self) -> list[Host]:
        return [
            host
            for host in self._target.hosts.values()
            if host.process is not None and host.process.raft.holder.deadline_ns
        ]

    def _one_way(self) -> None:
        nodes = list(self._target.hosts)
        a, b = self._rng.sample(nodes, 2)
        self._target.network.cuts.add((a, b))

    def _heal(self) -> None:
        if self._over:
            return
        self._target.network.heal()

    def _bad_network(self) -> None:
        network = self._target.network
        network.drop = self._rng.choice((0.0, 0.05, 0.3))
        network.duplicate = self._rng.choice((0.0, 0.1, 0.5))
        network.slow = self._rng.choice((0.0, 0.05, 0.4))

    def _pause(self) -> None:
        process = self._process()
        if process is not None:
            process.paused_until = self._target.now + self._rng.randrange(1, 900) * MS
            self._target.counts["pauses"] += 1

    def _slow_disk(self) -> None:
        process = self._process()
        if process is not None:
            process.sync_ns = self._rng.choice((2, 20, 150)) * MS

    def _transfer(self) -> None:
        to = self._rng.choice(list(self._target.hosts))
        for leader in self._target.leaders():
            if leader.process is not None:
                leader.process.when_awake(
                    lambda p: p.input(lambda raft, now: raft.transfer(to, now))
                )

    def _release(self) -> None:
        for host in self._holders():
            if host.process is not None:
                host.process.when_awake(lambda process: process.release())

    def _seal(self) -> None:
        for leader in self._target.leaders():
            if leader.process is not None:
                granter = leader.process.raft.granter
                granter.seal(leader.process.raft.status().epoch)
                self._target.later(300 * MS, granter.unseal)

    def _link(self) -> None:
        peer = self._rng.choice(list(self._target.hosts))
        up = self._rng.random() < 0.5
        process = self._process()
        if process is not None and process.host.node != peer:
            process.when_awake(lambda p: p.input(lambda raft, now: raft.link(peer, up, now)))
