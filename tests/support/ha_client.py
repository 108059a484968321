"""Clients that write one row after another and remember which were acknowledged.

They reach every living server, whatever the network between hosts does: whoever would acknowledge a
write finds somebody who asks for one. Start reading at `Client.turn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.ha_process import Postmaster, Waiter
from tests.support.ha_time import Actor
from tests.support.ha_wal import Record

if TYPE_CHECKING:
    from tests.support.ha_world import World

GIVE_UP_S = 2.5
REFUSED_S = 0.1


class Client:
    """One session after another, one write at a time."""

    def __init__(self, world: World, pace_s: float) -> None:
        self.world = world
        self.actor = Actor("client")
        self.pace_s = pace_s
        self.turns = 0
        self.at = 0
        self.acked = 0

    def start(self) -> None:
        self.actor.call(self.turn)

    def turn(self) -> None:
        """Ask the server that answered last, or the next one."""
        self.turns += 1
        number, world = self.turns, self.world
        nodes = sorted(world.hosts)
        server = world.hosts[nodes[self.at % len(nodes)]].server
        if server is None or server.actor.frozen or not Session(self, server, number).begin():
            self.at += 1
            self.actor.later(REFUSED_S * world.rng.uniform(0.5, 1.5), self._next, number)
            return
        self.actor.later(GIVE_UP_S, self._lost, number)

    def answered(self, number: int) -> None:
        """The write was acknowledged."""
        self.acked += 1
        self.actor.later(self.pace_s * self.world.rng.uniform(0.2, 1.8), self._next, number)

    def closed(self, number: int) -> None:
        """The session was closed without an answer."""
        self.actor.later(REFUSED_S, self._lost, number)

    def _lost(self, number: int) -> None:
        if number == self.turns and self.acked_turn != number:
            self.at += 1
            self._next(number)

    def _next(self, number: int) -> None:
        if number == self.turns and not self.world.calm_clients:
            self.turn()

    acked_turn = 0


class Session:
    """One write: inserted, flushed, confirmed by replicas, checked, acknowledged."""

    def __init__(self, client: Client, server: Postmaster, number: int) -> None:
        self.client = client
        self.server = server
        self.number = number
        self.record: Record | None = None

    def begin(self) -> bool:
        """The statement runs; False if it is refused."""
        server = self.server
        host = server.host
        if not server.accepting or not server.primary or not host.acknowledges(server):
            return False
        world = host.world
        world.uid += 1
        self.record = host.disk.append(world.rng.choice(world.sizes), world.uid)
        server.open_xids += 1
        server.backends.later(host.fsync_s(), self._flushed, len(host.disk.wal))
        return True

    def _flushed(self, count: int) -> None:
        server, record = self.server, self.record
        assert record is not None
        server.flush(count)
        world = server.host.world
        waits = world.raises_weak or not world.weak_sessions
        if server.defined and record.end > server.released and waits:
            world.tally["commits that waited"] += 1
            server.waiters.append(Waiter(record.end, self._confirmed, self._cancelled))
        else:
            self._confirmed()

    def _cancelled(self) -> None:
        """The wait was cancelled: PostgreSQL warns and confirms, its extension ends the session."""
        server, client = self.server, self.client
        if not server.host.world.checks_waits:
            self._confirmed()
            return
        server.open_xids -= 1
        client.actor.call(client.closed, self.number)

    def _confirmed(self) -> None:
        """The check after the flush: without a lease the session ends instead of answering."""
        server, record, client = self.server, self.record, self.client
        assert record is not None
        server.open_xids -= 1
        if server.host.acknowledges(server):
            client.acked_turn = self.number
            server.host.world.acked(server, record)
            client.actor.call(client.answered, self.number)
        else:
            client.actor.call(client.closed, self.number)
