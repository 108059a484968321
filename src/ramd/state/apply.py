"""What a committed entry does to the replicated state: pure, deterministic, total.

Lives here: `apply` for commands and `apply_grant` for grants, and the checks that make an entry
acceptable. Must not live here: encodings, decisions. Start reading at `apply`.

Every member runs this over the same entries and must end in the same state, so nothing here may
look at anything but its arguments. An entry that is not acceptable changes nothing but
`applied_index`; the `_explained` variants say why. Bytes that do not decode never come here: the
caller reports them and leaves the state as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ramd.domain.lsn import LSN_MAX
from ramd.domain.model import (
    ClusterState,
    DecisionRecord,
    Member,
    Reign,
    StartMode,
)
from ramd.state import membership as members
from ramd.state import reinit, settings, sync
from ramd.state.commands import (
    CancelHandover,
    ChangeSettings,
    Command,
    DescribeMember,
    Destroy,
    GrantPayload,
    InitCluster,
    RecordDecision,
    RecordFork,
    RecordSystem,
    RequestHandover,
)
from ramd.state.member_commands import (
    AdmitMember,
    DropMember,
    InviteMember,
    KeepMember,
    RemoveMember,
    WithdrawInvitation,
)
from ramd.state.phases import RecordPhases, phases_refusal, with_phases
from ramd.state.recovery import RecordRecovery, recovered, recovery_refusal
from ramd.state.reinit import EndReinit, OrderReinit
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync

REIGNS_MAX = 64
PRIORITY_MAX = members.PRIORITY_MAX
DECISIONS_MAX = 100
DETAILS_LINES_MAX = 20
TEXT_CHARS_MAX = 200
"""Of one line of details, and of a reason."""
MEMBERS_MAX = members.MEMBERS_MAX
NODE_ID_MAX = members.NODE_ID_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The state after an entry, and why the entry was refused ('' if it was not)."""

    state: ClusterState
    refusal: str = ""


def apply(state: ClusterState, command: Command, index: int) -> ClusterState:
    """The state after `command`, committed at `index`. An index applied before changes nothing."""
    return apply_explained(state, command, index).state


def apply_explained(state: ClusterState, command: Command, index: int) -> Applied:
    """As `apply`, with the reason of a refusal."""
    if index <= state.applied_index:
        return Applied(state=state, refusal=f"index {index} was applied before")
    seen = replace(state, applied_index=index)
    why = refusal(state, command)
    if why:
        return Applied(state=seen, refusal=why)
    return Applied(state=_EFFECTS[type(command)](seen, command))


def apply_grant(
    state: ClusterState, holder: int, epoch: int, payload: GrantPayload, index: int
) -> ClusterState:
    """The state after a grant of `epoch` to `holder`, committed at `index` (rules S3, S6).

    Accepted only directly after the present epoch, for a member, on a timeline that was never
    named before; at most one grant of an epoch is ever accepted.
    """
    return apply_grant_explained(state, holder, epoch, payload, index).state


def apply_grant_explained(
    state: ClusterState, holder: int, epoch: int, payload: GrantPayload, index: int
) -> Applied:
    """As `apply_grant`, with the reason of a refusal."""
    if index <= state.applied_index:
        return Applied(state=state, refusal=f"index {index} was applied before")
    seen = replace(state, applied_index=index)
    why = grant_refusal(state, holder, epoch, payload)
    if why:
        return Applied(state=seen, refusal=why)
    return Applied(state=_granted(seen, payload))


def refusal(state: ClusterState, command: Command) -> str:
    """Why `command` would change nothing in `state`; '' if it is acceptable."""
    if isinstance(command, InitCluster):
        return _init_refusal(state, command)
    if not state.formed:
        return "there is no cluster"
    return _CHECKS[type(command)](state, command)


def grant_refusal(state: ClusterState, holder: int, epoch: int, payload: GrantPayload) -> str:
    """Why this grant would change nothing in `state`; '' if it is acceptable."""
    reign = payload.reign
    if epoch != state.epoch + 1:
        return f"epoch {epoch} does not follow {state.epoch}"
    if (reign.node_id, reign.epoch) != (holder, epoch):
        return f"the payload names node {reign.node_id} and epoch {reign.epoch}"
    if state.member(holder) is None:
        return f"node {holder} is not a member"
    return _timeline_refusal(state, reign) or sync.grant_refusal(state, payload.sync, holder=holder)


def grant_obstacle(state: ClusterState, holder: int, epoch: int, payload: GrantPayload) -> str:
    """Why this grant must not be appended behind `state`; '' if it may be.

    The group's lease goes by the epoch alone, so a grant that the state refuses once it is in the
    log parts the two. Stricter than `grant_refusal`: that must take what older logs hold.
    """
    why = grant_refusal(state, holder, epoch, payload)
    return why or sync.grant_obstacle(payload.sync)


# --- grants ----------------------------------------------------------------------------------


