"""One stream of WAL between two simulated servers: its two ends, what is lost, what is confirmed.

Start reading at `WalSender.push`, then `Receiver.take`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ramd.domain.sync import SyncMember
from tests.support.ha_net import WAL
from tests.support.ha_wal import Record, history_to

if TYPE_CHECKING:
    from tests.support.ha_process import Postmaster

TIMEOUT_S = 5.0
KEEPALIVE_S = 1.0


class WalSender:
    """The sending end of one stream, a process of the upstream."""

    def __init__(self, server: Postmaster, receiver: Receiver, member: SyncMember) -> None:
        self.server = server
        self.receiver = receiver
        self.member = member
        self.conf = server.conf
        self.loaded = server.reloads
        self.sent = receiver.server.host.disk.flushed
        self.acked = self.sent
        self.flushed = 0
        self.heard_s = server.now_s
        self.over = False

    @property
    def counts(self) -> bool:
        """It is one of those that may confirm, by its own configuration."""
        return self.member in self.conf.target.members

    def tick(self) -> None:
        """Sign of life; what was lost on the way is sent again."""
        if self.over:
            return
        if self.server.now_s - self.heard_s > TIMEOUT_S:
            self.end()
            return
        self.sent = min(self.sent, max(self.acked, self.receiver.server.host.disk.flushed))
        self.push(always=True)
        self.server.actor.later(KEEPALIVE_S, self.tick)

    def push(self, *, always: bool = False) -> None:
        """Send what is on disk and was not sent."""
        disk, receiver = self.server.host.disk, self.receiver
        if self.over or (disk.flushed == self.sent and not always):
            return
        start, records = self.sent, disk.wal[self.sent : disk.flushed]
        self.sent = disk.flushed
        line = disk.line()
        self._post(receiver.server, lambda: receiver.take(start, records, line))

    def reply(self, count: int, lsn: int) -> None:
        """The replica has this on its disk."""
        if self.over:
            return
        self.acked, self.flushed = max(self.acked, count), max(self.flushed, lsn)
        self.heard_s = self.server.now_s
        self.server.release_by(self)

    def end(self) -> None:
        """This process ends; the other side notices if a packet reaches it."""
        if self.over:
            return
        self.over = True
        self.server.senders.remove(self)
        receiver = self.receiver
        self._post(receiver.server, receiver.end)

    def _post(self, to: Postmaster, deliver: Callable[[], None]) -> None:
        me, host = self.server.host, to.host
        me.world.network.send(me.node_id, host.node_id, to.actor, deliver, WAL)


class Receiver:
    """The receiving end of one stream, a process of the replica."""

    def __init__(self, server: Postmaster) -> None:
        self.server = server
        self.sender: WalSender | None = None
        self.heard_s = server.now_s
        self.over = False

    def take(self, start: int, records: list[Record], line: tuple[tuple[int, int], ...]) -> None:
        """Write what comes, flush it a moment later, say so."""
        if self.over:
            return
        host, disk = self.server.host, self.server.host.disk
        self.heard_s = self.server.now_s
        fresh = records[max(0, len(disk.wal) - start) :] if start <= len(disk.wal) else []
        for record in fresh:
            if record.timeline != disk.timeline:
                disk.timeline = record.timeline
                disk.history = history_to(line, record.timeline)
            disk.wal.append(record)
        disk.torn = 0
        if fresh:
            host.world.watch.received(host, disk)
        self.server.actor.later(host.flush_s(), self._flushed, len(disk.wal))

    def _flushed(self, count: int) -> None:
        server, disk = self.server, self.server.host.disk
        disk.flushed = max(disk.flushed, min(count, len(disk.wal)))
        server.streamed = True
        server.replay_soon()
        for sender in list(server.senders):
            sender.push()
        current, lsn = self.sender, disk.end
        if self.over or current is None:
            return
        me, up = server.host, current.server.host
        reached = disk.flushed
        me.world.network.send(
            me.node_id, up.node_id, current.server.actor, lambda: current.reply(reached, lsn), WAL
        )

    def end(self) -> None:
        """No WAL is taken any more. The last packet may have ended within a record."""
        if self.over:
            return
        self.over = True
        server = self.server
        if server.receiver is self:
            server.receiver = None
        self._flush_the_rest()
        disk, rng = server.host.disk, server.host.world.rng
        source = self.sender.server.host.disk if self.sender is not None else disk
        count = len(disk.wal)
        more = count == disk.flushed < source.flushed and source.holds(disk, count)
        if more and rng.random() < 0.3:
            disk.torn = rng.randrange(source.wal[count].end - disk.end)

    def _flush_the_rest(self) -> None:
        """A receiver flushes what it has written before it ends, unless the disk hangs."""
        disk = self.server.host.disk
        if self.server.host.flush_s() > TIMEOUT_S:
            del disk.wal[disk.flushed :]
        disk.flushed = len(disk.wal)
        self.server.streamed = True
        self.server.replay_soon()
