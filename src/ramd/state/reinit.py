"""A person orders that a replica's copy of the data is made anew: the commands and what they do.

Lives here: when each is acceptable, and its effect together with the record that goes into the
history. Must not live here: when a node carries the order out (`ramd.policy.reinit`). Start reading
at `ordered`.

An order names the copy that is to go, never just the node: once the node holds another one it asks
for nothing more, however often it is read, and whatever was lost on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ramd.domain.model import ClusterState, DecisionRecord, Reinit


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReinit:
    """The node is to keep this copy aside and to clone the primary. One order for each node: a
    later one takes the place of an earlier one."""

    reinit: Reinit
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndReinit:
    """The order for this copy of the node's is carried out, or void: `reason`."""

    node_id: int
    copy: str
    reason: str
    at_unix_ms: int = 0


def order_refusal(state: ClusterState, command: OrderReinit) -> str:
    """Why the node's copy cannot be made anew; '' if it can."""
    order, reign = command.reinit, state.reign
    if state.removal is not None:
        return "the cluster is being destroyed"
    if state.member(order.node_id) is None:
        return f"node {order.node_id} is not a member"
    if reign is None:
        return "there is no primary that could be cloned"
    if reign.node_id == order.node_id:
        return f"node {order.node_id} is the primary: switch over to another node first"
    if state.handover is not None and state.handover.target == order.node_id:
        return f"node {order.node_id} is about to become primary"
    if state.departure(order.node_id) is not None:
        return f"node {order.node_id} is being removed"
    if not order.copy:
        return f"which copy of the data node {order.node_id} holds is not known"
    if state.reinit(order.node_id) == order:
        return f"node {order.node_id} is being made anew already"
    return ""


def ordered(state: ClusterState, command: OrderReinit) -> tuple[ClusterState, DecisionRecord]:
    """The state with the order."""
    order = command.reinit
    later = replace(state, reinits=(*_others(state, order.node_id), order))
    return later, DecisionRecord(
        epoch=state.epoch,
        rule="reinit_ordered",
        action="OrderReinit",
        reason=f"node {order.node_id} is to keep its data directory aside and to clone the primary",
        details=(f"the copy that is to go: {order.copy}",),
        actor=order.requested_by or "policy",
        at_unix_ms=command.at_unix_ms,
    )


def end_refusal(state: ClusterState, command: EndReinit) -> str:
    """Why there is no such order to end; '' if there is."""
    order = state.reinit(command.node_id)
    if order is None or order.copy != command.copy:
        return f"no order stands for this copy of node {command.node_id}"
    return ""


def ended(state: ClusterState, command: EndReinit) -> tuple[ClusterState, DecisionRecord]:
    """The state without the order."""
    order = state.reinit(command.node_id)
    assert order is not None
    return without_reinit(state, command.node_id), DecisionRecord(
        epoch=state.epoch,
        rule="reinit_ended",
        action="EndReinit",
        reason=command.reason,
        actor=order.requested_by or "policy",
        at_unix_ms=command.at_unix_ms,
    )


def without_reinit(state: ClusterState, node_id: int) -> ClusterState:
    """`node_id` keeps its copy: it has become primary, or is no member any more."""
    return replace(state, reinits=_others(state, node_id))


def _others(state: ClusterState, node_id: int) -> tuple[Reinit, ...]:
    return tuple(order for order in state.reinits if order.node_id != node_id)
