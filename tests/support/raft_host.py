"""A simulated host: what outlives its daemon, its clock, and how the daemon starts and dies.

Lives here: `Host`, the page of its server, the trail of its configurations. Must not live here: the
daemon's loop (see `raft_process`), faults (see `raft_faults`). Start reading at `Host.start`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pgraft.core.raft import Raft
from pgraft.core.types import Config, Index, Message, NodeId, Origin, PeerRecord, Ready
from tests.simulation.checkers.base import Configured, Fenced, Leased, Started, Watch
from tests.support.raft_clock import DriftingClock
from tests.support.raft_process import Process
from tests.support.raft_store import Refused, Store
from tests.support.raft_world import World


@dataclass(slots=True)
class Page:
    """What the server reads: until when (local clock) it is primary of which epoch.

    It outlives the daemon, and so does the promise never to use `released_epoch` again.
    """

    epoch: int = 0
    deadline_ns: int = 0
    released_epoch: int = 0


class Trail:
    """The configurations in a node's log, in order, kept beside the core's own."""

    def __init__(self, node: NodeId, watch: Watch) -> None:
        self._node = node
        self._watch = watch
        self.configs: list[tuple[Index, Config]] = []

    def start(self, founding: Config, store: Store) -> None:
        """What a process that starts finds."""
        image = store.durable
        first = image.snapshot.config if image.snapshot is not None else founding
        self.configs = [(image.base, first)]
        self.configs += [(e.index, e.config) for e in image.entries if e.config is not None]

    def wrote(self, ready: Ready, *, leading: bool, commit: Index) -> None:
        """The core handed out a batch."""
        if ready.snapshot is not None:
            self.configs = [(ready.snapshot.index, ready.snapshot.config)]
        while ready.truncate_from is not None and self.configs[-1][0] >= ready.truncate_from:
            self.configs.pop()
        for entry in ready.entries:
            if entry.config is None:
                continue
            at, before = self.configs[-1]
            self._watch.emit(Configured(self._node, leading, before, at, entry.config, commit))
            self.configs.append((entry.index, entry.config))

    def relevant(self, commit: Index) -> list[Config]:
        """What may still decide: the newest committed configuration and all after it."""
        committed = max((at for at, _ in self.configs if at <= commit), default=Index(0))
        return [config for at, config in self.configs if at >= committed]


class Host:
    """One machine with one disk; `process` None: no daemon runs. `gone`: not there, or no more.
    `doubtful`: its disk may turn out to be lost."""

    def __init__(
        self,
        world: World,
        record: PeerRecord,
        clock: DriftingClock,
        store: Store,
        founding: Config,
    ) -> None:
        self.world = world
        self.record = record
        self.clock = clock
        self.store = store
        self.page = Page()
        self.trail = Trail(record.node, world.watch)
        self.process: Process | None = None
        self.gone = False
        self.doubtful = False
        self.suspect = False
        self._founding = founding
        self.trail.start(founding, store)

    @property
    def node(self) -> NodeId:
        """Its number in the group."""
        return self.record.node

    def start(self) -> bool:
        """A new process, from what is on disk; False if it must not start on that."""
        assert self.process is None
        world = self.world
        try:
            recovered = self.store.recover(self._founding)
        except Refused:
            # Its operator gives it up: it comes back as another member, or not at all.
            world.counts["disks refused"] += 1
            self.gone = True
            return False
        self.doubtful = False
        world.watch.emit(Started(self.node, self.store.durable))
        self.trail.start(self._founding, self.store)
        raft = Raft(
            self.node,
            recovered,
            world.plan.timing,
            random.Random(world.rng.getrandbits(64)),
            self.clock.local(world.now),
            boot=world.rng.getrandbits(63),
            released_epoch=self.page.released_epoch,
            since=self.record.since,
        )
        raft.clock_suspect(self.suspect, self.clock.local(world.now))
        self.process = Process(self, raft)
        if recovered.snapshot is not None:
            self.process.client.machine.restore(recovered.snapshot)
        self.process.start()
        world.links(self.node, True)
        return True

    def admit(self, record: PeerRecord) -> None:
        """This blank host is a member now: its daemon is told so, and starts."""
        self.record = record
        self.gone = False
        self.start()

    def crash(self) -> None:
        """The process dies; what was not synced may be lost. Its server keeps the lease it has."""
        assert self.process is not None
        self.process.dead = True
        self.process.client.end()
        self.process = None
        self.store.crash(self.world.rng)
        self.world.counts["crashes"] += 1
        self.world.links(self.node, False)

    def lose(self) -> None:
        """The host is gone for good, with its disk."""
        if self.process is not None:
            self.crash()
        self.gone = True

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message arrives; a paused process finds it later, a dead one never."""
        if self.process is not None:
            self.process.when_awake(lambda process: process.step(sender, message))

    def propose(self, data: bytes, origin: Origin) -> None:
        """A command arrives that another member sent to us as its leader."""
        if self.process is not None:
            self.process.when_awake(lambda process: process.take(data, origin))

    def link(self, peer: NodeId, up: bool) -> None:
        """The transport saw a connection break or come back."""
        if self.process is not None:
            self.process.when_awake(lambda p: p.attempt(lambda raft, now: raft.link(peer, up, now)))

    def fence(self, epoch: int) -> None:
        """Never to be primary of this epoch again; promised on disk."""
        self.page.released_epoch = epoch
        self.page.deadline_ns = 0
        self.world.watch.emit(Fenced(self.node, epoch, self.world.now))

    def watch_lease(self, process: Process) -> None:
        """Publish what the core holds, as the server would read it, mapped to true time."""
        holder, page = process.raft.holder, self.page
        if holder.epoch > page.epoch:
            page.epoch, page.deadline_ns = holder.epoch, 0
            self.world.later(1, lambda: process.when_awake(lambda p: p.renew()))
        if holder.epoch != page.epoch or holder.deadline_ns == page.deadline_ns:
            return
        if holder.deadline_ns > process.now:
            page.deadline_ns = holder.deadline_ns
            self.world.counts["renewals"] += 1
            self._tell_lease()

    def run_clock_at(self, ppm: int) -> None:
        """Another rate of the clock, which moves the true end of a lease."""
        self.clock.run_at(ppm, self.world.now)
        if self.page.deadline_ns > self.clock.local(self.world.now):
            self._tell_lease()

    def suspect_clock(self, suspect: bool) -> None:
        """The daemon notices that its clock runs off too much, or that it is sound again."""
        self.suspect = suspect
        if self.process is not None:
            self.process.when_awake(
                lambda p: p.attempt(lambda raft, now: raft.clock_suspect(suspect, now))
            )

    def holds(self) -> bool:
        """Whether its server may act as primary now."""
        return self.page.deadline_ns > self.clock.local(self.world.now)

    def applied(self, process: Process) -> None:
        """A batch was applied: now and then keep a snapshot of it."""
        chance = 0.02 if self.world.plan.churn else 0.005
        if self.world.rng.random() < chance:
            self.world.later(1, lambda: process.when_awake(lambda p: p.snap()))

    def _tell_lease(self) -> None:
        until = self.clock.true(self.page.deadline_ns)
        self.world.watch.emit(Leased(self.node, self.page.epoch, self.world.now, until))
