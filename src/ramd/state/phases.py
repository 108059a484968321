"""How long each part of a change of primary took, kept beside the decision that made it.

Lives here: the command, when it is acceptable, what it does. Must not live here: measuring
(`ramd.policy.timeline`). Start reading at `RecordPhases`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ramd.domain.model import ClusterState, DecisionRecord, Phase

PHASES_MAX = 16
GRANTED = "GrantTo"
"""What the record of a grant says that was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPhases:
    """The primary of `epoch` serves; `phases` is how it came to that, in order. Accepted once."""

    epoch: int
    phases: tuple[Phase, ...]


def phases_refusal(state: ClusterState, command: RecordPhases) -> str:
    """Why `command` would change nothing; '' if it is acceptable."""
    if not 0 < len(command.phases) <= PHASES_MAX:
        return f"a timeline has 1 to {PHASES_MAX} phases, not {len(command.phases)}"
    record = granted_record(state, command.epoch)
    if record is None:
        return f"the history does not reach back to the grant of epoch {command.epoch}"
    return f"the phases of epoch {command.epoch} are recorded" if record.phases else ""


def with_phases(state: ClusterState, command: RecordPhases) -> ClusterState:
    """The state after an acceptable RecordPhases."""
    meant = granted_record(state, command.epoch)
    return replace(
        state,
        decisions=tuple(
            replace(record, phases=command.phases) if record is meant else record
            for record in state.decisions
        ),
    )


def granted_record(state: ClusterState, epoch: int) -> DecisionRecord | None:
    """The decision that made the present, or an earlier, primary; None if it is not kept."""
    return next(
        (r for r in reversed(state.decisions) if (r.epoch, r.action) == (epoch, GRANTED)), None
    )
