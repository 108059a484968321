"""How an order about synchronous replication gets into the replicated settings, beside others.

Lives here: the use case up to the record. Must not live here: what may be asked for
(`ramd.policy.syncorder`), what follows from the settings (`ramd.policy.syncing`). Start reading at
`record_order`.
"""

from __future__ import annotations

import secrets

from ramd import events
from ramd.domain.consensus import PROPOSE_TIMEOUT_S, Consensus
from ramd.domain.errors import Refused
from ramd.domain.service import SyncChange
from ramd.policy.syncorder import ordered, require_unrivalled
from ramd.state.commands import ChangeSettings, encode

ATTEMPTS_MAX = 8
OPERATION_BYTES = 8


async def record_order(consensus: Consensus, change: SyncChange) -> None:
    """The order is in the settings, and no order that came before it is undone by that.

    The command holds whole settings, so it counts only for those that it was made from. If another
    order was first, this one is made again from what that left: both take effect, unless the other
    gave the same setting another value. Raises Refused with what changed, or as the settings are
    now forbid it; Unavailable, OutcomeUnknown.
    """
    # This daemon may not have applied yet what another one has just answered to.
    await consensus.read_barrier(timeout_s=PROPOSE_TIMEOUT_S)
    before = consensus.state().settings
    for attempt in range(ATTEMPTS_MAX):
        state = consensus.state()
        require_unrivalled(change.order, before, state.settings)
        wanted = ordered(state, change.order)
        if attempt == 0:
            mode = str(wanted.synchronous_replication)
            events.emit(events.OperationRequested(operation="sync", actor=change.actor, what=mode))
        operation = secrets.token_hex(OPERATION_BYTES)
        command = ChangeSettings(settings=wanted, replaces=state.settings, operation=operation)
        await consensus.propose(encode(command), timeout_s=PROPOSE_TIMEOUT_S)
        if operation in consensus.state().settings_orders:
            return
    raise Refused(
        f"other orders changed the settings {ATTEMPTS_MAX} times before this one",
        code="busy",
        hint="nothing was done: ask again",
    )
