"""A simulated group: one event queue, N hosts, one network, all faults by one seed.

Lives here: time, the run in two phases (chaos, then peace), client load. Must not live here: what a
property means (tests/simulation/checkers). Start reading at `Group.run`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pgraft.core.config import founding
from pgraft.core.raft import Raft
from pgraft.core.types import (
    AppendReply,
    NodeId,
    Outgoing,
    SafetyViolation,
    Timing,
    VoteReply,
    VoteRequest,
)
from tests.simulation.checkers import Checker, CheckFailed, all_checkers
from tests.support.raft_clock import DriftingClock
from tests.support.raft_faults import Faults
from tests.support.raft_host import MS, Host, Process, Setup, grant_of
from tests.support.raft_network import Network
from tests.support.raft_store import Image, MemoryStore, Store
from tests.support.raft_wal_store import WalStore

CHAOS_NS = 4_500 * MS
PEACE_NS = 2_500 * MS
TIMING = Timing(
    heartbeat_ns=40 * MS,
    election_ns=200 * MS,
    lease_ttl_ns=600 * MS,
    drift=0.02,
    scheduling_ns=20 * MS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one seed came to."""

    seed: int
    counts: dict[str, int]


class RunFailed(AssertionError):
    """A seed broke a property; the text says how to run it again."""


def run_seed(seed: int, *, wal: bool = False) -> Outcome:
    """Run one seed; RunFailed if a property broke or the group did not recover.

    `wal`: on the real log's code over disks that tear, instead of the simple store.
    """
    group = Group(seed, all_checkers(), WalStore if wal else MemoryStore)
    try:
        group.run()
    except (CheckFailed, SafetyViolation, AssertionError, ValueError) as failure:
        raise RunFailed(
            f"{type(failure).__name__} at {group.now / 1e9:.3f} s: {failure}\n"
            f"again: python -m tools.sim --seed {seed}" + (" --wal" if wal else "")
        ) from failure
    return Outcome(seed=seed, counts=dict(sorted(group.counts.items())))


class Group:
    """N hosts and everything between them; `now` is true time in ns."""

    def __init__(
        self, seed: int, checkers: Sequence[Checker], store: Callable[[NodeId], Store]
    ) -> None:
        self.now = 0
        self.rng = random.Random(f"group {seed}")
        self.counts: dict[str, int] = Counter()
        self.checkers = checkers
        self.network = Network(random.Random(f"network {seed}"))
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.hosts = self._build(store)
        self._eligible = list(self.hosts)

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Run an action after a delay in true time."""
        heapq.heappush(self._queue, (self.now + delay_ns, next(self._order), action))

    def post(self, sender: NodeId, outgoing: Outgoing) -> None:
        """Send a message through the network."""
        if isinstance(outgoing.message, (VoteReply, VoteRequest, AppendReply)):
            disk = self.hosts[sender].durable.store.durable
            for checker in self.checkers:
                checker.on_send(sender, outgoing.to, outgoing.message, disk)
        host = self.hosts[outgoing.to]
        for delay in self.network.arrivals(sender, outgoing.to):
            self.later(delay, lambda: host.receive(sender, outgoing.message))

    def disks(self) -> list[Image]:
        """What is durable on each node."""
        return [host.durable.store.durable for host in self.hosts.values()]

    def run(self) -> None:
        """Chaos, then peace: all nodes up, network healed, and everything must work again."""
        faults = Faults(self)
        for host in self.hosts.values():
            host.start()
        faults.begin()
        self.later(1, self._load)
        self._run_until(CHAOS_NS)
        left_out = faults.end()
        self._eligible = [node for node in self.hosts if node != left_out]
        before = max(host.durable.store.durable.hard_state.commit for host in self.hosts.values())
        self._run_until(CHAOS_NS + PEACE_NS)
        connected = [self.hosts[node] for node in self._eligible]
        self._expect_recovered([host.process for host in connected if host.process], before)

    def leaders(self) -> list[Host]:
        """Hosts whose core believes that it leads."""
        return [h for h in self.hosts.values() if h.process and h.process.leads]

    def _build(self, store: Callable[[NodeId], Store]) -> dict[NodeId, Host]:
        size = self.rng.choice((3, 3, 5))
        nodes = [NodeId(n) for n in range(1, size + 1)]
        limit = int(TIMING.drift * 1_000_000)
        setup = Setup(config=founding(nodes), timing=TIMING, store=store)
        hosts = {}
        for node in nodes:
            # The extremes break first, so they come up often.
            ppm = self.rng.choice((-limit, limit, self.rng.randint(-limit, limit)))
            clock = DriftingClock(offset_ns=self.rng.randrange(10**15), ppm=ppm)
            hosts[node] = Host(self, node, clock, setup)
        return hosts

    def _run_until(self, end: int) -> None:
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def _load(self) -> None:
        """Clients: proposals, reads, and a coordinator that moves the lease whenever it may."""
        self.later(self.rng.randrange(2 * MS, 30 * MS), self._load)
        host = self.rng.choice(self.leaders() * 2 + list(self.hosts.values()))
        if host.process is not None:
            host.process.when_awake(lambda process: self._ask(process.host))
        for leader in self.leaders():
            assert leader.process is not None
            leader.process.when_awake(self._coordinate)

    def _ask(self, host: Host) -> None:
        process = host.process
        assert process is not None
        if self.rng.random() < 0.3:
            context = self.rng.getrandbits(30)
            for checker in self.checkers:
                checker.on_read_asked(host.node, context)
            process.attempt(lambda raft, now: raft.read_index(context, now))
        else:
            for _ in range(self.rng.choice((1, 1, 1, 5))):
                data = self.rng.randbytes(self.rng.choice((1, 8, 300)))
                process.attempt(partial(_propose, data))

    def _coordinate(self, process: Process) -> None:
        """Move the lease, or come back at the very moment when it may be moved."""
        movable = process.raft.granter.may_move_at(process.now)
        if movable is None:
            return
        wait = process.host.clock.true(movable) - self.now
        if 0 < wait < 30 * MS:
            self.later(wait, lambda: process.when_awake(self._coordinate))
        holder = self.rng.choice(self._eligible)
        ttl = self.rng.choice((1, 2, 2)) * TIMING.lease_ttl_ns // 2
        if process.attempt(lambda raft, now: raft.propose_grant(grant_of(raft, holder, ttl), now)):
            self.counts["grants"] += 1

    def _expect_recovered(self, processes: list[Process], before: int) -> None:
        """One leader, new commits on everybody, and somebody holds a lease."""
        leaders = [process.host.node for process in processes if process.leads]
        if len(leaders) != 1:
            raise CheckFailed(f"after peace of {PEACE_NS / 1e9} s these lead: {leaders}")
        applied = [process.raft.status().applied for process in processes]
        if min(applied) <= before or max(applied) - min(applied) > 50:
            raise CheckFailed(f"applied {applied}; when peace began {before} was committed")
        if all(process.raft.holder.deadline_ns <= process.now for process in processes):
            raise CheckFailed("nobody holds a lease")
        self.counts["log"] = max(applied)


def _propose(data: bytes, raft: Raft, now: int) -> None:
    raft.propose(data, now)
