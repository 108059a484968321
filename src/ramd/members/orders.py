"""What people may ask about members: add, remove, give a vote. Each is an order in the replicated
state; the coordinator carries it out, and whoever asked watches the state until it shows.

Must not live here: HTTP, the rules themselves. Start reading at `add_node`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ramd.config.keys import NAME, is_loopback, parse_host
from ramd.config.model import Config
from ramd.config.names import means_a_node
from ramd.domain.consensus import PROPOSE_TIMEOUT_S, Consensus, MemberChange
from ramd.domain.decision import ClusterView
from ramd.domain.errors import OutcomeUnknown, Refused, Unavailable
from ramd.domain.model import ClusterState, Invitation, Member
from ramd.domain.service import (
    AddNodeRequest,
    AddNodeResult,
    AddVoterRequest,
    AddVoterResult,
    RemoveNodeRequest,
    RemoveNodeResult,
)
from ramd.members import token
from ramd.members.lines import conf_lines
from ramd.policy.membership import removal_obstacle, vote_obstacle
from ramd.state.apply import refusal
from ramd.state.commands import Command, encode
from ramd.state.member_commands import InviteMember, RemoveMember, WithdrawInvitation
from ramd.state.membership import NODE_ID_MAX

INVITATION_MS = 3_600_000
"""How long a node may take to join."""
LOOK = "look at /api/v1/nodes"


class Until(Protocol):
    """Looks after every beat until `check` gives something; bounded by the caller's timeout."""

    def __call__(self, check: Callable[[], Any]) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What an order needs of the daemon that takes it."""

    config: Config
    consensus: Consensus
    view: Callable[[], ClusterView]
    until: Until
    unix_ms: Callable[[], int]
    secret: bytes
    secret_file: Path

    async def settle(self, command: Command, *, obstacle: str = "") -> ClusterState:
        """`command`, committed and applied here; the state afterwards. Raises Refused if it is
        not acceptable or an `obstacle` was found already, Unavailable, OutcomeUnknown."""
        await self.consensus.read_barrier(timeout_s=PROPOSE_TIMEOUT_S)
        why = refusal(self.consensus.state(), command) or obstacle
        if why:
            raise Refused(why)
        await self.consensus.propose(encode(command), timeout_s=PROPOSE_TIMEOUT_S)
        return self.consensus.state()


# --- add -------------------------------------------------------------------------------------


async def add_node(desk: Desk, request: AddNodeRequest) -> AddNodeResult:
    """An invitation for one node, with its token. The group itself changes when the node joins.

    Raises Refused with what is in the way (used id, name, address, port; too many members),
    Unavailable, OutcomeUnknown.
    """
    state = desk.consensus.state()
    now_ms = desk.unix_ms()
    invitation = Invitation(
        member=wanted_member(desk.config, state, request),
        nonce=secrets.token_hex(token.NONCE_BYTES),
        expires_unix_ms=now_ms + INVITATION_MS,
        replaces=request.replaces,
        requested_by=request.actor,
    )
    after = await desk.settle(InviteMember(invitation=invitation, at_unix_ms=now_ms))
    if after.invitation(invitation.member.node_id) != invitation:
        raise Refused(
            f"node {invitation.member.node_id} was invited by somebody else at the same time",
            hint=LOOK,
        )
    return AddNodeResult(
        member=invitation.member,
        token=token.make(desk.secret, after.cluster_id, invitation),
        expires_unix_ms=invitation.expires_unix_ms,
        conf=conf_lines(desk.config, desk.secret_file, after, invitation),
        replaces=invitation.replaces,
    )


def wanted_member(config: Config, state: ClusterState, request: AddNodeRequest) -> Member:
    """The node as it was asked for, with what was left out: the lowest free id, this daemon's
    host and its ports, moved on by the distance of the ids on the same host. Raises Refused."""
    own = config.own_member()
    node_id = request.node_id if request.node_id is not None else _free_id(state)
    hostname = _hostname(request.hostname or own.hostname, state)
    same = hostname.lower() == own.hostname.lower() or is_loopback(hostname)
    step = node_id - own.node_id if same else 0
    name = request.name or f"node{node_id}"
    if not NAME.match(name) or means_a_node(name, node_id):
        raise Refused(
            f"name: '{name[:63]}' is not usable as a name",
            code="invalid_field",
            field="name",
            hint="letters, digits, '_', '.' and '-'; no number, 'primary', 'replica1' or other"
            " node's default name",
        )
    return Member(
        node_id=node_id,
        name=name,
        hostname=hostname,
        postgresql_port=request.postgresql_port or own.postgresql_port + step,
        raft_port=request.raft_port or own.raft_port + step,
        http_port=request.http_port or own.http_port + step,
        priority=request.priority,
        nofailover=request.nofailover,
    )


def _free_id(state: ClusterState) -> int:
    known = {m.node_id for m in state.members} | {i.member.node_id for i in state.invitations}
    free = [n for n in range(1, NODE_ID_MAX + 1) if n not in known]
    if not free:
        raise Refused(f"every node id from 1 to {NODE_ID_MAX} is used", field="node_id")
    return free[0]


def _hostname(text: str, state: ClusterState) -> str:
    try:
        host = str(parse_host(text))
    except ValueError as error:
        raise Refused(f"hostname: {error}", code="invalid_field", field="hostname") from error
    local = [is_loopback(member.hostname) for member in state.members]
    if is_loopback(host) and not all(local):
        raise Refused(
            f"hostname: '{host}' means another host on every host, and the members are on several",
            code="conflict",
            field="hostname",
            hint="a name or address by which all nodes reach it",
        )
    if not is_loopback(host) and all(local):
        raise Refused(
            f"hostname: '{host}' is not this host, and every member is reached at loopback only:"
            " their servers and daemons listen nowhere else",
            code="conflict",
            field="hostname",
            hint="a cluster of several hosts is formed with host names that all of them reach",
        )
    return host


# --- remove ----------------------------------------------------------------------------------


async def remove_node(
    desk: Desk, request: RemoveNodeRequest, *, timeout_s: float
) -> RemoveNodeResult:
    """Out of the group, in one change, and off the list; or an invitation that is worth nothing any
    more. Raises Refused with what is in the way, Unavailable, OutcomeUnknown."""
    node_id, state = request.node_id, desk.consensus.state()
    invitation = state.invitation(node_id)
    member = state.member(node_id)
    if member is None and invitation is not None:
        gone = WithdrawInvitation(
            nonce=invitation.nonce, reason="withdrawn by a person", at_unix_ms=desk.unix_ms()
        )
        await desk.settle(gone)
        return RemoveNodeResult(node_id=node_id, name=invitation.member.name, withdrawn=True)
    if member is None:
        raise Refused(f"there is no node {node_id}", code="not_found", field="node_id", hint=LOOK)
    if not desk.consensus.status().has_quorum:
        raise Unavailable("no majority of members is reachable", code="no_quorum")
    why = removal_obstacle(desk.view(), node_id)
    if why:
        raise Refused(why)
    order = RemoveMember(node_id=node_id, requested_by=request.actor, at_unix_ms=desk.unix_ms())
    await desk.settle(order)
    try:
        async with asyncio.timeout(timeout_s):
            await desk.until(lambda: _gone(desk, node_id))
    except TimeoutError:
        raise OutcomeUnknown(
            f"node {node_id} is marked as leaving, but is still a member after {timeout_s:g} s",
            hint="the coordinator goes on with it; " + LOOK,
        ) from None
    return RemoveNodeResult(node_id=node_id, name=member.name)


def _gone(desk: Desk, node_id: int) -> bool | None:
    state, status = desk.consensus.state(), desk.consensus.status()
    if status.me == node_id and status.removed:
        return True  # nobody tells this node any more
    if state.member(node_id) is None:
        return True
    if state.departure(node_id) is None:
        wanted = f"node {node_id} is not removed: "
        kept = (r.reason for r in reversed(state.decisions) if r.reason.startswith(wanted))
        raise Refused(next(kept, f"{wanted}it has become the primary"))
    return None


# --- vote ------------------------------------------------------------------------------------


async def add_voter(desk: Desk, request: AddVoterRequest, *, timeout_s: float) -> AddVoterResult:
    """A vote for a learner, now. Raises Refused if it is behind or enough others vote already,
    Unavailable, OutcomeUnknown."""
    why = vote_obstacle(desk.view(), request.node_id)
    if why:
        raise Refused(why)
    await desk.consensus.change(MemberChange(promote=(request.node_id,)), timeout_s=timeout_s)
    voting = desk.consensus.status().voting
    return AddVoterResult(node_id=request.node_id, voters=voting.voters)
