"""Hands a command from the HTTP thread to the control loop and waits for its result, bounded.

Lives here: the only place where the two threads meet for writes. Must not live here: what a command
does. The control loop is never waited for with a lock and never made to wait: it only finds one
more coroutine to run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ramd.domain.errors import OutcomeUnknown, RamdError, Refused, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S = 2.0
"""The command has its own deadline; this much later the loop itself is taken to be late."""


class Dispatcher:
    """Runs coroutines on `loop` (another thread's). At most `pending_max` are under way at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, pending_max: int = 8) -> None:
        self._loop = loop
        self._pending_max = pending_max
        self._pending: set[concurrent.futures.Future[Any]] = set()

    async def run(
        self, what: str, make: Callable[[], Coroutine[Any, Any, T]], *, timeout_s: float
    ) -> T:
        """The result of `make()`, run on the control loop. Called on the HTTP loop.

        Nobody who stops waiting (deadline, client gone, server stopping) stops the command.
        Raises what the command raises; Refused `busy` beyond `pending_max`; OutcomeUnknown when it
        has not ended `timeout_s` + GRACE_S later; Unavailable when the control loop is gone.
        """
        if len(self._pending) >= self._pending_max:
            raise Refused(
                f"{len(self._pending)} commands are under way already",
                code="busy",
                hint="wait for them to end and look at the state of the cluster",
            )
        future = self._submit(what, make)
        if not await _ended(future, timeout_s + GRACE_S):
            future.add_done_callback(lambda late: _log_late(what, late))
            raise OutcomeUnknown(
                f"{what} has not ended within {timeout_s:g} s; it may still take effect",
                hint="look at the state of the cluster before trying again",
            )
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise OutcomeUnknown(
                f"the daemon stopped during {what}",
                hint="look at the state of the cluster before trying again",
            ) from None

    def _submit(
        self, what: str, make: Callable[[], Coroutine[Any, Any, T]]
    ) -> concurrent.futures.Future[T]:
        command = make()
        try:
            future = asyncio.run_coroutine_threadsafe(command, self._loop)
        except RuntimeError:
            command.close()
            raise Unavailable(f"the daemon is stopping; {what} was not begun") from None
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future


async def _ended(future: concurrent.futures.Future[T], timeout_s: float) -> bool:
    """Whether `future` ends within `timeout_s`. Unlike wrap_future, never cancels it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake(_: concurrent.futures.Future[T]) -> None:
        try:
            loop.call_soon_threadsafe(ended.set)
        except RuntimeError:  # the HTTP loop has been closed meanwhile: nobody waits any more
            log.debug("a command ended after the API had stopped")

    future.add_done_callback(wake)
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        return future.done()
    return True


def _log_late(what: str, future: concurrent.futures.Future[Any]) -> None:
    """What became of a command for which nobody waits any more."""
    if future.cancelled():
        log.warning("%s was cancelled after its deadline", what)
        return
    error = future.exception()
    if error is None:
        log.info("%s succeeded after its deadline", what)
    elif isinstance(error, RamdError):
        log.warning("%s failed after its deadline: %s", what, error.message)
    else:
        log.error("%s failed after its deadline", what, exc_info=error)
