"""One run of a simulated PostgreSQL server: recovery, streams, synchronous waits.

What a signal or a packet starts goes on by itself, whatever becomes of the daemon. Every process
that can release a waiting commit goes by the configuration that it has loaded itself. Must not
live here: what the daemon may ask (`ha_server`). Start reading at `Postmaster`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramd.domain.sync import SyncConf, SyncMember
from tests.support.ha_stream import TIMEOUT_S, Receiver, WalSender
from tests.support.ha_time import Actor
from tests.support.ha_wal import ENDLESS, Record, cannot_stream

if TYPE_CHECKING:
    from tests.support.ha_host import Host

RETRY_S = 0.2


@dataclass(slots=True)
class Waiter:
    """A commit that is on disk here and waits for replicas."""

    lsn: int
    done: Callable[[], None]
    cancelled: Callable[[], None]


class Postmaster:
    """A running server. `actor`: it and its children; `backends`: sessions, which may live on."""

    pids = itertools.count(1000)

    def __init__(self, host: Host, *, primary: bool) -> None:
        self.host = host
        self.primary = primary
        self.pid = next(self.pids)
        self.actor = Actor(f"server {host.node_id}.{self.pid}")
        self.backends = Actor(f"backends {host.node_id}.{self.pid}")
        self.exited = asyncio.Event()
        self.accepting = False
        self.streamed = False
        """A receiver has told where received WAL ends."""
        self.replayed = min(host.disk.restart, host.disk.flushed)
        self.upstream = host.conf.upstream
        self.copy = host.conf.copy
        self.conf: SyncConf = host.conf.sync
        """As the postmaster has loaded it: what a new child begins with."""
        self.checkpointer: SyncConf = host.conf.sync
        self.reloads = self.loaded = 0
        """Number of the last reload, and of the one that the checkpointer has come to."""
        self.released = 0
        self.senders: list[WalSender] = []
        self.receiver: Receiver | None = None
        self.waiters: list[Waiter] = []
        self.recovered_to = 0
        self.given = False
        """It is given WAL of another node's, as from an archive."""
        self.open_xids = 0
        """Sessions in a transaction that has written something."""
        self.actor.call(self._recover)

    # --- short words -------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def defined(self) -> bool:
        """The shared flag: commits wait."""
        return self.checkpointer.blocking or bool(self.checkpointer.target.members)

    @property
    def generation(self) -> int:
        """What every process that can release a commit goes by, at least."""
        loaded = [sender.conf.generation for sender in self.senders]
        return min([self.checkpointer.generation, *loaded])

    @property
    def answers(self) -> bool:
        """It takes connections now."""
        return self.accepting and not self.actor.frozen and not self.actor.dead

    # --- recovery ----------------------------------------------------------------------------

    def _recover(self) -> None:
        """Replay what is on disk, a few steps, then accept connections."""
        disk, host = self.host.disk, self.host
        left = disk.flushed - self.replayed
        if left > 0:
            self.replayed += max(1, left // 4)
            self.actor.later(host.replay_s() + 0.02, self._recover)
        elif self.primary:
            self.accepting = True
            self.recovered_to = disk.end
        self._maybe_accept()
        if left <= 0 and not self.primary:
            self._connect_later(0.01)

    def _maybe_accept(self) -> None:
        disk = self.host.disk
        disk.minimum = max(disk.minimum, self.replayed)
        whole = self.replayed >= disk.minimum and disk.lsn_at(self.replayed) >= disk.consistent_at
        if not self.primary and whole:
            self.accepting = True

    def replay_soon(self) -> None:
        self.actor.later(self.host.replay_s(), self._replay, self.host.disk.flushed)

    def _replay(self, count: int) -> None:
        if not self.primary:
            self.replayed = max(self.replayed, min(count, self.host.disk.flushed))
            self._maybe_accept()

    def take_given(self, records: list[Record]) -> None:
        """What the archive has and is not here yet, record after record."""
        disk = self.host.disk
        if self.primary or not self.given:
            return
        for record in records:
            if record.end > disk.end and record.timeline == disk.timeline:
                disk.wal.append(record)
                disk.flushed, disk.torn = len(disk.wal), 0
        self.replay_soon()

    # --- streaming: the replica's side ---------------------------------------------------------

    def _connect_later(self, delay_s: float = RETRY_S) -> None:
        self.actor.later(delay_s, self._connect)

    def _connect(self) -> None:
        """One try; again and again, for as long as it is a replica."""
        if self.primary:
            return
        receiver = self.receiver
        if receiver is not None and self.now_s - receiver.heard_s > TIMEOUT_S:
            receiver.end()
        if self.receiver is None and self.upstream is not None:
            self._dial(self.upstream.node_id)
        self._connect_later()

    def _dial(self, upstream: int) -> None:
        host, world = self.host, self.host.world
        source = world.hosts[upstream]
        server = source.server
        if server is None or not server.answers or self.replayed < host.disk.flushed:
            return
        if not world.network.both(host.node_id, upstream):
            return
        if not server.free_slot(self) or cannot_stream(host.disk, source.disk):
            return
        host.disk.lose_unflushed()
        if not source.disk.holds(host.disk, host.disk.flushed):
            world.watch.jammed(host, source)
            return
        receiver = self.receiver = Receiver(self)
        member = SyncMember(node_id=host.node_id, copy=self.copy)
        sender = WalSender(server, receiver, member)
        receiver.sender = sender
        server.senders.append(sender)
        server.actor.call(sender.tick)

    def free_slot(self, receiver: Postmaster) -> bool:
        """The slot of that node has no walsender; one whose other end is seen to be gone ends."""
        node_id = receiver.host.node_id
        if not self.host.world.slots:
            return True
        for sender in list(self.senders):
            if sender.member.node_id != node_id:
                continue
            if not sender.receiver.over and not sender.receiver.server.actor.dead:
                return False
            sender.end()
        return True

    # --- streaming: the primary's side -------------------------------------------------------

    def flush(self, count: int) -> None:
        """WAL up to there is on disk: replicas get it."""
        disk = self.host.disk
        disk.flushed = max(disk.flushed, min(count, len(disk.wal)))
        if not self.actor.dead:
            for sender in list(self.senders):
                self.actor.call(sender.push)

    def release_by(self, sender: WalSender) -> None:
        """What this walsender lets go, by the configuration that it has loaded."""
        conf = sender.conf
        if conf.blocking or not sender.counts:
            return
        flushed = sorted((s.flushed for s in self.senders if s.counts), reverse=True)
        if len(flushed) >= conf.target.k:
            self.release(flushed[conf.target.k - 1])

    def release(self, lsn: int) -> None:
        self.released = max(self.released, lsn)
        ready = [w for w in self.waiters if w.lsn <= self.released]
        self.waiters = [w for w in self.waiters if w.lsn > self.released]
        for waiter in ready:
            self.backends.call(waiter.done)

    def cancel_waits(self) -> None:
        """Somebody cancels what waits for replicas."""
        everybody, self.waiters = self.waiters, []
        for waiter in everybody:
            self.backends.call(waiter.cancelled)

    # --- configuration -----------------------------------------------------------------------

    def reload(self) -> None:
        """SIGHUP: each process loads the file when it comes to it."""
        host, conf = self.host, self.host.conf
        self.actor.later(host.reload_s(), self._load_receiver, conf.upstream)
        self.conf = conf.sync
        self.reloads += 1
        late, number = host.reload_s(stale=True), self.reloads
        self.actor.later(late, self._load_checkpointer, conf.sync, number)
        for sender in self.senders:
            late = host.reload_s(stale=True)
            self.actor.later(late, self._load_sender, sender, conf.sync, number)

    def _load_receiver(self, upstream: object) -> None:
        conf = self.host.conf
        if conf.upstream != upstream:
            return  # a later reload has come
        moved, self.upstream, self.copy = self.upstream != upstream, conf.upstream, conf.copy
        if moved and self.receiver is not None:
            self.receiver.end()

    def _load_checkpointer(self, conf: SyncConf, number: int) -> None:
        if number < self.loaded:
            return  # it has read a later file
        self.checkpointer, self.loaded = conf, number
        if not self.defined:
            everybody, self.waiters = self.waiters, []
            for waiter in everybody:
                self.backends.call(waiter.done)

    def _load_sender(self, sender: WalSender, conf: SyncConf, number: int) -> None:
        if number >= sender.loaded:
            sender.conf, sender.loaded = conf, number

    # --- promotion and end -------------------------------------------------------------------

    def promote(self, timeline: int) -> None:
        """The signal came: replay the rest, begin the timeline, become primary."""
        disk = self.host.disk
        if self.primary:
            return
        if self.receiver is not None:
            self.receiver.end()
        disk.lose_unflushed()
        if self.replayed < disk.flushed:
            self.replayed = disk.flushed
            self.actor.later(self.host.replay_s() + 0.02, self.promote, timeline)
            return
        world = self.host.world
        number = world.timeline_of(self.host, timeline)
        disk.history = (*disk.history, (disk.timeline, disk.end))
        disk.timeline = number
        disk.append(50)
        disk.flushed = len(disk.wal)
        disk.standby_signal = False
        self.host.conf.upstream = None
        self.primary, self.accepting = True, True
        self.recovered_to = disk.end
        for sender in list(self.senders):
            sender.end()
        world.tally["promotions"] += 1
        world.watch.promoted(self.host)

    def drain(self) -> None:
        """Sessions with an xid end, if that is still wanted."""
        if self.host.page.draining:
            self.end_sessions()

    def end_sessions(self) -> None:
        """Every session of now ends; their WAL stays."""
        self.backends.kill()
        self.backends = Actor(f"backends {self.host.node_id}.{self.pid}")
        self.waiters.clear()
        self.open_xids = 0

    def crash_cycle(self) -> None:
        """A child died: all sessions and streams end, memory is gone, it recovers by itself."""
        self.end_sessions()
        for sender in list(self.senders):
            sender.end()
        if self.receiver is not None:
            self.receiver.end()
        self.released = 0
        self.accepting = False
        self.recovered_to = ENDLESS
        disk = self.host.disk
        disk.lose_unflushed()
        self.replayed = min(disk.restart, disk.flushed)
        self.checkpointer = self.conf = self.host.conf.sync
        self.loaded = self.reloads
        self.host.page.begin(self.pid)
        self.actor.later(0.3, self._recover)
