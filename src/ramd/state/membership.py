"""What the commands of membership do to the replicated state: pure, deterministic, total.

Lives here: when each is acceptable, and its effect together with the record that goes into the
history. Must not live here: the group's own configuration. Start reading at `invite_refusal`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

from ramd.domain.model import ClusterState, DecisionRecord, Departure, Invitation, Member
from ramd.state.member_commands import (
    AdmitMember,
    DropMember,
    InviteMember,
    KeepMember,
    RemoveMember,
    WithdrawInvitation,
)
from ramd.state.reinit import without_reinit

MEMBERS_MAX = 9
NODE_ID_MAX = 9
PRIORITY_MAX = 100
PORT_MAX = 65535
SPENT_MAX = 32
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Change: TypeAlias = tuple[ClusterState, DecisionRecord]
Command: TypeAlias = (
    InviteMember | WithdrawInvitation | AdmitMember | RemoveMember | KeepMember | DropMember
)

# --- invitations -----------------------------------------------------------------------------


def invite_refusal(state: ClusterState, command: InviteMember) -> str:
    """Why this node cannot be invited; '' if it can."""
    if state.removal is not None:
        return "the cluster is being destroyed"
    if state.reign is None:
        return "there is no primary yet that a new node could follow"
    invited, now_ms = command.invitation, command.at_unix_ms
    if invited.expires_unix_ms <= now_ms or not invited.nonce:
        return "the invitation has run out before it began"
    others = _others(state, invited.member.node_id, now_ms)
    return (
        _own_refusal(state, invited.member)
        or _clash(invited.member, (*state.members, *others))
        or _room(state, others)
        or _replaces_refusal(state, invited)
    )


def _others(state: ClusterState, node_id: int, now_ms: int) -> tuple[Member, ...]:
    """Nodes that may still join beside `node_id`."""
    valid = (i.member for i in state.invitations if i.expires_unix_ms > now_ms)
    return tuple(member for member in valid if member.node_id != node_id)


def _own_refusal(state: ClusterState, new: Member) -> str:
    if not 1 <= new.node_id <= NODE_ID_MAX:
        return f"node ids are 1 to {NODE_ID_MAX}, not {new.node_id}"
    if state.member(new.node_id) is not None:
        return f"node {new.node_id} is a member: the id is used"
    ports = (new.postgresql_port, new.raft_port, new.http_port)
    if not new.name or not new.hostname or not all(1 <= port <= PORT_MAX for port in ports):
        return "a node needs a name, a hostname and three ports"
    if len(set(ports)) < len(ports):
        return f"node {new.node_id} needs three different ports, not {ports}"
    if not 0 <= new.priority <= PRIORITY_MAX:
        return f"priority is 0 to {PRIORITY_MAX}, not {new.priority}"
    return ""


def _clash(new: Member, known: tuple[Member, ...]) -> str:
    for other in known:
        if other.name == new.name:
            return f"the name {new.name!r} is node {other.node_id}'s: it is used"
        if host(other) != host(new):
            continue
        taken = {other.postgresql_port, other.raft_port, other.http_port}
        for port in (new.postgresql_port, new.raft_port, new.http_port):
            if port in taken:
                return f"port {port} on {new.hostname} is node {other.node_id}'s: it is used"
    return ""


def host(member: Member) -> str:
    """The same text for the same host, as far as names tell."""
    name = member.hostname.lower().removesuffix(".")
    return "localhost" if name in LOOPBACK else name


def _room(state: ClusterState, others: tuple[Member, ...]) -> str:
    if len(state.members) + len(others) < MEMBERS_MAX:
        return ""
    waiting = f" and {len(others)} invited" if others else ""
    return f"there are {len(state.members)} members{waiting}; {MEMBERS_MAX} are the most"


def _replaces_refusal(state: ClusterState, invited: Invitation) -> str:
    gone = invited.replaces
    if gone is None:
        return ""
    if state.member(gone) is None:
        return f"node {gone} is not a member: there is nobody to replace"
    if state.reigns[-1].node_id == gone:
        return f"node {gone} is the primary: switch over to another node first"
    if state.departure(gone) is not None:
        return f"node {gone} is being removed already"
    others = (i for i in state.invitations if i.member.node_id != invited.member.node_id)
    taker = next((i.member.node_id for i in others if i.replaces == gone), None)
    return "" if taker is None else f"node {taker} is invited to take the place of node {gone}"


def invited(state: ClusterState, command: InviteMember) -> Change:
    """The state with the invitation, without those that it takes the place of."""
    new, now_ms = command.invitation, command.at_unix_ms
    kept = tuple(
        i
        for i in state.invitations
        if i.expires_unix_ms > now_ms and i.member.node_id != new.member.node_id
    )
    instead = "" if new.replaces is None else f", in the place of node {new.replaces}"
    later = replace(state, invitations=(*kept, new))
    what = f"node {new.member.node_id} ({new.member.name}) may join{instead}"
    return later, _record(state, command, what, actor=new.requested_by)


def withdraw_refusal(state: ClusterState, command: WithdrawInvitation) -> str:
    """Why there is nothing to withdraw; '' if there is."""
    return "" if _by_nonce(state, command.nonce) is not None else "there is no such invitation"


def withdrawn(state: ClusterState, command: WithdrawInvitation) -> Change:
    """The state without the invitation."""
    gone = _by_nonce(state, command.nonce)
    assert gone is not None
    later = replace(state, invitations=_without(state, command.nonce))
    what = f"node {gone.member.node_id} may join no more: {command.reason or 'withdrawn'}"
    return later, _record(state, command, what)


def admit_refusal(state: ClusterState, command: AdmitMember) -> str:
    """Why nobody is admitted; '' if somebody is."""
    found = _by_nonce(state, command.nonce)
    if found is None:
        return "there is no such invitation"
    node_id = found.member.node_id
    return f"node {node_id} is a member" if state.member(node_id) is not None else ""


def admitted(state: ClusterState, command: AdmitMember) -> Change:
    """The state with the new member; whom it replaces is to leave once it can vote."""
    found = _by_nonce(state, command.nonce)
    assert found is not None
    new = _named_apart(state, found.member)
    members = sorted((*state.members, new), key=lambda member: member.node_id)
    later = replace(
        state,
        members=tuple(members),
        invitations=_without(state, command.nonce),
        spent=(*state.spent, command.nonce)[-SPENT_MAX:],
        departures=(*state.departures, *_succession(state, found)),
        changed_unix_ms=command.at_unix_ms or state.changed_unix_ms,
    )
    what = f"node {new.node_id} ({new.name}) has joined"
    return later, _record(state, command, what, actor=found.requested_by)


def _named_apart(state: ClusterState, new: Member) -> Member:
    """A name may have been given to another member since the invitation."""
    taken = {member.name for member in state.members}
    return replace(new, name=f"{new.name}.{new.node_id}") if new.name in taken else new


def _succession(state: ClusterState, found: Invitation) -> Iterator[Departure]:
    gone = found.replaces
    if gone is None or state.member(gone) is None or state.departure(gone) is not None:
        return
    if state.reign is not None and state.reign.node_id == gone:
        return
    by = found.requested_by
    yield Departure(node_id=gone, successor=found.member.node_id, requested_by=by)


def _by_nonce(state: ClusterState, nonce: str) -> Invitation | None:
    return next((i for i in state.invitations if i.nonce == nonce), None)


def _without(state: ClusterState, nonce: str) -> tuple[Invitation, ...]:
    return tuple(i for i in state.invitations if i.nonce != nonce)


# --- departures ------------------------------------------------------------------------------


def remove_refusal(state: ClusterState, command: RemoveMember) -> str:
    """Why `node_id` cannot be taken out; '' if it can."""
    node_id = command.node_id
    if state.removal is not None:
        return "the cluster is being destroyed"
    if state.member(node_id) is None:
        return f"node {node_id} is not a member"
    if len(state.members) == 1:
        return f"node {node_id} is the last member: destroy the cluster instead"
    if state.reign is not None and state.reign.node_id == node_id:
        return f"node {node_id} is the primary: switch over to another node first"
    if state.handover is not None and state.handover.target == node_id:
        return f"node {node_id} is about to become primary"
    other = next((d for d in state.departures if d.successor is None), None)
    return f"node {other.node_id} is being removed already" if other is not None else ""


def removing(state: ClusterState, command: RemoveMember) -> Change:
    """The state in which `node_id` is to leave at once."""
    order = Departure(node_id=command.node_id, requested_by=command.requested_by)
    later = replace(state, departures=(*_staying(state, command.node_id), order))
    what = f"node {command.node_id} is to be removed"
    return later, _record(state, command, what, actor=command.requested_by)


def keep_refusal(state: ClusterState, command: KeepMember) -> str:
    """Why there is no removal to give up; '' if there is one."""
    stays = state.departure(command.node_id) is None
    return f"node {command.node_id} is not being removed" if stays else ""


def kept(state: ClusterState, command: KeepMember) -> Change:
    """The state in which `node_id` stays."""
    later = replace(state, departures=_staying(state, command.node_id))
    what = f"node {command.node_id} is not removed: {command.reason}"
    return later, _record(state, command, what)


def drop_refusal(state: ClusterState, command: DropMember) -> str:
    """Why `node_id` stays a member; '' if it goes."""
    if state.member(command.node_id) is None:
        return f"node {command.node_id} is not a member"
    if state.departure(command.node_id) is None:
        return f"nobody has ordered to remove node {command.node_id}"
    # A change that named it may have been on its way when the coordinator looked (attacks M7).
    if any(command.node_id in rule.nodes for rule in state.sync.rules):
        return f"node {command.node_id} may have confirmed commits: the set changes first"
    return ""


def dropped(state: ClusterState, command: DropMember) -> Change:
    """The state without the member."""
    later = replace(
        without_reinit(state, command.node_id),
        members=tuple(m for m in state.members if m.node_id != command.node_id),
        departures=_staying(state, command.node_id),
        changed_unix_ms=command.at_unix_ms or state.changed_unix_ms,
    )
    what = f"node {command.node_id} was removed"
    order = state.departure(command.node_id)
    return later, _record(state, command, what, actor=order.requested_by if order else "")


def _staying(state: ClusterState, node_id: int) -> tuple[Departure, ...]:
    return tuple(d for d in state.departures if d.node_id != node_id)


# --- what other entries must heed ------------------------------------------------------------


def leaving_at_once(state: ClusterState, node_id: int) -> bool:
    """Nobody's choice for primary any more."""
    order = state.departure(node_id)
    return order is not None and order.successor is None


def without_departure(state: ClusterState, node_id: int) -> ClusterState:
    """`node_id` has become primary: it does not leave after all."""
    return replace(state, departures=_staying(state, node_id))


RULES: dict[type[object], str] = {
    InviteMember: "member_invited",
    WithdrawInvitation: "invitation_withdrawn",
    AdmitMember: "member_admitted",
    RemoveMember: "removal_ordered",
    KeepMember: "removal_given_up",
    DropMember: "member_removed",
}
"""By which name the history keeps what each command did."""


def _record(state: ClusterState, command: Command, what: str, *, actor: str = "") -> DecisionRecord:
    return DecisionRecord(
        epoch=state.epoch,
        rule=RULES[type(command)],
        action=type(command).__name__,
        reason=what,
        actor=actor or "policy",
        at_unix_ms=command.at_unix_ms,
    )
