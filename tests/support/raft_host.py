"""A simulated host: drives one real core as the shell does, with a clock and a disk of its own.

Lives here: the order of a Ready's steps, ticks, pauses, crashes, and what the daemon would do with
a lease. Must not live here: rules of Raft, faults (see `raft_faults`). Start reading at
`Process.pump`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pgraft.core.raft import Raft
from pgraft.core.types import (
    Config,
    Entry,
    EventKind,
    Grant,
    Message,
    NodeId,
    Outgoing,
    ProposalRefused,
    ReadDone,
    Ready,
    Role,
    Term,
    Timing,
)
from tests.simulation.checkers.base import Applied, Checker
from tests.support.raft_clock import DriftingClock
from tests.support.raft_store import Image, Store

MS = 1_000_000


class World(Protocol):
    """What a host needs of the simulation around it."""

    now: int
    rng: random.Random
    counts: dict[str, int]
    checkers: Sequence[Checker]

    def later(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Run an action after a delay in true time."""
        ...

    def post(self, sender: NodeId, outgoing: Outgoing) -> None:
        """Hand a message to the network."""
        ...

    def disks(self) -> list[Image]:
        """What is durable on each voter."""
        ...


@dataclass(slots=True)
class Durable:
    """What survives a crash of the process, beside the log."""

    store: Store
    released_epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all nodes of a group have in common; `store` makes a blank disk for a node."""

    config: Config
    timing: Timing
    store: Callable[[NodeId], Store]


class Host:
    """One node. `alive` False: the process is gone; `paused_until`: it stands still."""

    def __init__(self, world: World, node: NodeId, clock: DriftingClock, setup: Setup) -> None:
        self.world = world
        self.node = node
        self.clock = clock
        self.durable = Durable(setup.store(node))
        self._setup = setup
        self.process: Process | None = None

    @property
    def alive(self) -> bool:
        """Whether a process runs."""
        return self.process is not None

    def start(self) -> None:
        """A new process, from what is on disk."""
        assert self.process is None
        config, timing = self._setup.config, self._setup.timing
        world = self.world
        for checker in world.checkers:
            checker.on_restart(self.node)
            checker.on_durable(self.node, self.durable.store.durable.hard_state)
        raft = Raft(
            self.node,
            self.durable.store.recover(config),
            timing,
            random.Random(world.rng.getrandbits(64)),
            self.clock.local(world.now),
            boot=world.rng.getrandbits(63),
            released_epoch=self.durable.released_epoch,
        )
        self.process = Process(self, raft, timing.lease_ttl_ns // 10)
        self.process.start()

    def crash(self) -> None:
        """The process dies; what was not synced may be lost. Its server keeps the lease it has."""
        assert self.process is not None
        self.process.dead = True
        self.process = None
        self.durable.store.crash(self.world.rng)
        self.world.counts["crashes"] += 1

    def receive(self, sender: NodeId, message: Message) -> None:
        """A message arrives; a paused process finds it later, a dead one never."""
        if self.process is not None:
            self.process.when_awake(lambda process: process.step(sender, message))


class Process:
    """One run of a daemon: the core and the shell's loop around it."""

    def __init__(self, host: Host, raft: Raft, renew_every_ns: int) -> None:
        self.host = host
        self.raft = raft
        self.dead = False
        self.paused_until = 0
        self.sync_ns = 2 * MS
        self._renew_every_ns = renew_every_ns
        self._unsynced: list[Ready] = []
        self._lease = (0, 0)

    @property
    def now(self) -> int:
        """The node's own clock."""
        return self.host.clock.local(self.host.world.now)

    @property
    def leads(self) -> bool:
        """Whether the core believes that it leads; cheaper than its status."""
        return self.raft._parts.state.leading

    def start(self) -> None:
        """Begin to tick and, as the daemon does, to renew what may be held."""
        self._tick_later()
        self._renew_later()

    def step(self, sender: NodeId, message: Message) -> None:
        """Take a message."""
        self.raft.step(sender, message, self.now)
        self.pump()

    def input(self, action: Callable[[Raft, int], object]) -> None:
        """Call the core, whether it refuses or not."""
        self.attempt(action)

    def attempt(self, action: Callable[[Raft, int], object]) -> bool:
        """Call the core; False if it refused."""
        try:
            action(self.raft, self.now)
        except ProposalRefused:
            self.pump()
            return False
        self.pump()
        return True

    def release(self) -> None:
        """Fence: latch on disk, stop acting as primary, tell the group."""
        holder = self.raft.holder
        if holder.epoch == 0:
            return
        self.host.durable.released_epoch = holder.epoch
        for checker in self.host.world.checkers:
            checker.on_fence(self.host.node, holder.epoch, self.host.world.now)
        holder.release(b"fenced", self.now)
        self._lease = (holder.epoch, 0)
        self.pump()

    def pump(self) -> None:
        """Take every Ready and do what the package docstring of the core asks for."""
        for _ in range(100):
            ready = self.raft.ready()
            if ready is None:
                self._watch_lease()
                return
            self._perform(ready)
        raise AssertionError("the core does not come to rest")

    def when_awake(self, action: Callable[[Process], None]) -> None:
        """Run an action now, or when the pause is over; never in a dead process."""
        world = self.host.world
        if self.dead:
            return
        if world.now < self.paused_until:
            world.later(self.paused_until - world.now, lambda: self.when_awake(action))
        else:
            action(self)

    def _perform(self, ready: Ready) -> None:
        world, node = self.host.world, self.host.node
        for outgoing in ready.send_now:
            world.post(node, outgoing)
        if ready.token is not None:
            self._write(ready)
        assert ready.token is not None or not ready.send_after_sync
        assert ready.token is None or ready.entries or ready.hard_state or ready.truncate_from
        for entry in ready.committed:
            self._apply(entry)
        for event in ready.events:
            if event.kind is EventKind.ROLE_CHANGED and event.detail == Role.LEADER:
                self._elected(event.term)
        for read in ready.reads:
            self._read(read)

    def _write(self, ready: Ready) -> None:
        host, world = self.host, self.host.world
        if ready.entries:
            prev = self._log()[ready.entries[0].index - 2] if ready.entries[0].index > 1 else None
            prev_term = prev.term if prev is not None else Term(0)
            for checker in world.checkers:
                checker.on_entries(host.node, prev_term, ready.entries)
        host.durable.store.write(ready)
        self._unsynced.append(ready)
        if len(self._unsynced) == 1:
            self._sync()

    def _sync(self) -> None:
        """One sync makes everything durable that was written before it began."""
        covered = len(self._unsynced)
        world = self.host.world
        world.later(world.rng.randrange(1, self.sync_ns), lambda: self._synced(covered))

    def _synced(self, covered: int) -> None:
        if self.dead:
            return
        for _ in range(covered):
            self.host.durable.store.sync()
            for checker in self.host.world.checkers:
                checker.on_durable(self.host.node, self.host.durable.store.durable.hard_state)
        self.when_awake(lambda process: process.after_sync(covered))

    def after_sync(self, covered: int) -> None:
        """Batches are durable: what depends on them may leave."""
        done, self._unsynced = self._unsynced[:covered], self._unsynced[covered:]
        if self._unsynced:
            self._sync()
        for ready in done:
            for outgoing in ready.send_after_sync:
                self.host.world.post(self.host.node, outgoing)
            assert ready.token is not None
            self.raft.persisted(ready.token, self.now)
            self.pump()

    def _apply(self, entry: Entry) -> None:
        world = self.host.world
        world.counts["applied"] += 1
        applied = Applied(
            node=self.host.node,
            term=self.raft._parts.state.term,
            entry=entry,
            disks=world.disks(),
        )
        for checker in world.checkers:
            checker.on_apply(applied)

    def _elected(self, term: Term) -> None:
        self.host.world.counts["elections"] += 1
        for checker in self.host.world.checkers:
            checker.on_leader(self.host.node, term, self._log())

    def _read(self, read: ReadDone) -> None:
        if read.index is not None:
            self.host.world.counts["reads"] += 1
            for checker in self.host.world.checkers:
                checker.on_read_done(self.host.node, read.context, read.index)

    def _log(self) -> Sequence[Entry]:
        """The core's log, also what is not durable."""
        return self.raft._parts.state.log._entries

    def _watch_lease(self) -> None:
        """What the server would read from its page, mapped to true time."""
        holder, host = self.raft.holder, self.host
        lease = (holder.epoch, holder.deadline_ns)
        if lease == self._lease:
            return
        if holder.epoch != self._lease[0]:
            self._renew_now()
        self._lease = lease
        if holder.deadline_ns > self.now:
            host.world.counts["renewals"] += 1
            until = host.clock.true(holder.deadline_ns)
            for checker in host.world.checkers:
                checker.on_lease(host.node, holder.epoch, host.world.now, until)

    def _tick_later(self) -> None:
        world = self.host.world
        due = self.host.clock.true(self.raft.next_deadline())
        delay = max(due - world.now, 0) + world.rng.randrange(1, MS)
        world.later(delay, lambda: self.when_awake(lambda process: process.tick()))

    def tick(self) -> None:
        """Tick the core and arrange for the next one."""
        self.raft.tick(self.now)
        self.pump()
        self._tick_later()

    def _renew_now(self) -> None:
        """A new epoch: ask for the first lease without waiting for the next beat."""
        self.host.world.later(1, lambda: self.when_awake(lambda process: process.renew()))

    def _renew_later(self) -> None:
        self.renew()
        self.host.world.later(
            self._renew_every_ns, lambda: self.when_awake(lambda process: process._renew_later())
        )

    def renew(self) -> None:
        """Ask for one more ttl, if an epoch is held."""
        self.raft.holder.renew(self.now)
        self.pump()


def grant_of(raft: Raft, holder: NodeId, ttl_ns: int) -> Grant:
    """The grant that would follow the epoch this core has applied."""
    return Grant(holder=holder, epoch=raft.status().epoch + 1, ttl_ns=ttl_ns)
