"""When a copy that a person ordered to be made anew goes, what stands against the order, and when
it is carried out; pure.

Must not live here: what the order does to the replicated state (`ramd.state.reinit`), or to the
data directory (`ramd.execute.following`). Start reading at `due`.
"""

from __future__ import annotations

from ramd.domain.decision import ClusterView
from ramd.domain.model import ClusterState, Reinit
from ramd.domain.observation import ServerState
from ramd.policy.picture import living, observation, present, serving
from ramd.policy.syncset import confirmers


def due(state: ClusterState, node_id: int, copy: str) -> bool:
    """`copy`, which the node holds, goes now.

    Commits may have been acknowledged on its word: the primary takes the node out of the
    synchronous set first, as before a removal (attacks M7).
    """
    order = state.reinit(node_id)
    if order is None or not copy or order.copy != copy:
        return False
    return not any(node_id in rule.nodes for rule in state.sync.rules)


def finished(view: ClusterView, order: Reinit) -> bool:
    """The node holds another copy than the one that was to go, and streams with it."""
    seen, source = living(view, order.node_id), present(view).node_id
    if seen is None or seen.copy in ("", order.copy):
        return False
    return seen.state is ServerState.RUNNING and seen.upstream == source


def reinit_obstacle(view: ClusterView, node_id: int) -> str:
    """Why the copy of this member should not go now; '' if it may. Beside what the replicated state
    itself refuses (`ramd.state.reinit`)."""
    state = view.state
    if not serving(view):
        return "no primary serves: there is nothing to clone"
    if living(view, node_id) is None:
        return f"node {node_id} is not heard"
    other = next(
        (o for o in state.reinits if o.node_id != node_id and living(view, o.node_id)), None
    )
    if other is not None:
        return f"node {other.node_id} is being made anew: one at a time"
    return _enforced(view, node_id)


def _enforced(view: ClusterView, node_id: int) -> str:
    """Commits would have to wait for it, and so it could not be spared."""
    state, primary = view.state, present(view).node_id
    able = set(confirmers(state, primary))
    wanted, left = state.settings.num_sync_standbys, len(able - {node_id})
    if not state.settings.enforce_sync_standbys or node_id not in able or left >= wanted:
        return ""
    return (
        f"commits must wait for {wanted} replicas (enforce_sync_standbys), and without node"
        f" {node_id} only {left} may confirm: lower num_sync_standbys first"
    )


def copy_of(view: ClusterView, node_id: int) -> str:
    """Which copy the node was last heard to hold; '' if that is not known."""
    seen = observation(view, node_id)
    return seen.copy if seen is not None else ""
