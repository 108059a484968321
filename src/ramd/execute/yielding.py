"""Handing a primary over without stopping it first: the transition towards Yield (attacks C11, H3).

Order is everything here: the fence falls before the end of WAL is read, nobody has an xid when it
is read, the target has confirmed all of it, and the latch is durable, before the epoch is released.
Until it has moved the server runs on, fenced for good in its epoch, and can resume in the next.
Must not live here: who takes over (`ramd.policy.handing_over`). Start reading at `yield_primary`.

Whatever was acknowledged lies before the position read: a session looks at the lease after its
record is on disk, and what is read after the fence fell is past every record it could have passed.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from ramd import events, switch_events
from ramd.domain.consensus import ReleaseEvidence
from ramd.domain.decision import Lead, Yield
from ramd.domain.errors import Unavailable
from ramd.domain.fence import Pulse
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.model import Handover, StartMode
from ramd.domain.observation import Position
from ramd.domain.server import StopMode
from ramd.execute import leading
from ramd.execute.context import Step, Yielding
from ramd.execute.leading import need_lease, prove_dead, refuse
from ramd.execute.release import release
from ramd.execute.work import Work
from ramd.state.commands import CancelHandover, encode

NS_PER_MS = 1_000_000
POLL_MS = 2
NEAR_BYTES = 16 << 20
"""A target further behind is waited for before the fence falls, not after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What the fenced server ended with, and who has confirmed it."""

    end: Position
    holders: tuple[int, ...]
    spent: tuple[tuple[str, int], ...]


async def yield_primary(work: Work) -> Step:
    """One step does it all, and is safe to repeat from wherever it was cut short."""
    goal = work.goal
    assert isinstance(goal, Yield)
    under_way = work.known.yielding
    if under_way is None or under_way.epoch != goal.epoch:
        if not _can_stand_by(work):
            return await _stop_cleanly(work, goal)
        if why := await _not_near(work, goal):
            await _cancel(work, goal, why)
            return Step.DONE
        under_way = _shut(work, goal)
    if under_way.released:
        work.say(f"epoch {goal.epoch} handed over: standing by, fenced")
        return Step.DONE
    return await _drain_and_release(work, under_way)


async def lead_primary(work: Work) -> Step:
    """As `leading.lead_primary`, and how a server goes on that stood by."""
    goal = work.goal
    assert isinstance(goal, Lead)
    resumes = goal.start is StartMode.RESUME and goal.epoch > work.ports.store.released_epoch
    if resumes and work.ports.store.record.opened_epoch != goal.epoch:
        return await _resume(work, goal)
    return await leading.lead_primary(work)


async def _resume(work: Work, goal: Lead) -> Step:
    """The switchover did not take place: the very server that stood by goes on in the new epoch."""
    stood_by = work.known.yielding
    same = stood_by is not None and stood_by.start_number == work.server.fence.start_number()
    if stood_by is None or not same or stood_by.epoch != goal.epoch - 1:
        return await refuse(work, "its server is not the one that stood by")
    need_lease(work, goal.epoch)
    work.say(f"resuming in epoch {goal.epoch}")
    async with work.ports.store.opening(goal.epoch):
        need_lease(work, goal.epoch)
        work.guard.watch(goal.epoch)
        work.known.yielding = None
    work.ports.changed()
    fenced_ms = (work.ports.clock() - stood_by.begun_ns) // NS_PER_MS
    events.emit(switch_events.ServerResumed(epoch=goal.epoch, fenced_ms=fenced_ms))
    return Step.AGAIN


# --- before the fence falls --------------------------------------------------------------------


def _can_stand_by(work: Work) -> bool:
    """The server checks the lease itself, and could go on in the next epoch."""
    reign, pulse = work.ports.state.reign, work.server.fence.pulse()
    if not work.server.fence.guards or pulse is None or not pulse.enforce or pulse.in_recovery:
        return False
    return reign is not None and (reign.start is not StartMode.PROMOTE or bool(reign.fork_lsn))


async def _not_near(work: Work, goal: Yield) -> str:
    """Why no target can have all WAL soon; '' if one can. A target that is behind is waited for."""

    async def near() -> bool | None:
        pulse = work.server.fence.pulse()
        if pulse is None or pulse.insert_lsn is None:
            return None
        least = max(0, pulse.insert_lsn - NEAR_BYTES)
        return True if _holders(work, goal, pulse, Lsn(least)) else None

    work.say("waiting for the target of the switchover to be near")
    try:
        await work.until(near, timeout_ms=work.timing.near_ms, what="a target that streams")
    except Unavailable:
        return f"no target streamed within {NEAR_BYTES >> 20} MiB of the end of WAL"
    return ""


async def _cancel(work: Work, goal: Yield, why: str) -> None:
    command = CancelHandover(
        epoch=goal.epoch, reason=f"handover cancelled: {why}", at_unix_ms=work.ports.unix_ms()
    )
    await work.ports.consensus.propose(encode(command), timeout_s=work.timing.propose_s)


def _shut(work: Work, goal: Yield) -> Yielding:
    """The fence falls for good in this epoch. Known first: whatever comes now goes by it."""
    now_ns, fence = work.ports.clock(), work.server.fence
    under_way = Yielding(epoch=goal.epoch, begun_ns=now_ns, start_number=fence.start_number())
    work.known.yielding = under_way
    work.guard.shut(goal.epoch, drain_at_ns=now_ns + work.timing.drain_ms * NS_PER_MS)
    under_way.shut_ns = work.ports.clock()
    events.emit(switch_events.YieldBegun(epoch=goal.epoch, drain_ms=work.timing.drain_ms))
    return under_way


# --- after -------------------------------------------------------------------------------------


async def _drain_and_release(work: Work, under_way: Yielding) -> Step:
    epoch = under_way.epoch
    latching = asyncio.ensure_future(work.ports.store.latch(epoch))
    try:
        drained = await _drained(work, under_way)
    except Unavailable as error:
        if not _stands(work, under_way):
            return await refuse(work, f"the switchover ended with its server: {error}")
        why, drained = str(error), None
    finally:
        # Durable in any case, also if this is cut short: only then may the epoch be released.
        await asyncio.shield(latching)
    under_way.released = True
    if drained is None:
        evidence = ReleaseEvidence(reason=f"switchover given up: {why}", stands_by=True)
        events.emit(switch_events.YieldFailed(epoch=epoch, why=why))
    else:
        evidence = ReleaseEvidence(
            reason="switchover",
            end=drained.end,
            holders=drained.holders,
            stands_by=True,
            spent=drained.spent,
        )
        phases = ", ".join(f"{what} {ms} ms" for what, ms in drained.spent)
        events.emit(
            switch_events.Yielded(epoch=epoch, end=format_lsn(drained.end.lsn), phases=phases)
        )
    work.ports.consensus.release(epoch, evidence.encode())
    work.say(f"epoch {epoch} handed over: standing by, fenced")
    return Step.DONE


async def _drained(work: Work, under_way: Yielding) -> Drained:
    """Raises Unavailable: not in time, or nobody asks for it any more."""
    goal = Yield(epoch=under_way.epoch)
    clock, marks = work.ports.clock, [under_way.begun_ns]
    deadline_ns = clock() + (work.timing.drain_ms + work.timing.yield_ms) * NS_PER_MS

    async def look(what: str) -> Pulse | None:
        """The next picture taken after the fence fell."""
        if not _stands(work, under_way):
            raise Unavailable("it has ended, began anew, or is fenced no more")
        if clock() >= deadline_ns:
            raise Unavailable(f"{what}: not in time")
        if _wanted(work, goal) is None:
            raise Unavailable("nobody asks for it any more")
        await asyncio.sleep(POLL_MS / 1000)
        pulse = work.server.fence.pulse()
        if pulse is None or pulse.at_ns <= under_way.shut_ns or pulse.insert_lsn is None:
            return None
        # Asked after the picture was taken: it is of the very server that was fenced.
        return pulse if _stands(work, under_way) else None

    with work.interruptible():
        work.say(f"switchover: ending open transactions of epoch {goal.epoch}")
        while (pulse := await look("open transactions did not end")) is None or pulse.open_xids:
            continue
        assert pulse.insert_lsn is not None
        end = pulse.insert_lsn
        timeline = pulse.timeline
        marks.append(clock())
        work.say("switchover: flushing")
        while (pulse := await look("WAL did not reach the disk")) is None or _short(pulse, end):
            continue
        marks.append(clock())
        work.say("switchover: waiting for the target")
        while (pulse := await look("the target did not confirm all WAL")) is None or not (
            holders := _holders(work, goal, pulse, end)
        ):
            continue
        marks.append(clock())
    names = ("drain", "flush", "receive")
    ms = [(after - before) // NS_PER_MS for before, after in itertools.pairwise(marks)]
    return Drained(
        end=Position(timeline=timeline, lsn=end),
        holders=holders,
        spent=tuple(zip(names, ms, strict=True)),
    )


def _stands(work: Work, under_way: Yielding) -> bool:
    """The very server that was fenced still runs, and still refuses by itself."""
    fence = work.server.fence
    if not work.server.running or fence.start_number() != under_way.start_number:
        return False
    pulse = fence.pulse()
    return pulse is None or (pulse.enforce and not pulse.in_recovery)


def _short(pulse: Pulse, end: Lsn) -> bool:
    return pulse.flushed_lsn is None or pulse.flushed_lsn < end


def _holders(work: Work, goal: Yield, pulse: Pulse, end: Lsn) -> tuple[int, ...]:
    """Members that have confirmed WAL to `end`; () as long as the one asked for has not."""
    wanted, others = _wanted(work, goal), set(work.ports.others)
    have = tuple(n for n, lsn in sorted(pulse.streams.items()) if lsn >= end and n in others)
    if wanted is None or (wanted.target is not None and wanted.target not in have):
        return ()
    return have


def _wanted(work: Work, goal: Yield) -> Handover | None:
    handover = work.ports.state.handover
    return handover if handover is not None and handover.epoch == goal.epoch else None


async def _stop_cleanly(work: Work, goal: Yield) -> Step:
    """Clean stop, so that replicas receive the shutdown checkpoint; proof; latch; release."""
    work.say(f"stopping cleanly to hand over epoch {goal.epoch}")
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.yield_stop_ms)
    work.guard.shut(goal.epoch)
    await prove_dead(work)
    work.guard.rest()
    await release(work.ports, goal.epoch, "yielded", scan_ms=work.timing.yield_scan_ms)
    work.say(f"epoch {goal.epoch} handed over")
    return Step.DONE
