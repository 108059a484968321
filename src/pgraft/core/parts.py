"""The parts of one core, wired together.

Lives here: one frozen bundle, so that rules which touch several parts can be plain functions.
Must not live here: rules (see `roles` and `messages`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pgraft.core.election import Election
from pgraft.core.handover import Handover
from pgraft.core.lease import Granter, Holder
from pgraft.core.membership import Membership
from pgraft.core.reads import Reads, Rounds
from pgraft.core.replication import Replication
from pgraft.core.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a core consists of."""

    state: State
    election: Election
    replication: Replication
    handover: Handover
    membership: Membership
    rounds: Rounds
    reads: Reads
    granter: Granter
    holder: Holder


def wire(state: State, boot: int, released_epoch: int) -> Parts:
    """Build all parts around one state."""
    rounds = Rounds(state)
    replication = Replication(state)
    handover = Handover(state, replication)
    return Parts(
        state=state,
        election=Election(state),
        replication=replication,
        handover=handover,
        membership=Membership(state, replication),
        rounds=rounds,
        reads=Reads(state, rounds),
        granter=Granter(state, rounds),
        holder=Holder(state, boot, released_epoch),
    )
