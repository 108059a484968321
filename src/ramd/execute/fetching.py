"""Getting WAL from another node under a seal: the taking side, and giving it to the own server.

Lives here: the order of steps, and that nothing of it outlasts them. Must not live here: whether
it is needed (`ramd.policy.fetching`), the lending side (`lending`). Start reading at `as_ordered`.

Whatever is missing is copied before the server sees any of it. Then it is given to the server as an
archive that holds nothing else, and taken away again; only after that a position is reported. Of
the last segment what lies behind the end that was told is zero, so replay cannot pass it.
"""

from __future__ import annotations

import asyncio

from ramd import events, fetch_events
from ramd.domain.decision import FetchOrder, StaySealed
from ramd.domain.errors import RamdError, Refused
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.observation import Fetched, Position
from ramd.execute.lending import CHUNK_BYTES, END, READ, End, Wish, without_sum
from ramd.execute.work import Work

CALL_S = 2.0


async def as_ordered(work: Work) -> Fetched | None:
    """What the goal says is to be fetched has been, or has failed: once for each order. None: the
    attempt has ordered nothing here."""
    goal, known = work.goal, work.known.intake
    assert isinstance(goal, StaySealed)
    done = known.fetched
    before = done[1] if done is not None and done[0] == goal.attempt else None
    if goal.fetch is None or (before is not None and before.number == goal.fetch.number):
        return before
    fetched = await _fetch(work, goal, goal.fetch)
    known.fetched = (goal.attempt, fetched)
    known.reach = max(known.reach, fetched.upto or 0)
    return fetched


async def nothing_given(work: Work) -> None:
    """The server is given no WAL of another node's; what an earlier step began, and could not end,
    is ended."""
    if work.known.intake.given:
        await work.server.wal.end()
        work.known.intake.given = False


async def _fetch(work: Work, goal: StaySealed, order: FetchOrder) -> Fetched:
    begun_ns = work.ports.clock()
    work.say(f"fetching WAL from node {order.source}")
    try:
        async with asyncio.timeout(work.timing.fetch_ms / 1000):
            with work.interruptible():
                upto = await _get(work, goal, order)
    except (RamdError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
        late = f"it took longer than {work.timing.fetch_ms} ms"
        why = (late if isinstance(error, TimeoutError) else str(error) or repr(error))[:200]
        events.emit(fetch_events.WalNotFetched(source=order.source, why=why))
        return Fetched(number=order.number, source=order.source, why=why)
    finally:
        await nothing_given(work)
    took_ms = (work.ports.clock() - begun_ns) // 1_000_000
    events.emit(
        fetch_events.WalFetched(source=order.source, upto=format_lsn(upto), duration_ms=took_ms)
    )
    return Fetched(number=order.number, source=order.source, upto=upto)


async def _get(work: Work, goal: StaySealed, order: FetchOrder) -> Lsn:
    here = await work.sealed_position()
    if here.timeline != order.timeline:
        raise Refused(f"this node is on timeline {here.timeline}, not {order.timeline}")
    wish = Wish(
        epoch=goal.epoch,
        term=goal.attempt.term,
        number=goal.attempt.number,
        timeline=order.timeline,
    )
    end = End.decode(await _call(work, order, END, wish))
    if order.upto is not None and end.upto < order.upto:
        raise Refused(f"it has WAL to {format_lsn(end.upto)} only")
    if end.upto > here.lsn:
        await _copy(work, order, wish, here, end)
        work.known.intake.given = True
        await work.server.wal.replay(end.whole, timeout_ms=work.timing.fetch_ms)
    return end.upto


async def _copy(work: Work, order: FetchOrder, wish: Wish, here: Position, end: End) -> None:
    """All segments from the one that `here` lies in to the one in which it ends."""
    at = await work.server.wal.begin(here)
    while at < end.upto:
        size = min(CHUNK_BYTES, end.upto - at)
        part = Wish(
            epoch=wish.epoch,
            term=wish.term,
            number=wish.number,
            timeline=wish.timeline,
            at=at,
            size=size,
        )
        data = without_sum(await _call(work, order, READ, part))
        if len(data) > size:
            raise Refused("more WAL came than was asked for")
        await work.server.wal.keep(Position(timeline=order.timeline, lsn=at), data)
        at = Lsn(at + len(data))


async def _call(work: Work, order: FetchOrder, method: str, wish: Wish) -> bytes:
    consensus = work.ports.consensus
    return await consensus.call(order.source, method, wish.encode(), timeout_s=CALL_S)
