"""Giving an epoch back: the one place that latches, proves death and releases, in this order.

Used by the guard and by the transitions. Start reading at `release`.
"""

from __future__ import annotations

import asyncio

from ramd import events
from ramd.domain.consensus import ReleaseEvidence
from ramd.domain.errors import RamdError
from ramd.domain.lsn import format_lsn
from ramd.domain.model import StartMode
from ramd.domain.observation import Position
from ramd.execute.context import Ports


async def release(ports: Ports, epoch: int, reason: str, *, scan_ms: int) -> None:
    """Epoch `epoch` is latched durably and released with where our WAL ends, if it was written by
    that epoch's server, or by the one that was to go on in it.

    The caller has proven that no process of the server is left, or the server was never opened for
    the epoch. Looking for the end of WAL takes at most `scan_ms` and may find nothing.
    """
    await ports.store.latch(epoch)
    end = None
    if not ports.server.running and _wrote(ports, epoch):
        end = await _end_of_wal(ports, scan_ms)
    ports.consensus.release(epoch, ReleaseEvidence(reason=reason, end=end).encode())
    where = f"{format_lsn(end.lsn)} on timeline {end.timeline}" if end else "not known"
    events.emit(events.EpochReleased(epoch=epoch, reason=reason, end=where))


def _wrote(ports: Ports, epoch: int) -> bool:
    """What is in the data directory ends where everything ends that was acknowledged before the
    epoch moves. A directory that somebody has put in its place says nothing of that (attacks C7).
    """
    record, reign = ports.store.record, ports.state.reign
    if record.opened_copy not in ("", record.copy):
        return False
    resumes = reign is not None and reign.epoch == epoch and reign.start is StartMode.RESUME
    return record.opened_epoch == epoch or (resumes and record.opened_epoch == epoch - 1)


async def _end_of_wal(ports: Ports, scan_ms: int) -> Position | None:
    try:
        async with asyncio.timeout(2 * scan_ms / 1000):
            return await ports.server.data.end_of_wal(timeout_ms=scan_ms)
    except (RamdError, OSError, TimeoutError):
        # The release must not fail for want of it: "unknown" is an honest answer.
        return None
