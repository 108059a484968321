"""Turns the core: every input in, every `Ready` out, in the order the core demands.

Lives here: step → persist → send → apply, the one timer, the measuring of the loop's own pauses.
Must not live here: rules of Raft, proposals and their waiting callers (`shell`, `waiting`).
Start reading at `Driver._pump`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgraft.core.raft import Raft
from pgraft.core.types import (
    CoreEvent,
    Entry,
    Index,
    Message,
    Nanos,
    NodeId,
    Outgoing,
    ReadDone,
    Ready,
    Role,
    Snapshot,
    Term,
)
from pgraft.net.transport import Transport
from pgraft.node.counts import Counts, LoopLag
from pgraft.node.writer import DiskState, LogWriter, WriterEvents
from pgraft.storage.wal import Wal, WalBatch

_LOG = logging.getLogger("pgraft.node")
READIES_MAX: Final = 64
"""Readys taken in one turn of the loop; the rest waits for the next, so that input is heard."""
TURN_NS: Final = 20_000_000
"""A turn that has lasted this long takes no further Ready, for the same reason."""
INPUTS_MAX: Final = 256
"""Messages taken in one turn of the loop; a flood of them must not hold up time."""
INBOX_MAX: Final = 4096
"""Messages that wait for a turn; further ones are dropped, and Raft repairs that."""
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
    restore: Callable[[Snapshot], None]
    """The state of a snapshot takes the place of everything applied before."""
    turned: Callable[[], None] = lambda: None
    """A Ready was taken: the host's state is that of `status().applied`."""


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
        writer_events = WriterEvents(
            durable=self._on_durable,
            failed=self.fail,
            saved=self._on_saved,
            full=self._on_full,
        )
        self._io = _Io(LogWriter(wal, writer_events), _Timer(clock, self.on_timer), beat_ns)

    def start(self) -> None:
        """Take the first Readys and arm the timer."""
        self._io.running = True
        self._io.writer.prepare()
        self.wake()

    async def stop(self) -> None:
        """Stop turning, finish the write under way and close the log."""
        self._halt()
        await self._io.writer.close()

    def _halt(self) -> None:
        """Neither send nor apply anything any more."""
        self._io.running = False
        self._io.timer.cancel()

    @property
    def running(self) -> bool:
        """Whether what is put into the core has any effect: started, and not halted since."""
        return self._io.running

    @property
    def disk(self) -> DiskState:
        """What is known of the disk."""
        return self._io.writer.state

    def on_message(self, sender: NodeId, message: Message) -> None:
        """An input: a message from an authenticated peer."""
        inbox = self._io.inbox
        if inbox.open and not inbox.waiting:
            inbox.taken += 1
            self._feed(self._step, sender, message)
        elif len(inbox.waiting) < INBOX_MAX:
            inbox.waiting.append((sender, message))
            self.wake()
        else:
            self.counts.messages_dropped += 1

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
            self._halt()
            _LOG.critical("this member stops: %s", error)
            self._events.failed(error)

    def _on_durable(self, token: int) -> None:
        """An input: the batches up to this token are durable."""
        self._feed(self._durable, token)

    def _on_saved(self, snapshot: Snapshot) -> None:
        """An input: a snapshot given to `save` is durable."""
        self.counts.snapshots_taken += 1
        self._feed(self.raft.compacted, snapshot)

    def _on_full(self, full: bool) -> None:
        """An input: the log finds no room (or again does). Whoever cannot write must not lead; it
        does not vote either, because a vote leaves only after it was written."""
        if full:
            self._feed(self._give_up)

    def on_clock(self, suspect: bool) -> None:
        """An input: what this machine's clock is worth has changed."""
        self._feed(self.raft.clock_suspect, suspect)

    def durable(self) -> tuple[Term, Index]:
        """Last term and index that are durable here."""
        return self._io.writer.durable()

    def save(self, snapshot: Snapshot) -> None:
        """Make it durable by and by; the core is told then."""
        self._io.writer.save(snapshot)

    def on_timer(self, lag_ns: Nanos) -> None:
        """The timer fired, `lag_ns` late."""
        if self.lag.note(lag_ns):
            # Messages that came during our own pause are in the sockets: hear them first.
            self._io.draining = True
            self._drain(DRAIN_TURNS)
        else:
            self._tick()

    def _step(self, sender: NodeId, message: Message, now: Nanos) -> None:
        self.raft.step(sender, message, now)
        self.counts.messages_taken += 1

    def _give_up(self, now: Nanos) -> None:
        if self.raft.status().role is Role.LEADER:
            self.raft.step_down("disk full", now)

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
        io = self._io
        io.scheduled = False
        io.inbox.taken = 0
        end_ns = self.clock() + TURN_NS
        try:
            while io.inbox.waiting and io.inbox.open and io.running:
                io.inbox.taken += 1
                self._step(*io.inbox.waiting.popleft(), self.clock())
            for _ in range(READIES_MAX):
                if not io.running:
                    return
                ready = self.raft.ready()
                if ready is None:
                    break
                self._take(ready)
                if self.clock() > end_ns:
                    self.wake()
                    break
            else:
                self.wake()
            if io.inbox.waiting:
                self.wake()
        except Exception as error:  # boundary: any fault stops this member for good
            self.fail(error)
            return
        if io.running:
            self._arm()

    def _take(self, ready: Ready) -> None:
        for event in ready.events:
            self.counts.happened(event, self.clock())
            self._events.event(event)
        for out in ready.send_now:
            self._send(out)
        if ready.token is not None:
            batch = WalBatch(
                snapshot=ready.snapshot,
                truncate_from=ready.truncate_from,
                entries=ready.entries,
                hard_state=ready.hard_state,
            )
            self._io.hold(ready.token, ready.send_after_sync)
            self._io.writer.submit(ready.token, batch)
        else:
            assert not ready.send_after_sync, "messages that wait for a sync need a batch"
            assert ready.snapshot is None, "a snapshot must be made durable"
        if ready.snapshot is not None:
            self.counts.snapshots_installed += 1
            self._events.restore(ready.snapshot)
        for entry in ready.committed:
            self._events.apply(entry)
        for done in ready.reads:
            self._events.read(done)
        self._events.turned()

    def _send(self, out: Outgoing) -> None:
        if self._transport.send(out.to, out.message):
            self.counts.sent(out.message)


class _Inbox:
    """Messages that came in one turn: so many are `taken` at once, the others are `waiting`."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[tuple[NodeId, Message]] = deque()

    @property
    def open(self) -> bool:
        """Whether this turn takes one more."""
        return self.taken < INPUTS_MAX


class _Io:
    """What the driver hears, writes and waits for: inbox, writer, the held messages, the timer."""

    __slots__ = ("_held", "beat_ns", "draining", "inbox", "running", "scheduled", "timer", "writer")

    def __init__(self, writer: LogWriter, timer: _Timer, beat_ns: Nanos) -> None:
        self.writer = writer
        self.timer = timer
        self.beat_ns = beat_ns
        self.inbox = _Inbox()
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
