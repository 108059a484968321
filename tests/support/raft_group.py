"""A simulated group: one event queue, hosts, one network, all faults by one seed.

Lives here: time, the run in two phases (a storm, then calm), what a failure says. Must not live
here: what a property means (tests/simulation/checkers). Start reading at `Group.run`.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pgraft.core.config import founding
from pgraft.core.types import (
    AppendReply,
    Config,
    NodeId,
    Origin,
    Outgoing,
    SafetyViolation,
    VoteReply,
    VoteRequest,
)
from tests.simulation.checkers import Checker, CheckFailed, Watch, all_checkers
from tests.simulation.checkers.base import Applied, Disks, Handler, Led, Sent
from tests.simulation.tally import Tally
from tests.support.raft_calm import Calm
from tests.support.raft_churn import Churn, record_of
from tests.support.raft_clock import DriftingClock
from tests.support.raft_faults import Faults
from tests.support.raft_history import Histories
from tests.support.raft_host import Host
from tests.support.raft_load import Load
from tests.support.raft_network import Network
from tests.support.raft_store import MemoryStore, Store
from tests.support.raft_wal_store import WalStore, segments_of
from tests.support.raft_world import Plan, drawn

FAILURES = (AssertionError, ValueError, LookupError, AttributeError, TypeError)
"""What a broken core may raise, beside its own SafetyViolation."""
_PROMISES = (VoteReply, VoteRequest, AppendReply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one seed came to; `trace` names every message in its order."""

    seed: int
    trace: int
    counts: dict[str, int]


class RunFailed(AssertionError):
    """A seed broke a property; the text says which, and how to run it again."""

    def __init__(self, text: str, found_by: str) -> None:
        super().__init__(text, found_by)
        self.found_by = found_by

    def __str__(self) -> str:
        return str(self.args[0])


def run_seed(seed: int, *, wal: bool | None = None, chaos: int | None = None) -> Outcome:
    """Run one seed; RunFailed if a property broke or the group did not recover."""
    again = f"make sim SEED={seed}"
    again += "" if wal is None else f" WAL={int(wal)}"
    again += "" if chaos is None else f" CHAOS={chaos}"
    return run_plan(drawn(seed, wal=wal, chaos=chaos), again)


def run_plan(plan: Plan, again: str) -> Outcome:
    """Run a plan; `again` is the command that does the same."""
    group = Group(plan, all_checkers())
    try:
        with segments_of(plan.segment_bytes):
            group.run()
    except (*FAILURES, SafetyViolation) as failure:
        found_by = _culprit(failure)
        raise RunFailed(
            f"{found_by} at {group.now / 1e9:.3f} s: {failure}\nagain: {again}", found_by
        ) from failure
    return Outcome(seed=plan.seed, trace=group.trace, counts=dict(sorted(group.counts.items())))


def _culprit(failure: BaseException) -> str:
    """The checker, or the file of our own code, that objected."""
    traceback = failure.__traceback__
    name = type(failure).__name__
    while traceback is not None:
        frame = traceback.tb_frame
        found = frame.f_locals.get("self")
        if isinstance(failure, CheckFailed) and isinstance(found, Checker | Calm | Histories):
            name = type(found).__name__
        elif not isinstance(failure, CheckFailed):
            name = f"{type(failure).__name__} in {frame.f_globals.get('__name__', '?')}"
        traceback = traceback.tb_next
    return name


