"""One run of a simulated member's daemon: drives a real core as the shell does.

Lives here: the order of a Ready's steps, ticks, pauses, syncs that end later, what the daemon does
with a lease. Must not live here: rules of Raft, faults. Start reading at `Process.pump`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgraft.core.raft import Raft
from pgraft.core.types import (
    NO_NODE,
    AppendReply,
    Config,
    EventKind,
    Grant,
    Index,
    Message,
    NodeId,
    Origin,
    ProposalRefused,
    Ready,
    Role,
    Snapshot,
    Term,
)
from pgraft.storage.errors import DiskFull, WalFailed
from tests.simulation.checkers.base import (
    Acked,
    Applied,
    Committed,
    Led,
    ReadAsked,
    ReadDone,
    Snapped,
    Synced,
    Wrote,
)
from tests.support.raft_client import Client
from tests.support.raft_world import MS

if TYPE_CHECKING:
    from tests.support.raft_host import Host


class Process:
    """The core and the loop around it. `paused_until`: it stands still, its disk does not."""

    def __init__(self, host: Host, raft: Raft) -> None:
        self.host = host
        self.raft = raft
        self.dead = False
        self.paused_until = 0
        self.sync_ns = 2 * MS
        world = host.world
        self.client = Client(self, world.histories, world.rng, 3 * world.plan.e_ns)
        self._unsynced: list[Ready | Snapshot] = []

    @property
    def now(self) -> int:
        """The node's own clock."""
        return self.host.clock.local(self.host.world.now)

    @property
    def leads(self) -> bool:
        """Whether the core believes that it leads; cheaper than its status."""
        return self.raft._parts.state.leading

    @property
    def config(self) -> Config:
        """The configuration in effect here."""
        return self.raft._parts.state.config

    @property
    def grant(self) -> Grant | None:
        """The last grant applied here."""
        return self.raft._parts.state.log.applied.grant

    def true_now(self) -> int:
        """True time, for the histories of clients."""
        return self.host.world.now

    def start(self) -> None:
        """Begin to tick and, as the daemon does, to renew what may be held."""
        self.pump()
        self._tick_later()
        self._renew_later()

    def step(self, sender: NodeId, message: Message) -> None:
        """Take a message."""
        self.raft.step(sender, message, self.now)
        if type(message) is AppendReply and self.leads:
            self._look_at_progress(sender)
        self.pump()

    def attempt(self, action: Callable[[Raft, int], object]) -> bool:
        """Call the core; False if it refused."""
        try:
            action(self.raft, self.now)
        except ProposalRefused as refused:
            self.host.world.counts[f"refused {refused.reason}"] += 1
            self.pump()
            return False
        self.pump()
        return True

    def ask_leader(self, data: bytes, origin: Origin) -> None:
        """Propose a client's command here, or send it to whoever is believed to lead."""
        leader = self.raft._parts.state.leader
        if self.leads:
            self.propose(data, origin)
        elif leader != NO_NODE:
            self.host.world.ask(self.host.node, leader, data, origin)

    def propose(self, data: bytes, origin: Origin) -> None:
        """Append a client's command, if this node leads; `pump` sends it on."""
        try:
            self.raft.propose(data, self.now, origin)
        except ProposalRefused as refused:
            self.host.world.counts[f"refused {refused.reason}"] += 1

    def take(self, data: bytes, origin: Origin) -> None:
        """A command that another member sent here."""
        self.propose(data, origin)
        self.pump()

    def ask_read(self, context: int) -> None:
        """Ask for a linearizable read."""
        self.host.world.watch.emit(ReadAsked(self.host.node, context))
        self.attempt(lambda raft, now: raft.read_index(context, now))

    def after(self, delay_ns: int, serial: int) -> None:
        """Remind the client of a command later."""
        self.host.world.later(
            delay_ns, lambda: self.when_awake(lambda process: process.ask_again(serial))
        )

    def ask_again(self, serial: int) -> None:
        """The client's command may have been lost."""
        self.client.again(serial)
        self.pump()

    def release(self) -> None:
        """Fence: latch on disk, stop acting as primary, tell the group."""
        epoch = self.raft.holder.epoch
        if epoch:
            self.host.fence(epoch)
            self.raft.holder.release(b"fenced", self.now)
            self.pump()

    def snap(self) -> None:
        """Take a snapshot of what is applied; it is kept behind the batches that wait already."""
        try:
            snapshot = self.raft.snapshot(self.client.machine.image())
        except ProposalRefused:
            return
        machine, world = self.client.machine, self.host.world
        world.watch.emit(Snapped(self.host.node, snapshot, machine.digest, False, machine.applied))
        world.counts["snapshots taken"] += 1
        self._queue(snapshot)

    def pump(self) -> None:
        """Take every Ready and do what the package docstring of the core asks for."""
        for _ in range(100):
            ready = self.raft.ready()
            if ready is None:
                self.host.watch_lease(self)
                return
            self._perform(ready)
        raise AssertionError("the core does not come to rest")

    def when_awake(self, action: Callable[[Process], object]) -> None:
        """Run an action now, or when the pause is over; never in a dead process."""
        if self.dead:
            return
        world = self.host.world
        if world.now < self.paused_until:
            world.later(self.paused_until - world.now, lambda: self.when_awake(action))
        else:
            action(self)

    def _perform(self, ready: Ready) -> None:
        host, world = self.host, self.host.world
        for outgoing in ready.send_now:
            world.post(host, outgoing)
        for event in ready.events:
            if event.kind is EventKind.ROLE_CHANGED and event.detail == Role.LEADER:
                self._elected(event.term)
            world.counts[f"event {event.kind}"] += 1
        if ready.token is not None:
            self._write(ready)
        assert ready.token is not None or not ready.send_after_sync
        if ready.snapshot is not None:
            self._restore(ready.snapshot)
        if ready.committed:
            self._apply(ready)
        for read in ready.reads:
            world.watch.emit(ReadDone(host.node, read.context, read.index))
            world.counts["reads"] += read.index is not None
            self.client.read_done(read)

    def _write(self, ready: Ready) -> None:
        host = self.host
        log = self.raft._parts.state.log
        first = ready.entries[0].index if ready.entries else None
        host.world.watch.emit(
            Wrote(
                host.node,
                self.leads,
                ready.truncate_from,
                log.term_at(Index(first - 1)) if first is not None else None,
                ready.entries,
                host.store.durable,
            )
        )
        host.trail.wrote(ready, leading=self.leads, commit=log.commit)
        host.store.write(ready)
        self._queue(ready)

    def _queue(self, work: Ready | Snapshot) -> None:
        self._unsynced.append(work)
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
        store, done = self.host.store, 0
        try:
            for work in self._unsynced[:covered]:
                if isinstance(work, Snapshot):
                    store.compact(work)
                else:
                    store.sync()
                done += 1
                self.host.world.watch.emit(Synced(self.host.node, store.durable))
        except DiskFull:
            # The very same is asked again once there is room.
            self.host.world.counts["full disks"] += 1
            self.host.world.later(self.host.world.plan.e_ns, store.heal)
            covered = done
        except WalFailed:
            # Nothing since the last good sync may be trusted: the node stops itself.
            self.host.world.counts["disk failures"] += 1
            self.host.crash()
            return
        self.when_awake(lambda process: process.after_sync(covered))

    def after_sync(self, covered: int) -> None:
        """Batches are durable: what depends on them may leave. The next sync covers the rest."""
        done, self._unsynced = self._unsynced[:covered], self._unsynced[covered:]
        if self._unsynced:
            self._sync()
        for work in done:
            if isinstance(work, Snapshot):
                self.raft.compacted(work, self.now)
            else:
                for outgoing in work.send_after_sync:
                    self.host.world.post(self.host, outgoing)
                assert work.token is not None
                self.raft.persisted(work.token, self.now)
            self.pump()

    def _restore(self, snapshot: Snapshot) -> None:
        machine, world = self.client.machine, self.host.world
        before = machine.applied
        machine.restore(snapshot)
        world.counts["snapshots installed"] += 1
        world.watch.emit(Snapped(self.host.node, snapshot, machine.digest, True, before))
        self.client.serve_reads()

    def _apply(self, ready: Ready) -> None:
        host, world, state = self.host, self.host.world, self.raft._parts.state
        config, disks, leads = self.config, world.disks(), self.leads
        for entry in ready.committed:
            world.watch.emit(Applied(host.node, state.term, leads, entry, config, disks))
            self.client.apply(entry)
        world.counts["applied"] += len(ready.committed)
        if leads:
            world.watch.emit(Committed(host.node, state.term, ready.committed[-1].term))
        self.client.serve_reads()
        host.applied(self)

    def _elected(self, term: Term) -> None:
        """The configuration that elected it is the one before its first batch as leader."""
        host, world, log = self.host, self.host.world, self.raft._parts.state.log
        world.counts["elections"] += 1
        possible = tuple(host.trail.relevant(log.commit))
        applied, disks = log.applied.index, world.disks()
        world.watch.emit(Led(host.node, term, log, applied, possible[-1], possible, disks))

    def _look_at_progress(self, peer: NodeId) -> None:
        parts, world = self.raft._parts, self.host.world
        progress, other = parts.replication.progress.get(peer), world.hosts.get(peer)
        if progress is not None and other is not None:
            log, term = parts.state.log, parts.state.term
            world.watch.emit(
                Acked(
                    self.host.node,
                    term,
                    log,
                    peer,
                    progress.match,
                    progress.next,
                    other.store.durable,
                )
            )

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

    def _renew_later(self) -> None:
        self.renew()
        self.host.world.later(
            self.host.world.plan.timing.lease_ttl_ns // 10,
            lambda: self.when_awake(lambda process: process._renew_later()),
        )

    def renew(self) -> None:
        """Ask for one more ttl, if an epoch is held."""
        self.raft.holder.renew(self.now)
        self.pump()
