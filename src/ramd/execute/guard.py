"""The one watch over the lease of the epoch that a server is open for, whatever else goes on.

A server that checks the lease itself (`ports.server.fence.guards`) is told each renewal and left
alone: when the lease ends it refuses writes by itself, and takes them again when it is renewed. Any
other server is stopped before the lease ends: the stand-in. Must not live here: the question
whether to be primary. Start reading at `Guard.run`.

The stand-in wakes at the moment the fence would have to begin, and at least every `LOOK_MS` because
the timers of the event loop stand still while the host is suspended and CLOCK_BOOTTIME does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ramd import events
from ramd.domain.errors import RamdError
from ramd.domain.server import StopMode
from ramd.execute.context import Ports
from ramd.execute.lease_note import LeaseNote
from ramd.execute.release import release

LOOK_MS = 100
PUBLISH_MS = 50
"""How often a lease is published to a server that checks it itself."""
BEAT_MS = 250
"""How often the server is told that its daemon lives, at least."""
RETRY_MS = 200
LATCH_MS = 5_000
MARGIN_MS = 400
NS_PER_MS = 1_000_000


def margin_of(ttl_ms: int, margin_ms: int = MARGIN_MS) -> int:
    """How long before the deadline of a lease of `ttl_ms` the fence begins."""
    return min(margin_ms, ttl_ms // 4)


Interrupt: TypeAlias = Callable[[], asyncio.Task[None] | None]


@dataclass(slots=True)
class Watched:
    """The epoch for which the server may be open (0: none) and the last deadline known for it."""

    epoch: int = 0
    deadline_ns: int = 0
    start_number: int = 0
    """Which start of the server was proven to be what the epoch grants; 0: none, so nothing is
    published."""
    lapsed: bool = False
    """It was published to, and the lease has ended since."""
    waiting_number: int = 0
    """Start that is proven but for its synchronous set; 0: none."""


class Guard:
    """Watches the lease of the epoch for which the server is open, and stops the server in time.

    `ttl_ms` is the lease's full length; the fence begins `margin_ms`, but at most a quarter of the
    ttl, before the deadline. The deadline is kept in `note` for the next run of the daemon. All
    calls from the control loop's thread.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        ttl_ms: int,
        margin_ms: int = MARGIN_MS,
        note: LeaseNote | None = None,
    ) -> None:
        assert ttl_ms > 0 and margin_ms > 0
        self._ports = ports
        self._ttl_ns = ttl_ms * NS_PER_MS
        self._margin_ms = margin_of(ttl_ms, margin_ms)
        self._note = note
        self._watched = Watched()
        self._interrupt: Interrupt = lambda: None
        self._armed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def watching(self) -> int:
        """The epoch under watch, 0 if none."""
        return self._watched.epoch

    @property
    def margin_ms(self) -> int:
        return self._margin_ms

    def attach(self, interrupt: Interrupt) -> None:
        """When a fence begins, `interrupt` cancels what is under way and returns it."""
        self._interrupt = interrupt

    def left_ns(self, epoch: int) -> int:
        """How long the server may still be open for `epoch`: 0 unless its lease is in hand."""
        granted_ns = self._granted_ns(epoch)
        return max(0, granted_ns - self._margin_ms * NS_PER_MS - self._ports.clock())

    @property
    def opened(self) -> bool:
        """Leases of the watched epoch are published to the server that runs now."""
        number = self._watched.start_number
        return number != 0 and number == self._ports.server.fence.start_number()

    def watch(self, epoch: int, *, until_ns: int | None = None) -> None:
        """From now on the server may be open for `epoch`; called before it is opened.

        While no lease of it is in hand it may be open until `until_ns`, by default for one ttl.
        """
        assert epoch > 0
        if self._watched.epoch == epoch:
            return
        if self._watched.start_number:
            self._ports.server.fence.shut(0)
        unrenewed_ns = self._ports.clock() + self._ttl_ns
        self._watched = Watched(
            epoch=epoch, deadline_ns=unrenewed_ns if until_ns is None else until_ns
        )
        self._armed.set()

    def adopt(self, epoch: int) -> None:
        """Watch a server found running: it may be open for as long as its last daemon noted, and
        is stopped at once if nothing is noted. Without any note (tests) one ttl is given."""
        noted_ns = self._note.deadline_ns(epoch) if self._note is not None else None
        self.watch(epoch, until_ns=noted_ns)

    def open(self, epoch: int, number: int) -> None:
        """The start `number` of the server is proven to be what `epoch` grants: it may acknowledge
        writes for as long as the lease lasts, from the moment on from which its synchronous set is
        proven, too. Costs nothing if it is open already. `number` is what `fence.start_number` said
        before the proof was asked for: a server that has begun anew since is proven again first."""
        self.watch(epoch)
        if number and self._watched.start_number != number:
            self._watched.waiting_number = number
            self._open_if_synced()

    def shut(self, epoch: int, *, drain_at_ns: int = 0) -> None:
        """From now on nothing is acknowledged, and nothing of `epoch` ever again (0: whatever is
        left of a server that ended): in this process and in the page at once. The caller makes it
        durable. `drain_at_ns`: see Fence."""
        self._watched.start_number = self._watched.waiting_number = 0
        self._ports.store.latch_now(epoch)
        self._ports.server.fence.shut(epoch, drain_at_ns=drain_at_ns)

    def rest(self) -> None:
        """No process of the server is left, or it cannot write: nothing to watch."""
        if self._watched.epoch:
            self._ports.server.fence.shut(0)
        self._watched = Watched()
        self._armed.clear()

    async def idle(self) -> None:
        """Returns when no fence is under way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            fence = self._ports.server.fence
            fence.beat(self._ports.clock())
            if not self._watched.epoch:
                await self._arming()
                continue
            if fence.guards:
                self._open_if_synced()
                self._publish()
                await self._publishing()
                continue
            left_ns = self._deadline() - self._margin_ms * NS_PER_MS - self._ports.clock()
            if left_ns > 0:
                await asyncio.sleep(min(left_ns / 1e9, LOOK_MS / 1000))
            else:
                await self._fence(self._watched.epoch)

    def _open_if_synced(self) -> None:
        ports, watched = self._ports, self._watched
        number = watched.waiting_number
        if not number or ports.unsynced(watched.epoch):
            return
        watched.waiting_number = 0
        # The page still bears the number of a server that has ended.
        if ports.server.running and number == ports.server.fence.start_number():
            watched.start_number, watched.lapsed = number, False
            events.emit(events.LeasePublished(epoch=watched.epoch))
            self._publish()
            ports.changed()

    async def _publishing(self) -> None:
        """Returns when the lease is to be published again, or the set may have been proven."""
        synced = self._ports.synced
        synced.clear()
        try:
            async with asyncio.timeout(PUBLISH_MS / 1000):
                await synced.wait()
        except TimeoutError:
            return

    async def _arming(self) -> None:
        """Returns when there is something to watch, or a sign of life is due."""
        try:
            async with asyncio.timeout(BEAT_MS / 1000):
                await self._armed.wait()
        except TimeoutError:
            return

    def _publish(self) -> None:
        """Tell the server the lease as it is now, if this very start of it was opened."""
        ports, watched = self._ports, self._watched
        deadline_ns = self._deadline()
        if not watched.start_number:
            return
        if not ports.server.running or ports.server.fence.start_number() != watched.start_number:
            # It ended, or began anew by itself after a crash of one of its processes: what runs
            # now is proven again first.
            watched.start_number = 0
            ports.changed()
            return
        granted_ns = self._granted_ns(watched.epoch)
        if granted_ns:
            # Never the time that the stand-in gives while no lease is in hand: nobody granted it.
            ports.server.fence.publish(granted_ns, watched.start_number)
        lapsed = ports.clock() >= deadline_ns
        if lapsed != watched.lapsed:
            watched.lapsed = lapsed
            event = events.LeaseLapsed if lapsed else events.LeasePublished
            events.emit(event(epoch=watched.epoch))
            ports.changed()

    def _granted_ns(self, epoch: int) -> int:
        """Deadline of the lease of `epoch` in hand; 0 without one, and once it was given back."""
        held, deadline_ns = self._ports.consensus.lease()
        return deadline_ns if held == epoch > self._ports.store.released_epoch else 0

    def _deadline(self) -> int:
        watched = self._watched
        held, deadline_ns = self._ports.consensus.lease()
        if held == watched.epoch and deadline_ns:
            watched.deadline_ns = deadline_ns
            if self._note is not None:
                self._note.write(held, deadline_ns)
        return watched.deadline_ns

    async def _fence(self, epoch: int) -> None:
        """Latch, stop, prove dead, release. The latch is bounded: a disk that hangs must not keep
        the server open; only the release waits for it."""
        ports, begun_ns = self._ports, self._ports.clock()
        left_ns = self._watched.deadline_ns - begun_ns
        self._idle.clear()
        try:
            events.emit(events.FenceBegun(epoch=epoch, left_ms=left_ns // NS_PER_MS))
            self.shut(epoch)
            cut = self._interrupt()
            latching = asyncio.ensure_future(ports.store.latch(epoch))
            first = {latching} if cut is None else {latching, cut}
            await asyncio.wait(first, timeout=self._margin_ms / 4 / 1000)
            await self._stop(epoch, cut)
            self._report(epoch, begun_ns)
            await self._release(epoch, latching)
            self.rest()
        finally:
            self._idle.set()
            ports.changed()

    async def _stop(self, epoch: int, cut: asyncio.Task[None] | None) -> None:
        """Returns only when no process of the server is left, and what was cut short cannot start
        another; there is nothing better to do."""
        ports = self._ports
        while True:
            try:
                await ports.server.stop(StopMode.IMMEDIATE, timeout_ms=self._margin_ms // 2)
                await ports.server.data.kill_remains(timeout_ms=ports.timing.kill_ms)
            except (RamdError, OSError) as error:
                events.emit(events.FenceStuck(epoch=epoch, why=repr(error)))
            else:
                if not ports.server.running and (cut is None or cut.done()):
                    return
            await asyncio.sleep(RETRY_MS / 1000)

    def _report(self, epoch: int, begun_ns: int) -> None:
        now_ns = self._ports.clock()
        left_ns = self._watched.deadline_ns - now_ns
        events.emit(
            events.FenceEnded(
                epoch=epoch,
                duration_ms=(now_ns - begun_ns) // NS_PER_MS,
                left_ms=left_ns // NS_PER_MS,
                in_time=left_ns >= 0,
            )
        )

    async def _release(self, epoch: int, latching: asyncio.Future[None]) -> None:
        ports = self._ports
        try:
            async with asyncio.timeout(LATCH_MS / 1000):
                await asyncio.shield(latching)
            await release(ports, epoch, "lease ended", scan_ms=ports.timing.wal_scan_ms)
        except (OSError, TimeoutError) as error:
            # Not latched on disk, so not released: the epoch runs out by itself, and the plan
            # gives it up as soon as the disk takes the latch.
            events.emit(events.LocalFactsUnusable(path="local.json", why=repr(error)))
