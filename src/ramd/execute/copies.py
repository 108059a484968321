"""Which copy of the data this node holds (rule S4, attacks C7).

A copy is named when its directory is made: by initdb, clone or rewind. The name is kept beside the
directory and tied to it, so that one which somebody restored or copied into its place is another
copy. Must not live here: what follows for the synchronous set. Start reading at `know_copy`.
"""

from __future__ import annotations

from ramd import events, sync_events
from ramd.execute.context import Ports
from ramd.execute.local import Unproven


async def know_copy(ports: Ports) -> None:
    """`store.record.copy` is the name of what is in the data directory now. Costs one look."""
    tie = ports.server.data.tie()
    record = ports.store.record
    if not tie or (record.copy and record.copy_tie == tie):
        return
    why = await ports.store.tie(tie)
    if why:
        events.emit(sync_events.CopyNamed(copy=ports.store.record.copy, why=why))


async def named_anew(ports: Ports, unproven: Unproven) -> None:
    """The directory was just made, by initdb, clone or rewind: another copy than before."""
    await ports.store.mark(unproven, made_unix_ms=ports.unix_ms())
    await know_copy(ports)
