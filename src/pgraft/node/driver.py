"""Turns the core: every input in, every `Ready` out, in the order the core demands.

Lives here: step → persist → send → apply, the one timer, the measuring of the loop's own pauses.
Must not live here: rules of Raft, proposals and their waiting callers (`shell`, `waiting`).
Start reading at `Driver._pump`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgraft.core.raft import Raft
from pgraft.core.types import (
    CoreEvent,
    Entry,
    Message,
    Nanos,
    NodeId,
    Outgoing,
    ReadDone,
    Ready,
)
from pgraft.net.transport import Transport
from pgraft.node.counts import Counts
from pgraft.node.writer import LogWriter, WriterEvents
from pgraft.storage.wal import Wal, WalBatch

_LOG = logging.getLogger("pgraft.node")
READIES_MAX: Final = 64
"""Readys taken in one turn of the loop; the rest waits for the next, so that input is heard."""
PAUSE_NS: Final = 50_000_000
"""A timer that fires this much late means that the loop stood still."""
DRAIN_TURNS: Final = 2
"""Turns of the loop in which queued input is taken after a pause, before time is told."""


def boottime_ns() -> Nanos:
    """The clock of all decisions here: nanoseconds since boot, suspend included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEvents:
    """What the driver brings to the shell, in the event loop.

    `failed` is called at most once; afterwards the driver neither sends nor applies anything.
    """

    apply: Callable[[Entry], None]
    read: Callable[[ReadDone], None]
    event: Callable[[CoreEvent], None]
    failed: Callable[[BaseException], None]


@dataclass(slots=True)
class LoopLag:
    """How late timers fire. `last_ns` is the latest, `max_ns` the longest since the start."""

    last_ns: Nanos = 0
    max_ns: Nanos = 0

    def note(self, lag_ns: Nanos) -> None:
        """Take one measurement."""
        self.last_ns = max(0, lag_ns)
        self.max_ns = max(self.max_ns, self.last_ns)


