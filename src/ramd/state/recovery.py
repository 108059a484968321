"""The first thing that a group recovered from one member records: who it is, and that it is alone.

Lives here: the command, when it is acceptable, and its effect. Must not live here: the recovery
itself (`ramd.recovery`). Start reading at `recovered`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ramd.domain.model import ClusterState, DecisionRecord, Handover


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRecovery:
    """The group that agreed on all of this is lost; `survivor` goes on alone as `cluster_id`."""

    cluster_id: str
    survivor: int
    requested_by: str = ""
    at_unix_ms: int = 0


def recovery_refusal(state: ClusterState, command: RecordRecovery) -> str:
    """Why it changes nothing; '' if it is acceptable. Accepted once for each group."""
    if not command.cluster_id or command.cluster_id == state.cluster_id:
        return "the group is the one that is recorded"
    if state.member(command.survivor) is None:
        return f"node {command.survivor} is not a member"
    return ""


def recovered(state: ClusterState, command: RecordRecovery) -> tuple[ClusterState, DecisionRecord]:
    """The survivor is the only member. If another node was primary, a person wants it moved here:
    nobody waits for that node, and the switch for automatic failover does not stand in the way."""
    alone = tuple(m for m in state.members if m.node_id == command.survivor)
    lost = ", ".join(m.name for m in state.members if m.node_id != command.survivor)
    reign = state.reign
    moved = None
    if reign is not None and reign.node_id != command.survivor:
        moved = Handover(
            epoch=reign.epoch,
            target=command.survivor,
            requested_by=command.requested_by,
            operation="quorum recover",
            accept_loss=True,
        )
    later = replace(
        state,
        cluster_id=command.cluster_id,
        members=alone,
        handover=moved,
        invitations=(),
        departures=(),
        reinits=(),
        changed_unix_ms=command.at_unix_ms,
    )
    record = DecisionRecord(
        epoch=state.epoch,
        rule="quorum_recovered",
        action="RecordRecovery",
        reason=f"node {command.survivor} goes on alone; given up: {lost or 'nobody'}",
        details=(f"the group before was {state.cluster_id}",),
        actor=command.requested_by or "policy",
        at_unix_ms=command.at_unix_ms,
    )
    return later, record