class Group:
    """Hosts and everything between them; `now` is true time in ns."""

    def __init__(self, plan: Plan, checkers: Iterable[Checker]) -> None:
        self.plan = plan
        self.now = 0
        self.rng = random.Random(f"group {plan.seed}")
        self.counts: Counter[str] = Counter()
        self.network = Network(random.Random(f"network {plan.seed}"), 2 * plan.e_ns)
        self.histories = Histories(random.Random(f"clients {plan.seed}"), self.counts)
        self.watch = Watch([*checkers, self.histories, Tally(self.counts), _Reactions(self)])
        self.hosts: dict[NodeId, Host] = {}
        self.load = Load(self)
        self.trace = 0
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._queued = 0
        self._found()

    def later(self, delay_ns: int, action: Callable[[], object]) -> None:
        """Run an action after a delay in true time."""
        self._queued += 1
        heapq.heappush(self._queue, (self.now + delay_ns, self._queued, action))

    def post(self, sender: Host, outgoing: Outgoing) -> None:
        """Send a message through the network."""
        message, to = outgoing.message, outgoing.to
        node = sender.node
        if isinstance(message, _PROMISES):
            self.watch.emit(Sent(node, to, message, sender.store.durable))
        host = self.hosts[to]
        self.trace = zlib.crc32(
            b"%d %d %d %s" % (self.now, node, to, type(message).__name__.encode()), self.trace
        )
        for delay in self.network.arrivals(node, to):
            self.later(delay, lambda: host.receive(node, message))

    def ask(self, sender: NodeId, to: NodeId, data: bytes, origin: Origin) -> None:
        """Send a client's command from one member to another."""
        host = self.hosts[to]
        for delay in self.network.arrivals(sender, to):
            self.later(delay, lambda: host.propose(data, origin))

    def disks(self) -> Disks:
        """What is durable on each node, also where it was lost since."""
        return {node: host.store.durable for node, host in self.hosts.items()}

    def links(self, node: NodeId, up: bool) -> None:
        """Often the peers notice at once that the connections of a node broke."""
        if not up and self.rng.random() < 0.5:
            return
        for other, host in self.hosts.items():
            if other != node and (node, other) not in self.network.cuts:
                host.link(node, up)

    def run(self) -> None:
        """A storm, then calm in which everything must work again."""
        churn, calm = Churn(self, self.admit), Calm(self)
        faults = Faults(self, churn.change)
        for host in self.hosts.values():
            host.start()
        faults.begin()
        if self.plan.churn:
            churn.begin()
        self.later(1, self.load.begin)
        self.run_until(self.plan.chaos * self.plan.e_ns)
        faults.end()
        churn.end()
        calm.begin()
        self.load.eligible = calm.core
        while unmet := calm.unmet():  # bounded by the limits in `Calm.overdue`
            calm.overdue(unmet)
            self.run_until(self.now + self.plan.e_ns // 4)
        self.histories.close()
        self.counts["simulated ms"] += self.now // 1_000_000

    def run_until(self, end: int) -> None:
        """Let time pass."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, action = heapq.heappop(queue)
            action()
        self.now = end

    def admit(self) -> Host:
        """A blank host with a new id, which takes part once it is told that it is a member."""
        host = self._host(NodeId(max(self.hosts) + 1), Config(voters=frozenset()))
        host.gone = True
        return host

    def _found(self) -> None:
        nodes = [NodeId(number) for number in range(1, self.plan.size + 1)]
        config = founding(nodes)
        peers = tuple(record_of(node) for node in nodes)
        config = Config(voters=config.voters, peers=peers)
        for node in nodes:
            self._host(node, config)

    def _host(self, node: NodeId, config: Config) -> Host:
        limit = int(self.plan.timing.drift * 1_000_000)
        # The extremes break first, so they come up often.
        ppm = self.rng.choice((-limit, limit, self.rng.randint(-limit, limit)))
        clock = DriftingClock(self.rng.randrange(10**15), ppm)
        store: Store = WalStore(node) if self.plan.wal else MemoryStore(node)
        self.hosts[node] = Host(self, record_of(node), clock, store, config)
        return self.hosts[node]


class _Reactions(Checker):
    """What others do when they hear of something: new leaders get work, new members start."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def handlers(self) -> Mapping[type, Handler]:
        return {Led: self._led, Applied: self._applied}

    def _led(self, led: Led) -> None:
        process = self._group.hosts[led.node].process
        if process is not None:
            self._group.later(1, lambda: process.when_awake(self._group.load.elected))

    def _applied(self, applied: Applied) -> None:
        config = applied.entry.config
        if config is None:
            return
        for record in config.peers:
            host = self._group.hosts[record.node]
            if host.record != record:
                self._group.later(1, lambda host=host, record=record: host.admit(record))  # type: ignore[misc]
                host.record = record
