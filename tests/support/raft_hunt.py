"""Directed attacks on the primary lease: everything that shortens the wait of a new coordinator.

Lives here: single storms around one holder. Must not live here: faults that come by themselves (see
`raft_faults`). Start reading at `Hunt.strike`.

A lease can only overlap with the next one if the holder believes longer than the coordinator waits.
So the holder's clock runs slow and all others fast, the holder is cut off just after a renewal, and
leadership changes hands as fast as it can: by transfer, by resignation, by crash and by silence,
with a change of membership or of the ttl under way and voters that restart in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pgraft.core.types import ProposalRefused
from tests.support.raft_host import Host
from tests.support.raft_process import Process
from tests.support.raft_world import World

SLEWED_PPM = 83_000
"""How much a common time daemon lets a clock run off at most."""


class Hunt:
    """`change`: makes a leader begin some change of membership."""

    def __init__(self, world: World, rng: random.Random, change: Callable[[Process], None]) -> None:
        self._world = world
        self._rng = rng
        self._change = change
        self.over = False

    def strike(self) -> None:
        """One attack, spread over a few election timeouts."""
        holders = [host for host in self._hosts() if host.holds()]
        if not holders:
            return
        world, rng = self._world, self._rng
        world.counts["hunts"] += 1
        holder = rng.choice(holders)
        if rng.random() < 0.8:
            self._set_clocks(holder)
        if rng.random() < 0.2 and not holder.suspect:
            self._slew(holder)
        if rng.random() < 0.3:
            # What is under way when the cut comes arrives all the same, and late.
            world.network.slow = 0.7
            self._at(1, self._speed_up)
        self._at(rng.choice((0, 0.02, 0.5, 1)), lambda: self._cut_off(holder))
        blows = [self._topple, self._topple, self._topple]
        blows += [self._restart_voter, self._begin_change, self._change_ttl, self._hurry]
        spread = rng.choice((0.05, 0.5, 3))
        for blow in rng.sample(blows, rng.randrange(len(blows))):
            self._at(rng.uniform(0, spread), blow)
        if rng.random() < 0.3:
            self._at(rng.uniform(1, 4), lambda: self._release(holder))

    def _at(self, multiple: float, action: Callable[[], object]) -> None:
        def act() -> None:
            if not self.over:
                action()

        self._world.later(int(multiple * self._world.plan.e_ns), act)

    def _hosts(self) -> list[Host]:
        return [host for host in self._world.hosts.values() if not host.gone]

    def _set_clocks(self, holder: Host) -> None:
        limit = int(self._world.plan.timing.drift * 1_000_000)
        for host in self._hosts():
            if not host.suspect:
                host.run_clock_at(-limit if host is holder else limit)

    def _slew(self, holder: Host) -> None:
        """The holder's clock runs far too slow from now on, and its daemon knows it."""
        holder.suspect_clock(True)
        holder.run_clock_at(-SLEWED_PPM)
        timing = self._world.plan.timing
        ttls = 4 * timing.lease_ttl_ns / timing.election_ns
        self._at(ttls, lambda: holder.run_clock_at(0))
        self._at(2 * ttls, lambda: holder.suspect_clock(False))

    def _cut_off(self, holder: Host) -> None:
        """Either wholly, or so that only its words still arrive."""
        others = [host.node for host in self._hosts()]
        cuts = {(other, holder.node) for other in others}
        if self._rng.random() < 0.7:
            cuts |= {(b, a) for a, b in cuts}
        self._world.network.cuts |= cuts
        timing = self._world.plan.timing
        ttl = timing.lease_ttl_ns / timing.election_ns
        self._at(ttl * self._rng.uniform(0.5, 1.6), self._world.network.cuts.clear)

    def _speed_up(self) -> None:
        self._world.network.slow = 0.0

    def _leaders(self) -> list[Process]:
        return [h.process for h in self._hosts() if h.process is not None and h.process.leads]

    def _topple(self) -> None:
        """A leader leads no longer, one way or another."""
        for process in self._leaders():
            how = self._rng.choice((self._transfer, self._resign, self._silence, self._kill))
            how(process)

    def _transfer(self, process: Process) -> None:
        to = self._rng.choice(sorted(process.config.voters))
        process.when_awake(lambda p: p.attempt(lambda raft, now: raft.transfer(to, now)))

    def _resign(self, process: Process) -> None:
        process.when_awake(lambda p: p.attempt(lambda raft, now: raft.step_down("asked", now)))

    def _kill(self, process: Process) -> None:
        host = process.host
        host.crash()
        self._at(self._rng.uniform(0.01, 2), lambda: host.process or host.gone or host.start())
        self._hurry()

    def _silence(self, process: Process) -> None:
        self._world.network.cut([process.host.node], [host.node for host in self._hosts()])
        self._hurry(process.host)

    def _hurry(self, silent: Host | None = None) -> None:
        """Everybody notices at once that a leader is gone, and campaigns within moments."""
        for host in self._hosts():
            for other in self._hosts():
                if other is not host and (silent is None or other is silent):
                    host.link(other.node, False)

    def _restart_voter(self) -> None:
        host = self._rng.choice(self._hosts())
        if host.process is not None:
            self._kill(host.process)

    def _begin_change(self) -> None:
        for process in self._leaders():
            if self._world.plan.churn:
                process.when_awake(self._change)

    def _change_ttl(self) -> None:
        factor = self._rng.choice((0.5, 0.8, 1.5, 2.0))
        for process in self._leaders():
            change_ttl(process, factor)

    def _release(self, holder: Host) -> None:
        if holder.process is not None:
            holder.process.when_awake(lambda process: process.release())


def change_ttl(process: Process, factor: float) -> None:
    """Ask a leader for another ttl of the running epoch."""
    ttl_ns = int(process.host.world.plan.timing.lease_ttl_ns * factor)

    def ask(process: Process) -> None:
        epoch = process.grant.epoch if process.grant is not None else 0
        try:
            process.raft.change_ttl(epoch, ttl_ns, process.now)
            process.host.world.counts["ttl changes"] += 1
        except ProposalRefused as refused:
            process.host.world.counts[f"refused {refused.reason}"] += 1
        process.pump()

    process.when_awake(ask)
