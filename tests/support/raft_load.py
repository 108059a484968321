"""What is asked of a simulated group: commands, reads, and a lease that moves whenever it may.

Lives here: the pace and the mix. Must not live here: sessions (see `raft_client`), faults, changes
of membership (see `raft_churn`). Start reading at `Load.begin`.
"""

from __future__ import annotations

from pgraft.core.types import Grant, NodeId
from tests.support.raft_host import Host
from tests.support.raft_process import Process
from tests.support.raft_world import World


class Load:
    """Until the end of the run. `eligible`: who may become primary; None: any voter."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.eligible: frozenset[NodeId] | None = None
        self._bursts = world.rng.choice((0.0, 0.1, 0.4))
        self._padding = world.rng.choice((0, 0, 300))

    def begin(self) -> None:
        """Ask for something now, and again soon."""
        world = self._world
        e_ns = world.plan.e_ns
        world.later(world.rng.randrange(e_ns // 100, e_ns // 8), self.begin)
        running = [host for host in world.hosts.values() if host.process is not None]
        leaders = [host for host in running if host.process is not None and host.process.leads]
        if running:
            self._ask(world.rng.choice(leaders * 2 + running))
        for host in leaders:
            assert host.process is not None
            host.process.when_awake(self._coordinate)

    def elected(self, process: Process) -> None:
        """Somebody has just become leader: the moment at which most rules matter."""
        if self._world.rng.random() < 0.5:
            process.client.read()
            process.client.propose(0)
            process.pump()

    def _ask(self, host: Host) -> None:
        rng = self._world.rng
        if host.process is None:
            return
        if rng.random() < 0.3:
            host.process.when_awake(lambda process: process.client.read())
            return
        many = rng.randrange(2, 30) if rng.random() < self._bursts else rng.choice((1, 1, 2))
        host.process.when_awake(lambda process: self._propose(process, many))

    def _propose(self, process: Process, many: int) -> None:
        for _ in range(many):
            process.client.propose(self._padding)
        process.pump()

    def _coordinate(self, process: Process) -> None:
        """Move the lease, or come back at the very moment when it may be moved."""
        world = self._world
        movable = process.raft.granter.may_move_at(process.now)
        if movable is None:
            return
        wait = process.host.clock.true(movable) - world.now
        if wait > 0:
            if wait < world.plan.e_ns // 6:
                world.later(wait, lambda: process.when_awake(self._coordinate))
            return
        voters = process.config.voters
        some = sorted(voters if self.eligible is None else voters & self.eligible)
        if not some:
            return
        ttl_ns = world.rng.choice((1, 2, 2)) * world.plan.timing.lease_ttl_ns // 2
        epoch = (process.grant.epoch if process.grant is not None else 0) + 1
        following = Grant(holder=world.rng.choice(some), epoch=epoch, ttl_ns=ttl_ns)
        if process.attempt(lambda raft, now: raft.propose_grant(following, now)):
            world.counts["grants"] += 1