def _timeline_refusal(state: ClusterState, reign: Reign) -> str:
    named, high = reign.timeline, state.timeline_high
    if reign.start is StartMode.RESUME:
        return _resume_refusal(state, reign)
    if reign.start is StartMode.OPEN:
        if state.system_id:
            return "a server has been recorded: only a promotion may begin an epoch"
        return "" if named >= max(1, high) else f"timeline {named} is below {high}"
    if reign.parent_timeline is None or not 1 <= reign.parent_timeline < named:
        return f"timeline {named} cannot come from {reign.parent_timeline}"
    return "" if named > high else f"timeline {named} was named before (highest: {high})"


def _resume_refusal(state: ClusterState, reign: Reign) -> str:
    """Only what the present epoch is may go on: nothing about its lineage changes."""
    present = state.reign
    if present is None or present.node_id != reign.node_id:
        return f"node {reign.node_id} does not hold the present epoch: it has nothing to resume"
    if present.timeline != reign.timeline:
        return f"the present epoch is on timeline {present.timeline}, not {reign.timeline}"
    if present.start is StartMode.PROMOTE and present.fork_lsn is None:
        return f"where epoch {present.epoch} begins is not recorded"
    return ""


def _granted(state: ClusterState, payload: GrantPayload) -> ClusterState:
    reign = replace(payload.reign, fork_lsn=None)
    moved = bool(state.reigns)
    if reign.start is StartMode.RESUME and state.reign is not None:
        reign = replace(
            state.reign,
            epoch=reign.epoch,
            start=StartMode.RESUME,
            since_unix_ms=reign.since_unix_ms,
        )
        moved = False
    later = replace(
        state,
        reigns=(*state.reigns, reign)[-REIGNS_MAX:],
        timeline_high=max(state.timeline_high, reign.timeline),
        handover=None,
        sync=sync.granted(state.sync, payload.sync),
        failover_count=state.failover_count + (1 if moved else 0),
        changed_unix_ms=reign.since_unix_ms,
    )
    # Not refused: the group has granted it already. Whoever is primary stays as it is.
    later = reinit.without_reinit(later, reign.node_id)
    return _recorded(members.without_departure(later, reign.node_id), payload.record)


# --- commands: when acceptable ---------------------------------------------------------------


def _init_refusal(state: ClusterState, command: InitCluster) -> str:
    if state.formed:
        return f"the cluster {state.cluster_name!r} exists"
    if not command.cluster_id or not command.cluster_name:
        return "a cluster needs an id and a name"
    return _members_refusal(command.members) or settings.settings_refusal(command.settings)


def _members_refusal(members: tuple[Member, ...]) -> str:
    ids = [member.node_id for member in members]
    names = [member.name for member in members]
    if not 1 <= len(members) <= MEMBERS_MAX:
        return f"a cluster has 1 to {MEMBERS_MAX} members, not {len(members)}"
    if any(not 1 <= node_id <= NODE_ID_MAX for node_id in ids):
        return f"node ids are 1 to {NODE_ID_MAX}, not {ids}"
    if len(set(ids)) < len(ids) or len(set(names)) < len(names) or not all(names):
        return "every member needs an id and a name of its own"
    return ""


def _system_refusal(state: ClusterState, command: RecordSystem) -> str:
    if state.reign is None or not command.system_id:
        return "there is no primary that could have a system id"
    if state.system_id:
        return f"the system id is {state.system_id}"
    return ""


def _fork_refusal(state: ClusterState, command: RecordFork) -> str:
    reign = next((r for r in state.reigns if r.epoch == command.epoch), None)
    if reign is None:
        return f"epoch {command.epoch} is not in the record"
    if reign.fork_lsn is not None:
        return f"the fork of epoch {command.epoch} is recorded"
    if reign.start is StartMode.OPEN or command.parent_timeline != reign.parent_timeline:
        return f"epoch {command.epoch} did not leave timeline {command.parent_timeline}"
    # Below the position of the election is possible: that may end within a record.
    return "" if 0 < command.fork_lsn <= LSN_MAX else "0 is no position in the WAL"


def _request_refusal(state: ClusterState, command: RequestHandover) -> str:
    handover, reign = command.handover, state.reign
    if state.removal is not None:
        return "the cluster is being destroyed"
    if reign is None or handover.epoch != reign.epoch:
        return f"epoch {handover.epoch} is not the present one"
    if state.handover is not None:
        return f"a handover of epoch {state.handover.epoch} is under way"
    if handover.target is None:
        return ""
    if state.member(handover.target) is None:
        return f"node {handover.target} is not a member"
    if handover.target == reign.node_id:
        return f"node {handover.target} is the primary"
    if members.leaving_at_once(state, handover.target):
        return f"node {handover.target} is being removed"
    return ""


def _cancel_refusal(state: ClusterState, command: CancelHandover) -> str:
    if state.handover is None or state.handover.epoch != command.epoch:
        return f"there is no handover of epoch {command.epoch}"
    return ""


