"""The one thread that writes log and snapshots, so that a slow disk never delays a heartbeat.

Lives here: handing batches over in order, one write at a time; chores of the disk in between; what
a full disk means for both. Must not live here: the log itself. Start reading at `LogWriter.submit`.

Log batches come first: a chore (making the next segment, saving a snapshot, removing a segment)
begins only when no batch waits, and each is one file, so a batch waits for one of them at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from pgraft.core.types import Index, Snapshot, Term
from pgraft.storage.errors import DiskFull
from pgraft.storage.wal import Wal, WalBatch

_LOG = logging.getLogger("pgraft.node")
RETRY_S: Final = 0.5
"""Between two tries to write what did not fit."""
LOOK_S: Final = 5.0
"""Between two tries to make the next segment's room ahead of need."""
SYNCS_KEPT: Final = 512
"""How many of the last writes `SyncTimes` looks back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterEvents:
    """Called in the event loop. `durable` gets the newest token that is durable, with all before
    it; `saved` a snapshot of our own that is; `failed` is called at most once, and after it nothing
    is durable any more; `full` tells that a batch does not fit, or that it does again."""

    durable: Callable[[int], None]
    failed: Callable[[BaseException], None]
    saved: Callable[[Snapshot], None] = lambda snapshot: None
    full: Callable[[bool], None] = lambda full: None


class SyncTimes:
    """How long the last writes of the log took, their syncs included, in ms."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=SYNCS_KEPT)

    def note(self, took_ms: float) -> None:
        """One more."""
        self._last.append(took_ms)

    def picture(self) -> tuple[float, float, float]:
        """(median, 99th percentile, longest) of the last `SYNCS_KEPT`; zeros before the first."""
        ordered = sorted(self._last)
        if not ordered:
            return 0.0, 0.0, 0.0
        last = len(ordered) - 1
        return ordered[last // 2], ordered[last * 99 // 100], ordered[last]


class _Job:
    """What the thread does next: a group of batches up to `token`, or a chore."""

    __slots__ = ("batches", "run", "token")

    def __init__(
        self, run: Callable[[], object], token: int = 0, batches: list[WalBatch] | None = None
    ) -> None:
        self.run = run
        self.token = token
        self.batches = batches


class LogWriter:
    """Writes batches in the order of their tokens; those that come during a sync share the next.

    The number of waiting batches is bounded by the core, which bounds what it holds uncommitted.
    On a full disk what does not fit is tried again until there is room: it is not acknowledged, so
    nothing is lost but time.
    """

    def __init__(self, wal: Wal, events: WriterEvents) -> None:
        self._wal = wal
        self._events = events
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pgraft-wal")
        self._waiting: list[tuple[int, WalBatch]] = []
        self._chores: deque[Callable[[], object]] = deque()
        self._writing: asyncio.Future[object] | None = None
        self._open = True
        self.state = DiskState()

    def submit(self, token: int, batch: WalBatch) -> None:
        """Write after everything submitted before. Tokens must grow."""
        self._waiting.append((token, batch))
        self._next()

    def save(self, snapshot: Snapshot) -> None:
        """Make a snapshot durable some time after what was submitted before, and shorten the log.

        On a full disk it is given up: the log goes on as it is.
        """

        def run() -> Snapshot | None:
            try:
                self._wal.save(snapshot)
            except DiskFull as full:
                _LOG.warning("no snapshot was taken: %s", full)
                return None
            return snapshot

        self._chores.append(run)
        self._next()

    def durable(self) -> tuple[Term, Index]:
        """Last term and index of the log on the disk."""
        return self._wal.durable

    def prepare(self) -> None:
        """Make room ahead, if there is none."""
        if self._wal.wants_room and not self.state.low:
            self._chores.append(self._prepare)
            self._next()

    async def close(self) -> None:
        """Finish the write that is under way and close the log; what still waits is not written."""
        self._open = False
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown(wait=True)
        self._wal.close()

    def _next(self) -> None:
        if self._writing is not None or not self._open or self.state.full:
            return
        if self._waiting:
            self._run(self._group())
        elif self._chores:
            self._run(_Job(self._chores.popleft()))

    def _group(self) -> _Job:
        """The batches that are written together: a snapshot begins a group of its own."""
        end = 1
        while end < len(self._waiting) and self._waiting[end][1].snapshot is None:
            end += 1
        group, self._waiting = self._waiting[:end], self._waiting[end:]
        # A batch of nothing only keeps the order of what waits for it.
        batches = [batch for _, batch in group if batch != _NOTHING]
        return _Job(lambda: self._append(batches), group[-1][0], batches)

    def _append(self, batches: list[WalBatch]) -> None:
        if not batches:
            return
        begun = time.monotonic_ns()
        self._wal.append(batches)
        self.state.syncs.note((time.monotonic_ns() - begun) / 1e6)

    def _prepare(self) -> None:
        state = self.state
        try:
            self._wal.prepare()
            state.low = False
        except DiskFull as full:
            if not state.low:
                _LOG.error("the log has room for less than one more segment: %s", full)
            state.low = True

    def _run(self, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, job.run)
        self._writing.add_done_callback(lambda done: self._ran(job, done))

    def _ran(self, job: _Job, done: asyncio.Future[object]) -> None:
        self._writing = None
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, DiskFull):
            if job.batches is not None:
                self._full(job, error)
                return
            _LOG.warning("put off: %s", error)  # some file systems need room to remove a file
            error = None
        if error is not None:
            self._open = False
            self._events.failed(error)
            return
        if job.batches is not None:
            self._written(job)
        elif done.exception() is None and isinstance(snapshot := done.result(), Snapshot):
            self._events.saved(snapshot)
        elif job.run == self._prepare and self.state.low:
            asyncio.get_running_loop().call_later(LOOK_S, self._look)
        self._next()

    def _look(self) -> None:
        """Whether there is room for the next segment by now."""
        if self._open:
            self._chores.append(self._prepare)
            self._next()

    def _written(self, job: _Job) -> None:
        if self.state.told_full:
            self.state.told_full = False
            self._events.full(False)
        self._events.durable(job.token)
        for batch in job.batches or ():
            installed = batch.snapshot
            if installed is not None:
                self._chores.append(partial(self._wal.compact, installed.index))
        self.prepare()

    def _full(self, job: _Job, error: DiskFull) -> None:
        state = self.state
        state.full = True
        if not state.told_full:
            state.told_full = True
            _LOG.critical("%s", error)
            self._events.full(True)
        asyncio.get_running_loop().call_later(RETRY_S, self._retry, job)

    def _retry(self, job: _Job) -> None:
        # The very same batches: half of their record may stand in the log already.
        self.state.full = False
        if self._open:
            self._run(job)


class DiskState:
    """What is known of the disk. `full`: a batch waits for room; `low`: the next segment does not
    fit; `told_full`: the host was told so and not yet of room."""

    __slots__ = ("full", "low", "syncs", "told_full")

    def __init__(self) -> None:
        self.full = False
        self.low = False
        self.told_full = False
        self.syncs = SyncTimes()

    @property
    def word(self) -> str:
        """For people: ok, low (there is no room for the log after the present segment), full."""
        if self.told_full:
            return "full"
        return "low" if self.low else "ok"


_NOTHING: Final = WalBatch()
