"""What may be appended now: the conditions of each kind of proposal, each with its word.

Lives here: refusals. Must not live here: what an entry does once committed (see `applied`), whether
a membership makes sense (see `config`). Start reading at `command`.
"""

from __future__ import annotations

from pgraft.core.limits import ENTRY_BYTES_MAX, UNCOMMITTED_ENTRIES_MAX
from pgraft.core.parts import Parts
from pgraft.core.types import (
    Change,
    Entry,
    EntryKind,
    Grant,
    Origin,
    ProposalRefused,
    TtlChange,
)


def command(parts: Parts, data: bytes, origin: Origin) -> Entry:
    """Append a command. Refusals: see `Raft.propose`."""
    _require_room(parts, data)
    return parts.replication.append(EntryKind.COMMAND, data=data, origin=origin)


def grant(parts: Parts, wanted: Grant) -> Entry:
    """Append the grant of the next epoch. Refusals: see `Raft.propose_grant`."""
    require_leader(parts)
    state = parts.state
    movable_ns = parts.granter.may_move_at(state.now)
    if not state.leads_applied:
        raise ProposalRefused("not_ready", state.leader)
    if state.log.has_unapplied_grant():
        raise ProposalRefused("grant_in_flight", state.leader)
    if wanted.epoch != state.log.applied.epoch + 1:
        raise ProposalRefused("wrong_epoch", state.leader)
    if movable_ns is None or state.now < movable_ns:
        raise ProposalRefused("lease_running", state.leader)
    _require_room(parts, wanted.payload)
    return parts.replication.append(EntryKind.GRANT, grant=wanted)


def ttl(parts: Parts, wanted: TtlChange) -> Entry:
    """Append another ttl for the epoch that is applied. Refusals: see `Raft.change_ttl`."""
    _require_room(parts)
    state = parts.state
    if not state.leads_applied:
        raise ProposalRefused("not_ready", state.leader)
    if wanted.epoch == 0 or wanted.epoch != state.log.applied.epoch:
        raise ProposalRefused("wrong_epoch", state.leader)
    return parts.replication.append(EntryKind.TTL, ttl=wanted)


def change(parts: Parts, wanted: Change) -> Entry:
    """Append another configuration. Refusals: see `Raft.change`."""
    require_leader(parts)
    return parts.membership.change(wanted)


def require_leader(parts: Parts) -> None:
    """ProposalRefused: not_leader, transferring."""
    state, transfer = parts.state, parts.handover.transfer
    if not state.leading:
        raise ProposalRefused("not_leader", state.leader)
    if transfer is not None:
        raise ProposalRefused("transferring", transfer.to)


def _require_room(parts: Parts, payload: bytes = b"") -> None:
    require_leader(parts)
    state = parts.state
    if len(payload) > ENTRY_BYTES_MAX:
        raise ProposalRefused("too_large", state.leader)
    if state.log.last_index - state.log.commit >= UNCOMMITTED_ENTRIES_MAX:
        raise ProposalRefused("overloaded", state.leader)
