"""The one thread that writes the log, so that a slow disk never delays a heartbeat.

Lives here: handing batches over in order, one write at a time. Must not live here: the log itself.
Start reading at `LogWriter.submit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pgraft.storage.wal import Wal, WalBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterEvents:
    """Called in the event loop. `durable` gets the newest token that is durable, with all before
    it; `failed` is called at most once, and after it nothing is durable any more."""

    durable: Callable[[int], None]
    failed: Callable[[BaseException], None]


class LogWriter:
    """Writes batches in the order of their tokens; those that come during a sync share the next.

    The number of waiting batches is bounded by the core, which bounds what it holds uncommitted.
    """

    def __init__(self, wal: Wal, events: WriterEvents) -> None:
        self._wal = wal
        self._events = events
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pgraft-wal")
        self._waiting: list[tuple[int, WalBatch]] = []
        self._writing: asyncio.Future[None] | None = None
        self._failed = False

    def submit(self, token: int, batch: WalBatch) -> None:
        """Write after everything submitted before. Tokens must grow."""
        self._waiting.append((token, batch))
        if self._writing is None:
            self._write()

    def _write(self) -> None:
        if self._failed:
            return
        token = self._waiting[-1][0]
        batches = [batch for _, batch in self._waiting if batch != _NOTHING]
        self._waiting = []
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self._append, batches)
        self._writing.add_done_callback(lambda done: self._written(token, done))

    def _append(self, batches: Sequence[WalBatch]) -> None:
        if batches:  # a batch of nothing only keeps the order of what waits for it
            self._wal.append(batches)

    def _written(self, token: int, done: asyncio.Future[None]) -> None:
        self._writing = None
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._failed = True
            self._events.failed(error)
            return
        self._events.durable(token)
        if self._waiting and self._writing is None:
            self._write()

    async def close(self) -> None:
        """Finish the write that is under way and close the log; what still waits is not written."""
        self._waiting = []
        if self._writing is not None:
            await asyncio.wait([self._writing])
        self._thread.shutdown(wait=True)
        self._wal.close()


_NOTHING = WalBatch()