class _Timer:
    """One timer of the loop, which is moved only when it must fire earlier.

    Followers push their deadline back with every beat; letting the old timer fire and look again
    costs less than setting it anew each time.
    """

    __slots__ = ("_clock", "_due_ns", "_fire", "_handle")

    def __init__(self, clock: Callable[[], Nanos], fire: Callable[[Nanos], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None
        self._due_ns: Nanos = 0

    def arm(self, due_ns: Nanos) -> None:
        """Fire at `due_ns` or earlier; a timer that already fires earlier is left as it is."""
        if self._handle is not None:
            if self._due_ns <= due_ns:
                return
            self._handle.cancel()
        self._due_ns = due_ns
        delay_s = max(0, due_ns - self._clock()) / 1e9
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._fired)

    def cancel(self) -> None:
        """Never fire."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fired(self) -> None:
        self._handle = None
        self._fire(self._clock() - self._due_ns)


class Driver:
    """Owns the turning of one `Raft`. Every call of the core goes through `do` or the inputs below.

    An exception out of the core or out of `apply` is a bug or broken safety: the driver stops for
    good and says so, because a member that goes on after it could promise what it cannot keep.
    """

    def __init__(
        self,
        raft: Raft,
        wal: Wal,
        transport: Transport,
        events: DriverEvents,
        *,
        clock: Callable[[], Nanos],
        beat_ns: Nanos,
    ) -> None:
        self.raft = raft
        self.lag = LoopLag()
        self.counts = Counts()
        self.clock = clock
        self._transport = transport
        self._events = events
        self._io = _Io(self, wal, beat_ns)

    def start(self) -> None:
        """Take the first Readys and arm the timer."""
        self._io.running = True
        self.wake()

    async def stop(self) -> None:
        """Stop turning, finish the write under way and close the log."""
        self.halt()
        await self._io.writer.close()

    def halt(self) -> None:
        """Neither send nor apply anything any more."""
        self._io.running = False
        self._io.timer.cancel()

    @property
    def running(self) -> bool:
        """Whether what is put into the core has any effect: started, and not halted since."""
        return self._io.running

    def on_message(self, sender: NodeId, message: Message) -> None:
        """An input: a message from an authenticated peer."""
        self._feed(self._step, sender, message)

    def on_link(self, peer: NodeId, up: bool) -> None:
        """An input: the transport's hint about a link."""
        self._feed(self.raft.link, peer, up)

    def wake(self) -> None:
        """Something was put into the core: take what comes out, once per turn of the loop."""
        io = self._io
        if io.running and not io.scheduled:
            io.scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def fail(self, error: BaseException) -> None:
        """Stop for good, and say why."""
        if self._io.running:
            self.halt()
            _LOG.critical("this member stops: %s", error)
            self._events.failed(error)

    def on_durable(self, token: int) -> None:
        """An input: the batches up to this token are durable."""
        self._feed(self._durable, token)

    def on_timer(self, lag_ns: Nanos) -> None:
        """The timer fired, `lag_ns` late."""
        self.lag.note(lag_ns)
        if lag_ns > PAUSE_NS:
            # Messages that came during our own pause are in the sockets: hear them first.
            self._io.draining = True
            self._drain(DRAIN_TURNS)
        else:
            self._tick()

    def _step(self, sender: NodeId, message: Message, now: Nanos) -> None:
        self.raft.step(sender, message, now)
        self.counts.messages_taken += 1

    def _durable(self, token: int, now: Nanos) -> None:
        self._io.release_up_to(token, self._send)
        self.raft.persisted(token, now)

    def _feed(self, take: Callable[..., None], *what: object) -> None:
        if not self._io.running:
            return
        try:
            take(*what, self.clock())
        except Exception as error:  # boundary: any fault stops this member for good
            self.fail(error)
        else:
            self.wake()

    def _drain(self, turns: int) -> None:
        if turns == 0:
            self._io.draining = False
            self._tick()
        elif self._io.running:
            asyncio.get_running_loop().call_soon(self._drain, turns - 1)

    def _tick(self) -> None:
        if not self._io.running:
            return
        if self.clock() >= self.raft.next_deadline():
            self._feed(self.raft.tick)
        else:
            self._arm()

    def _arm(self) -> None:
        # Never longer than a beat, so that a pause of the loop is noticed within one.
        io = self._io
        if io.draining:
            return
        io.timer.arm(min(self.raft.next_deadline(), self.clock() + io.beat_ns))

    def _pump(self) -> None:
        self._io.scheduled = False
        try:
            for _ in range(READIES_MAX):
                if not self._io.running:
                    return
                ready = self.raft.ready()
                if ready is None:
                    break
                self._take(ready)
            else:
                self.wake()
        except Exception as error:  # boundary: any fault stops this member for good
            self.fail(error)
            return
        if self._io.running:
            self._arm()

    def _take(self, ready: Ready) -> None:
        for event in ready.events:
            self.counts.happened(event)
            self._events.event(event)
        for out in ready.send_now:
            self._send(out)
        if ready.token is not None:
            batch = WalBatch(
                truncate_from=ready.truncate_from,
                entries=ready.entries,
                hard_state=ready.hard_state,
            )
            self._io.hold(ready.token, ready.send_after_sync)
            self._io.writer.submit(ready.token, batch)
        else:
            assert not ready.send_after_sync, "messages that wait for a sync need a batch"
        for entry in ready.committed:
            self._events.apply(entry)
        for done in ready.reads:
            self._events.read(done)

    def _send(self, out: Outgoing) -> None:
        if self._transport.send(out.to, out.message):
            self.counts.sent(out.message)


class _Io:
    """What the driver writes and waits for: the writer, the held messages, the timer."""

    __slots__ = ("_held", "beat_ns", "draining", "running", "scheduled", "timer", "writer")

    def __init__(self, driver: Driver, wal: Wal, beat_ns: Nanos) -> None:
        self.writer = LogWriter(wal, WriterEvents(durable=driver.on_durable, failed=driver.fail))
        self.timer = _Timer(driver.clock, driver.on_timer)
        self.beat_ns = beat_ns
        self.running = False
        self.scheduled = False
        self.draining = False
        self._held: list[tuple[int, tuple[Outgoing, ...]]] = []

    def hold(self, token: int, messages: tuple[Outgoing, ...]) -> None:
        """Keep these until the batch of `token` is durable."""
        if messages:
            self._held.append((token, messages))

    def release_up_to(self, token: int, send: Callable[[Outgoing], None]) -> None:
        """Send what waited for batches up to `token`."""
        ready = [messages for held, messages in self._held if held <= token]
        self._held = [item for item in self._held if item[0] > token]
        for messages in ready:
            for message in messages:
                send(message)
