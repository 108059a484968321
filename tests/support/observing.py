"""An observer that runs while a test looks at what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ramd.observe.observer import Observer
from tests.support.virtual_time import elapse


@asynccontextmanager
async def observing(observer: Observer) -> AsyncIterator[None]:
    """It has looked once when the body begins, and must not have ended when that is over."""
    task = asyncio.create_task(observer.run())
    try:
        await elapse(0.1)
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
