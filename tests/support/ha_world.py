"""A simulated cluster: hosts, network, clients, and everything that is drawn from one seed.

Start reading at `World`. What goes wrong is in `ha_faults`, one seed's run in `ha_run`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgraft.core.types import Entry, EntryKind, Timing
from ramd.domain.model import ClusterState, Settings
from ramd.state.commands import InitCluster, decode_grant_payload
from tests.simulation_ha.checkers import CHECKERS, Watch
from tests.simulation_ha.checkers.base import Acked, Granted
from tests.simulation_ha.checkers.watching import Watching
from tests.support.ha_casts import Casts
from tests.support.ha_client import Client
from tests.support.ha_daemon import Daemon
from tests.support.ha_group import GroupNode
from tests.support.ha_host import Host
from tests.support.ha_members import founding, member
from tests.support.ha_net import HaNetwork
from tests.support.ha_process import Postmaster
from tests.support.ha_time import ACTOR, Actor, HaLoop, HostClock
from tests.support.ha_wal import Record

if TYPE_CHECKING:
    from tests.simulation_ha.checkers.base import Checker

TRACE_LINES = 60
_NOBODY = Actor("nobody 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a seed draws before anything runs."""

    seed: int = 0
    size: int = 3
    settings: Settings = field(default_factory=lambda: Settings(startup_grace_ms=4_000))
    timing: Timing = field(default_factory=Timing)
    extension: bool = True
    storm_s: float = 30.0
    nofailover: tuple[int, ...] = ()

    @property
    def founders(self) -> tuple[int, ...]:
        return tuple(range(1, self.size + 1))

    def founding(self) -> InitCluster:
        members = tuple(member(n, nofailover=n in self.nofailover) for n in self.founders)
        return InitCluster(
            cluster_id="c", cluster_name="c", members=members, settings=self.settings
        )


