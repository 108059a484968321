"""How the group's own configuration and the replicated list of members are brought together; pure.

Lives here: the one next step of the coordinator (`next_step`), and what stands against a removal
or a vote (`removal_obstacle`, `vote_obstacle`). Must not live here: doing it. Start reading at
`next_step`.

The list of members says whom people want; the configuration says who has a voice in the log. A node
joins the configuration first (as a learner, with its token), then the list; it leaves the
configuration first, then the list. Every step is read off what is committed, so whoever coordinates
next goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ramd.domain.decision import ClusterView
from ramd.domain.model import Departure, Invitation, Reinit
from ramd.domain.observation import ServerState
from ramd.policy.picture import living, observation
from ramd.policy.reinit import finished
from ramd.policy.syncset import ruling_nodes

VOTERS_MAX = 7
BEHIND_BYTES_MAX = 16 << 20
"""A replica that is further behind its primary is no use to anybody as a voter yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """The invited node has joined the group: make it a member."""

    invitation: Invitation


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """The invitation has run out."""

    invitation: Invitation


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconfigure:
    """Change the group: `promote` gets a vote, `remove` goes; at least one of the two."""

    promote: int | None = None
    remove: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """The group has let go of this node: strike it off the list."""

    node_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """The removal must not take place, for this reason."""

    node_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """The order to make a copy anew is carried out."""

    order: Reinit


Step: TypeAlias = Admit | Withdraw | Reconfigure | Drop | Keep | Renewed


def next_step(view: ClusterView, now_unix_ms: int) -> Step | None:
    """What the ready coordinator does next about members; None: nothing, for now.

    One at a time: while a change of the configuration is under way there is none. `now_unix_ms`
    judges invitations only.
    """
    state = view.state
    if not state.formed or state.removal is not None or not view.voting.settled:
        return None
    step = _joining(view, now_unix_ms) or _leaving(view) or _renewed(view)
    return step or _stray(view) or _voting(view)


def _joining(view: ClusterView, now_unix_ms: int) -> Step | None:
    for invitation in view.state.invitations:
        if view.voting.has(invitation.member.node_id):
            return Admit(invitation=invitation)
        if invitation.expires_unix_ms <= now_unix_ms:
            return Withdraw(invitation=invitation)
    return None


def _leaving(view: ClusterView) -> Step | None:
    steps = (_departure(view, order) for order in view.state.departures)
    return next((step for step in steps if step is not None), None)


def _departure(view: ClusterView, order: Departure) -> Step | None:
    node_id, successor = order.node_id, order.successor
    if not view.voting.has(node_id):
        return Drop(node_id=node_id)
    if successor is None or successor in view.voting.voters:
        obstacle = removal_obstacle(view, node_id)
        if obstacle:
            return Keep(node_id=node_id, reason=obstacle)
        return None if _still_counts(view, node_id) else Reconfigure(remove=node_id)
    if not view.voting.has(successor):
        return Keep(node_id=node_id, reason=f"node {successor}, which was to replace it, is gone")
    if vote_obstacle(view, successor, without=node_id):
        return None
    obstacle = removal_obstacle(view, node_id, promoted=successor)
    if obstacle:
        return Keep(node_id=node_id, reason=obstacle)
    if _still_counts(view, node_id):
        return None
    return Reconfigure(promote=successor, remove=node_id)


def _renewed(view: ClusterView) -> Step | None:
    done = (order for order in view.state.reinits if finished(view, order))
    return next((Renewed(order=order) for order in done), None)


def _still_counts(view: ClusterView, node_id: int) -> bool:
    """Commits may have been acknowledged on the word of its copy: the primary takes it out of the
    synchronous set first (attacks M7)."""
    return node_id in ruling_nodes(view)


def _stray(view: ClusterView) -> Step | None:
    """A node that joined while its invitation was withdrawn: nobody wants it."""
    wanted = {m.node_id for m in view.state.members}
    stray = next((n for n in sorted(view.voting.learners) if n not in wanted), None)
    return None if stray is None else Reconfigure(remove=stray)


def _voting(view: ClusterView) -> Step | None:
    waiting = {order.successor for order in view.state.departures}
    going = {order.node_id for order in view.state.departures}
    for node_id in sorted(view.voting.learners):
        if node_id not in waiting | going and not vote_obstacle(view, node_id):
            return Reconfigure(promote=node_id)
    return None


def stays_learner(view: ClusterView) -> tuple[int, ...]:
    """Members that have no vote because there are enough that do."""
    if len(view.voting.voters) < VOTERS_MAX:
        return ()
    return tuple(n for n in view.voting.learners if view.state.member(n) is not None)


def vote_obstacle(view: ClusterView, node_id: int, *, without: int | None = None) -> str:
    """Why this node cannot get a vote now; '' if it can. `without`: who loses its own with it."""
    if view.state.member(node_id) is None:
        return f"node {node_id} is not a member"
    if node_id in view.voting.voters:
        return f"node {node_id} votes already"
    if len(set(view.voting.voters) - {without}) >= VOTERS_MAX:
        return f"there are {VOTERS_MAX} voters, which are the most: node {node_id} stays a learner"
    return _behind(view, node_id)


def _behind(view: ClusterView, node_id: int) -> str:
    """Why it is not where a voter should be: a replica that streams and has caught up."""
    reign = view.state.reign
    if reign is None or reign.node_id == node_id:
        return ""
    seen, source = living(view, node_id), observation(view, reign.node_id)
    if seen is None:
        return f"node {node_id} is not heard"
    if source is None or source.position is None or seen.position is None:
        return f"node {node_id} is behind: how far is not known"
    streams = seen.upstream == reign.node_id or node_id in source.streaming_replicas
    if not streams or seen.state is not ServerState.RUNNING:
        return f"node {node_id} is behind: it does not stream from node {reign.node_id} yet"
    behind = source.position.lsn - seen.position.lsn
    if behind > BEHIND_BYTES_MAX:
        return f"node {node_id} is behind: {behind} bytes, allowed are {BEHIND_BYTES_MAX}"
    return ""


def removal_obstacle(view: ClusterView, node_id: int, *, promoted: int | None = None) -> str:
    """Why taking this member out would break the group; '' if it would not.

    The voters that are left (with `promoted`, who gets a vote in the same change) must be there in
    a majority: a live voter is not removed for the sake of dead ones.
    """
    reign = view.state.reign
    if reign is not None and reign.node_id == node_id:
        return f"node {node_id} is the primary: switch over to another node first"
    if not view.voting.has(node_id):
        return ""  # only the list still names it
    left = _others(view.voting.voters, node_id, promoted)
    if not left:
        return f"node {node_id} is the last voter"
    there = [n for n in left if n == view.me or living(view, n) is not None]
    if node_id not in view.voting.voters or 2 * len(there) > len(left):
        return ""
    silent = ", ".join(str(n) for n in left if n not in there)
    return (
        f"without node {node_id} only {len(there)} of {len(left)} voters would be in touch"
        f" (silent: node {silent}): remove a dead one instead"
    )


def _others(voters: Iterable[int], node_id: int, promoted: int | None) -> list[int]:
    return sorted({*voters, *([] if promoted is None else [promoted])} - {node_id})