def _destroy_refusal(state: ClusterState, command: Destroy) -> str:
    return "the cluster is being destroyed" if state.removal is not None else ""


def _describe_refusal(state: ClusterState, command: DescribeMember) -> str:
    if state.member(command.node_id) is None:
        return f"node {command.node_id} is not a member"
    if not 0 <= command.priority <= PRIORITY_MAX:
        return f"priority is 0 to {PRIORITY_MAX}, not {command.priority}"
    return _members_refusal(_described(state, command))


# --- commands: what they do ------------------------------------------------------------------


def _init(state: ClusterState, command: InitCluster) -> ClusterState:
    return replace(
        state,
        cluster_id=command.cluster_id,
        cluster_name=command.cluster_name,
        members=tuple(sorted(command.members, key=lambda member: member.node_id)),
        settings=command.settings,
        changed_unix_ms=command.at_unix_ms,
    )


def _described(state: ClusterState, command: DescribeMember) -> tuple[Member, ...]:
    return tuple(
        replace(
            member,
            name=command.name,
            priority=command.priority,
            nofailover=command.nofailover,
            nosync=command.nosync,
        )
        if member.node_id == command.node_id
        else member
        for member in state.members
    )


def _fork(state: ClusterState, command: RecordFork) -> ClusterState:
    reigns = tuple(
        replace(reign, fork_lsn=command.fork_lsn) if reign.epoch == command.epoch else reign
        for reign in state.reigns
    )
    return replace(state, reigns=reigns)


def _cancel(state: ClusterState, command: CancelHandover) -> ClusterState:
    record = DecisionRecord(
        epoch=command.epoch,
        rule="handover_cancelled",
        action="CancelHandover",
        reason=command.reason,
        at_unix_ms=command.at_unix_ms,
    )
    return _recorded(replace(state, handover=None), record)


def _recorded(state: ClusterState, record: DecisionRecord) -> ClusterState:
    details = tuple(text[:TEXT_CHARS_MAX] for text in record.details[:DETAILS_LINES_MAX])
    kept = replace(record, details=details, reason=record.reason[:TEXT_CHARS_MAX])
    return replace(state, decisions=(*state.decisions, kept)[-DECISIONS_MAX:])


_CHECKS: dict[type[Command], Callable[[ClusterState, Any], str]] = {
    RecordSystem: _system_refusal,
    RecordFork: _fork_refusal,
    RequestHandover: _request_refusal,
    CancelHandover: _cancel_refusal,
    RecordDecision: lambda _state, _command: "",
    Destroy: _destroy_refusal,
    ChangeSettings: settings.change_refusal,
    DescribeMember: _describe_refusal,
    ChangeSync: sync.change_refusal,
    SettleSync: sync.settle_refusal,
    RelaxSync: sync.relax_refusal,
    InviteMember: members.invite_refusal,
    WithdrawInvitation: members.withdraw_refusal,
    AdmitMember: members.admit_refusal,
    RemoveMember: members.remove_refusal,
    KeepMember: members.keep_refusal,
    DropMember: members.drop_refusal,
    RecordPhases: phases_refusal,
    RecordRecovery: recovery_refusal,
    OrderReinit: reinit.order_refusal,
    EndReinit: reinit.end_refusal,
}
_EFFECTS: dict[type[Command], Callable[[ClusterState, Any], ClusterState]] = {
    InitCluster: _init,
    RecordSystem: lambda state, command: replace(state, system_id=command.system_id),
    RecordFork: _fork,
    RequestHandover: lambda state, command: replace(state, handover=command.handover),
    CancelHandover: _cancel,
    RecordDecision: lambda state, command: _recorded(state, command.record),
    Destroy: lambda state, command: replace(state, removal=command.removal),
    ChangeSettings: settings.with_settings,
    DescribeMember: lambda state, command: replace(state, members=_described(state, command)),
    ChangeSync: lambda state, command: _recorded(sync.changed(state, command), command.record),
    SettleSync: lambda state, _command: sync.settled(state),
    RelaxSync: lambda state, command: _recorded(sync.settled(state), command.record),
    InviteMember: lambda state, command: _recorded(*members.invited(state, command)),
    WithdrawInvitation: lambda state, command: _recorded(*members.withdrawn(state, command)),
    AdmitMember: lambda state, command: _recorded(*members.admitted(state, command)),
    RemoveMember: lambda state, command: _recorded(*members.removing(state, command)),
    KeepMember: lambda state, command: _recorded(*members.kept(state, command)),
    DropMember: lambda state, command: _recorded(*members.dropped(state, command)),
    RecordPhases: with_phases,
    RecordRecovery: lambda state, command: _recorded(*recovered(state, command)),
    OrderReinit: lambda state, command: _recorded(*reinit.ordered(state, command)),
    EndReinit: lambda state, command: _recorded(*reinit.ended(state, command)),
}