class World:
    """Everything of one run. `tally` counts what happened; `trace` keeps the last of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(f"ha {plan.seed}")
        self.network = HaNetwork(self.rng)
        self.nodes: dict[int, GroupNode] = {}
        self.channels: dict[int, Casts] = {}
        self.graveyard: list[Daemon] = []
        self.tally: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.uid = 0
        self.calm_clients = False
        self.sizes: tuple[int, ...] = (120, 120, 900, 20_000, 300_000)
        """Bytes of WAL of a client's write."""
        # What the simulated PostgreSQL, or RAMD's use of it, does right; stories take one away.
        self.loads_extension = plan.extension
        self.weak_sessions = False
        """Sessions ask not to wait for replicas."""
        self.raises_weak = True
        self.checks_waits = True
        self.slots = True
        self.replays_first = True
        self.kills_remains = True
        self.numbers_timelines = True
        self.seals_detached = True
        self.scans_wal = True
        self.flaws: Counter[tuple[int, str]] = Counter()
        self.on_call: list[Callable[[Host, str], None]] = []
        self.on_apply: list[Callable[[ClusterState], None]] = []
        self.on_ack: list[Callable[[Postmaster, Record], None]] = []
        self._granted = 0
        self.remade: set[int] = set()
        """Nodes whose copy of the data was lost in this run."""
        self.hosts: dict[int, Host] = {}
        for node_id in plan.founders:
            self.host(node_id)
        self.founding = founding(self.hosts.values())
        checkers: list[Checker] = [checker(self.hosts) for checker in CHECKERS]
        self.watch = Watching(Watch(checkers, self.fail))
        self.clients = [Client(self, pace) for pace in (0.05, 0.2)]

    def _ppm(self) -> int:
        return self.rng.randint(-3_000, 3_000)

    # --- beginning ---------------------------------------------------------------------------

    def start(self) -> None:
        daemons = []
        for host in self.hosts.values():
            host.daemon = Daemon(host)
            daemons.append(host.daemon)
        for daemon in daemons:
            daemon.start()
        for client in self.clients:
            client.start()

    def host(self, node_id: int) -> Host:
        """The host of this number; a new one if there is none."""
        if node_id not in self.hosts:
            begun_s = asyncio.get_running_loop().time() - self.rng.uniform(10, 900)
            self.hosts[node_id] = Host(node_id, self, HostClock(begun_s, self._ppm()))
        return self.hosts[node_id]

    def boot(self, node_id: int) -> None:
        """Power the host on, if it is off, and start its daemon, if none runs. A host that is
        joining has none yet."""
        host = self.hosts[node_id]
        host.lost = False
        if host.daemon is None and host.joining is None:
            host.daemon = Daemon(host)
            host.daemon.start()

    # --- what the parts tell -----------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HaLoop)
        loop.fail(error)

    def called(self, host: Host, name: str) -> None:
        """A call on a node's server begins."""
        for hook in list(self.on_call):
            hook(host, name)

    def flaw(self, host: Host, what: str) -> bool:
        """Whether this call fails now."""
        left = self.flaws[(host.node_id, what)]
        if left:
            self.flaws[(host.node_id, what)] = left - 1
        return left > 0

    def acked(self, server: Postmaster, record: Record) -> None:
        self.tally["acknowledged"] += 1
        self.watch.emit(Acked(server.host, server, record))
        for hook in list(self.on_ack):
            hook(server, record)

    def applied(self, entry: Entry, before: ClusterState) -> None:
        """A member has applied an entry; the first to do so tells the checkers of a grant."""
        for hook in list(self.on_apply):
            hook(self.state())
        grant = entry.grant
        if entry.kind is not EntryKind.GRANT or grant is None or grant.epoch <= self._granted:
            return
        self._granted = grant.epoch
        payload = decode_grant_payload(grant.payload)
        self.tally["grants"] += 1
        self.note(f"epoch {grant.epoch} to node {grant.holder}: {payload.record.reason}")
        self.watch.emit(Granted(before, int(grant.holder), grant.epoch, payload))

    def note(self, text: str) -> None:
        """One line of the trace."""
        now_s = asyncio.get_running_loop().time() - 1_000
        actor = ACTOR.get()
        self.trace.append(f"{now_s:9.3f} {actor.name if actor else '-':>10}: {text}")

    def emitted(self, event: Any) -> None:
        """An event of some daemon."""
        name = type(event).__name__
        if name == "TransitionStarted":
            self.tally[f"transition {event.situation} {event.goal}"] += 1
        elif name == "Decided":
            self.tally[f"rule {event.rule}"] += 1
        elif name == "SyncProposed":
            self.tally["sync changes"] += 1
        elif name == "PositionSealed":
            host = self.hosts[int((ACTOR.get() or _NOBODY).name.split()[-1])]
            host.reported = host.record.seal
        if name != "TransitionStarted":
            self.note(event.message())

    def timeline_of(self, host: Host, asked: int) -> int:
        """The number that a promotion takes."""
        return asked if self.numbers_timelines else host.disk.timeline + 1

    def new_tie(self) -> str:
        return f"{self.rng.getrandbits(40):x}"

    # --- what can be asked -------------------------------------------------------------------

    def primary(self) -> Host | None:
        """The host whose server may acknowledge now."""
        for host in self.hosts.values():
            server = host.server
            up = server is not None and server.primary and server.answers
            if server is not None and up and host.acknowledges(server):
                return host
        return None

    def state(self) -> ClusterState:
        """The newest that any living daemon knows."""
        states = [h.daemon.state for h in self.hosts.values() if h.daemon is not None]
        return max(states, key=lambda state: state.applied_index, default=ClusterState())

    def coordinator(self) -> Host | None:
        """Who coordinates, by its own word; the latest term counts."""
        found = [
            (int(h.daemon.node.raft._parts.state.term), h)
            for h in self.hosts.values()
            if h.daemon is not None and h.daemon.node.raft._parts.state.leading
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def settled(self) -> str:
        """'' if a primary takes writes, everybody streams from it, and its set is settled."""
        primary = self.primary()
        if primary is None:
            return "no primary takes writes"
        state = self.state()
        if state.reign is None or state.reign.node_id != primary.node_id:
            return f"node {primary.node_id} is not the recorded primary"
        for host in self.hosts.values():
            if host is primary:
                continue
            if state.member(host.node_id) is None:
                if host.server is not None and host.daemon is not None:
                    return f"node {host.node_id} is no member, and its server runs"
                continue
            receiver = host.server.receiver if host.server is not None else None
            if receiver is None or receiver.sender is None or receiver.sender.over:
                return f"node {host.node_id} does not stream"
            if receiver.sender.server is not primary.server:
                return f"node {host.node_id} streams from somebody else"
        if state.sync.target is not None:
            return "a change of the synchronous set is under way"
        return ""

    async def until(self, what: Callable[[], object], seconds: float, why: str = "") -> None:
        """Wait in virtual time; AssertionError if it does not come true. Stops at any failure."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, HaLoop)
        until_s = loop.time() + seconds
        while True:
            await asyncio.sleep(0.02)
            if loop.failure is not None:
                raise loop.failure
            if what():
                return
            assert loop.time() < until_s, f"not within {seconds} s: {why or self.settled()}"

    async def pass_s(self, seconds: float) -> None:
        """Let time pass; stops at any failure."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        await self.until(lambda: loop.time() >= until_s, seconds + 1)
