"""One attempt at one goal, as the transitions see it: waiting, interrupting, speaking.

Must not live here: any transition, any decision which one runs. Start reading at `Work`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ramd.domain.decision import Goal
from ramd.domain.errors import Refused, Unavailable
from ramd.domain.observation import Attempt, Position
from ramd.domain.server import Server, Upstream
from ramd.execute.context import Knowledge, NotYet, Ports, Progress, Timing
from ramd.execute.guard import Guard
from ramd.execute.situation import Seen

T = TypeVar("T")

POLL_FIRST_MS = 10
SEALED_FIRST_MS = 2
SEALED_POLL_MS = 20


class Work:
    """One attempt at one goal, as the transitions see it."""

    def __init__(
        self,
        *,
        ports: Ports,
        guard: Guard,
        known: Knowledge,
        goal: Goal,
        attempt: Attempt | None,
        seen: Seen,
    ) -> None:
        self.ports = ports
        self.guard = guard
        self.known = known
        self.goal = goal
        self.attempt = attempt
        self.progress = Progress()
        self.seen = seen

    @property
    def server(self) -> Server:
        return self.ports.server

    @property
    def timing(self) -> Timing:
        return self.ports.timing

    def say(self, activity: str, *, rejoining: bool = False) -> None:
        """One line for people on what is being done now."""
        self.progress.activity = activity
        self.progress.rejoining = rejoining

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it, a changed goal cancels the work; outside, a step runs to its bounded end."""
        if self.progress.superseded:
            raise NotYet("the goal changed")
        self.progress.interruptible = True
        try:
            yield
        finally:
            self.progress.interruptible = False

    async def until(
        self,
        check: Callable[[], Awaitable[T | None]],
        *,
        timeout_ms: int,
        what: str,
        poll_first_ms: int = POLL_FIRST_MS,
        poll_max_ms: int | None = None,
    ) -> T:
        """Poll `check` until it gives something; interruptible. Raises Unavailable at the bound."""
        deadline_ns = self.ports.clock() + timeout_ms * 1_000_000
        pause_max_ms = poll_max_ms or self.timing.poll_max_ms
        pause_ms = min(poll_first_ms, pause_max_ms)
        with self.interruptible():
            while (found := await check()) is None:
                if self.ports.clock() >= deadline_ns:
                    raise Unavailable(f"{what}: not within {timeout_ms} ms")
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, pause_max_ms)
        return found

    async def sealed_position(self) -> Position:
        """The position of a server with no WAL intake that has replayed all it has."""
        return await self.until(
            self.server.sealed_position,
            timeout_ms=self.timing.recover_ms,
            what="replaying local WAL to its end",
            poll_first_ms=SEALED_FIRST_MS,  # a failover waits for it
            poll_max_ms=SEALED_POLL_MS,
        )

    def upstream(self, node_id: int) -> Upstream:
        """Where to reach `node_id`. Raises Refused if it is no member or this node itself."""
        member = self.ports.state.member(node_id)
        if member is None or node_id == self.ports.me:
            raise Refused(f"node {node_id} is not a member to follow")
        return Upstream(node_id=node_id, host=member.hostname, port=member.postgresql_port)


async def both(first: Awaitable[T], second: Awaitable[object]) -> T:
    """Two things at once; what the first returns. Both have ended when this does, however it ends;
    of two errors the first one's is raised."""
    one, two = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        await asyncio.wait({one, two})
    except asyncio.CancelledError:
        one.cancel()
        two.cancel()
        await asyncio.wait({one, two})
        raise
    failed = two.exception()
    found = one.result()
    if failed is not None:
        raise failed
    return found
