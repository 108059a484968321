"""Random faults for a simulated group: crashes, pauses, partitions, bad networks, disks and clocks.

Lives here: when faults begin and end. Must not live here: what they do to a message or a process
(see `raft_network`, `raft_process`), lost members (see `raft_churn`). Start reading at
`Faults.begin`. All times are multiples of the election timeout E.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.raft_calm import may_lose
from tests.support.raft_host import Host
from tests.support.raft_hunt import Hunt, change_ttl
from tests.support.raft_process import Process
from tests.support.raft_world import MS, World


class Faults:
    """A fault now and then, until `end`.

    Each seed draws its own subset of faults and its own pace: all of them at once hide what a few
    of them, over and over, would bring up.
    """

    def __init__(self, world: World, change: Callable[[Process], None]) -> None:
        """`change`: makes a leader begin some change of membership."""
        self._world = world
        self._rng = random.Random(f"faults {world.plan.seed}")
        self._over = False
        self._pace_ns = int(self._rng.choice((0.3, 1, 1, 2)) * world.plan.e_ns)
        self._hunt = Hunt(world, self._rng, change)
        self._menu = self._draw_menu()

    def begin(self) -> None:
        """Start the storm, after a moment of calm so that something is there to break."""
        self._world.later(3 * self._world.plan.e_ns, self._next)

    def end(self) -> None:
        """Nothing goes wrong from now on; what is broken is repaired by others."""
        self._over = self._hunt.over = True
        self._world.network.heal()
        for host in self._hosts():
            host.store.heal()
            if host.suspect:
                host.run_clock_at(0)
                host.suspect_clock(False)
            if host.process is not None:
                host.process.paused_until = 0
                host.process.sync_ns = 2 * MS
                host.process.raft.granter.unseal()

    def _next(self) -> None:
        if self._over:
            return
        self._world.later(self._rng.randrange(MS, 2 * self._pace_ns), self._next)
        self._rng.choice(self._menu)()

    def _draw_menu(self) -> list[Callable[[], None]]:
        kinds: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "partition": self._partition,
            "bridge": self._bridge,
            "one_way": self._one_way,
            "isolate_holder": self._isolate_holder,
            "isolate_leader": self._isolate_leader,
            "bad_network": self._bad_network,
            "pause": self._pause,
            "slow_disk": self._slow_disk,
            "bad_disk": self._bad_disk,
            "rot": self._rot,
            "clock": self._clock,
            "suspect_clock": self._suspect_clock,
            "ttl": self._ttl,
            "step_down": self._step_down,
            "transfer": self._transfer,
            "release": self._release,
            "seal": self._seal,
            "link": self._link,
            "all_at_once": self._all_at_once,
            "hunt": self._hunt.strike,
        }
        wanted = self._world.plan.menu
        chosen = [
            kind
            for name, kind in kinds.items()
            if (self._rng.random() < 0.45 if wanted is None else name in wanted)
        ]
        heal = [self._heal] * self._rng.choice((1, 2))
        return chosen * self._rng.choice((1, 2, 3)) + heal

    def _hosts(self) -> list[Host]:
        return [host for host in self._world.hosts.values() if not host.gone]

    def _leaders(self) -> list[Host]:
        return [h for h in self._hosts() if h.process is not None and h.process.leads]

    def _victim(self) -> Host:
        leaders = self._leaders()
        if leaders and self._rng.random() < 0.5:
            return self._rng.choice(leaders)
        return self._rng.choice(self._hosts())

    def _some(self, *multiples: float) -> int:
        """A time around one of these multiples of E."""
        return int(
            self._rng.choice(multiples) * self._rng.uniform(0.5, 1.5) * self._world.plan.e_ns
        )

    def _crash(self) -> None:
        host = self._victim()
        if host.process is not None:
            host.crash()
            self._world.later(self._some(0.01, 0.2, 1.5, 4), lambda: self._restart(host))

    def _restart(self, host: Host) -> None:
        if host.process is None and not host.gone and not self._over:
            host.start()

    def _all_at_once(self) -> None:
        """The power fails for everybody."""
        for host in self._hosts():
            if host.process is not None:
                host.crash()
                self._world.later(self._some(0.3, 1), lambda host=host: self._restart(host))  # type: ignore[misc]

    def _partition(self) -> None:
        nodes = [host.node for host in self._hosts()]
        self._rng.shuffle(nodes)
        at = self._rng.randrange(1, len(nodes)) if len(nodes) > 1 else 0
        self._world.network.cut(nodes[:at], nodes[at:])
        self._world.counts["partitions"] += 1

    def _bridge(self) -> None:
        """Two sides that do not hear each other, and one node which hears both."""
        nodes = [host.node for host in self._hosts()]
        self._rng.shuffle(nodes)
        half = len(nodes) // 2
        self._world.network.cut(nodes[:half], nodes[half + 1 :])
        self._world.counts["partitions"] += 1

    def _isolate(self, host: Host, how_long_ns: int) -> None:
        self._world.network.cut([host.node], [other.node for other in self._hosts()])
        self._world.later(how_long_ns, self._heal)
        self._world.counts["partitions"] += 1

    def _isolate_holder(self) -> None:
        """Whoever holds a lease is cut off until it has run out, and the epoch moves."""
        ttl_ns = self._world.plan.timing.lease_ttl_ns
        for host in [host for host in self._hosts() if host.holds()]:
            self._isolate(host, int(ttl_ns * self._rng.uniform(0.4, 1.6)))

    def _isolate_leader(self) -> None:
        for host in self._leaders():
            self._isolate(host, self._some(0.5, 2, 4))

    def _one_way(self) -> None:
        nodes = [host.node for host in self._hosts()]
        if len(nodes) > 1:
            a, b = self._rng.sample(nodes, 2)
            self._world.network.cuts.add((a, b))

    def _heal(self) -> None:
        if not self._over:
            self._world.network.heal()

    def _bad_network(self) -> None:
        network = self._world.network
        network.drop = self._rng.choice((0.0, 0.05, 0.3))
        network.duplicate = self._rng.choice((0.0, 0.1, 0.5))
        network.slow = self._rng.choice((0.0, 0.05, 0.4))

    def _pause(self) -> None:
        process = self._victim().process
        if process is not None:
            process.paused_until = self._world.now + self._rng.randrange(3 * self._world.plan.e_ns)
            self._world.counts["pauses"] += 1

    def _slow_disk(self) -> None:
        process = self._victim().process
        if process is not None:
            process.sync_ns = self._rng.choice((2, 20, 150)) * MS

    def _bad_disk(self) -> None:
        """A sync or a new file fails; the daemon ends itself and comes back a little later."""
        host = self._victim()
        if host.process is not None:
            host.store.fail_next(self._rng)
            self._world.later(self._some(2, 4), lambda: self._restart(host))

    def _rot(self) -> None:
        """A disk changes while its daemon is down, if the group can do without it."""
        host = self._victim()
        if self._world.plan.churn and may_lose(self._world, host):
            if host.process is not None:
                host.crash()
            host.store.rot(self._rng)
            host.doubtful = True
            self._world.counts["rot"] += 1
            self._world.later(self._some(0.3, 2), lambda: self._restart(host))

    def _clock(self) -> None:
        host = self._rng.choice(self._hosts())
        if host.suspect:
            return
        limit = int(self._world.plan.timing.drift * 1_000_000)
        host.run_clock_at(self._rng.choice((-limit, limit, self._rng.randint(-limit, limit))))

    def _suspect_clock(self) -> None:
        """A clock is slewed far beyond the bound; its daemon knows at once, and for long after."""
        host = self._victim()
        if host.suspect or host.process is None or host.process.paused_until > self._world.now:
            return
        sound = host.clock.ppm
        host.suspect_clock(True)
        host.run_clock_at(self._rng.choice((-1, 1)) * self._rng.choice((30_000, 83_000)))
        until = self._some(1, 6)
        self._world.later(until, lambda: None if self._over else host.run_clock_at(sound))
        # What was measured while it ran off is believed for as long as any lease may last.
        until += 3 * self._world.plan.timing.lease_ttl_ns
        self._world.later(until, lambda: None if self._over else host.suspect_clock(False))
        self._world.counts["suspect clocks"] += 1

    def _ttl(self) -> None:
        for leader in self._leaders():
            if leader.process is not None:
                change_ttl(leader.process, self._rng.choice((0.5, 1.0, 2.0)))

    def _step_down(self) -> None:
        for leader in self._leaders():
            self._awake(leader, lambda p: p.attempt(lambda raft, now: raft.step_down("asked", now)))

    def _transfer(self) -> None:
        to = self._rng.choice(self._hosts()).node
        for leader in self._leaders():
            self._awake(leader, lambda p: p.attempt(lambda raft, now: raft.transfer(to, now)))

    def _release(self) -> None:
        for host in self._hosts():
            if host.holds():
                self._awake(host, lambda process: process.release())

    def _seal(self) -> None:
        for leader in self._leaders():
            if leader.process is not None:
                granter = leader.process.raft.granter
                granter.seal(leader.process.raft.status().epoch)
                self._world.later(self._some(1.5), granter.unseal)

    def _link(self) -> None:
        peer = self._rng.choice(self._hosts()).node
        up = self._rng.random() < 0.5
        host = self._victim()
        if host.node != peer:
            self._awake(host, lambda p: p.attempt(lambda raft, now: raft.link(peer, up, now)))

    def _awake(self, host: Host, action: Callable[[Process], object]) -> None:
        if host.process is not None:
            host.process.when_awake(action)
