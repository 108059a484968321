"""Waiting for a condition with a deadline: the only place in the tests that polls or sleeps.

A test says what it waits for and for how long at most; it never sleeps for a fixed time. Deadlines
are generous (three times what is normal, or more): they end a broken test, they measure nothing.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, overload

T = TypeVar("T")

FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.1


class NotInTimeError(AssertionError):
    """The condition did not become true before its deadline."""

    def __init__(self, deadline_s: float, what: str, seen: object) -> None:
        super().__init__(f"not within {deadline_s:g} s: {what} (last seen: {seen!r})")


def pauses(deadline_s: float) -> Iterator[float]:
    """Seconds to sleep between two looks, growing, until the deadline has passed.

    The caller looks once more after the last pause, so a slow machine that overslept does not
    fail a condition that came true in time.
    """
    end = time.monotonic() + deadline_s
    pause_s = FIRST_PAUSE_S
    while (left_s := end - time.monotonic()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def wait_for(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    """Returns the first true value of `condition`; what it raises is not caught.

    Raises `NotInTimeError` with `what` and the last value after `deadline_s` seconds.
    """
    seen = condition()
    if seen:
        return seen
    for pause_s in pauses(deadline_s):
        time.sleep(pause_s)
        seen = condition()
        if seen:
            return seen
    raise NotInTimeError(deadline_s, what, seen)


@overload
async def wait_for_async(
    condition: Callable[[], Awaitable[T]], deadline_s: float, what: str
) -> T: ...
@overload
async def wait_for_async(condition: Callable[[], T], deadline_s: float, what: str) -> T: ...
async def wait_for_async(condition: Callable[[], object], deadline_s: float, what: str) -> object:
    """As `wait_for`, in a running event loop; `condition` may be a coroutine function."""
    seen = await settled(condition())
    if seen:
        return seen
    for pause_s in pauses(deadline_s):
        await asyncio.sleep(pause_s)
        seen = await settled(condition())
        if seen:
            return seen
    raise NotInTimeError(deadline_s, what, seen)


async def settled(value: object) -> object:
    """The value itself, awaited if it has to be."""
    return await value if inspect.isawaitable(value) else value
