"""What this version's answers carry beyond the documented core of `answers`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ramd.schema.answers import (
    ClusterHealthWord,
    ClusterStatusData,
    CreateData,
    DestroyData,
    FailoverData,
    FenceWord,
    HealthData,
    NodeData,
    Vote,
)
from ramd.schema.envelope import TIMESTAMP, Answer
from ramd.schema.sync import SyncStateView


class HealthView(HealthData):
    """GET /health."""

    node_id: int
    name: str
    stage: Literal["clusterless", "forming", "formed", "removed"]
    forming: str
    """While forming: what is waited for, for people."""
    removed: str
    """Of a node that was removed from its cluster: what brings it back, for people."""


class NodeView(NodeData):
    """One node, and whether it does its part."""

    healthy: bool
    trouble: str
    """Why it does not do its part, for people; empty exactly when it is healthy."""
    last_seen_age_ms: int | None
    upstream_node_id: int | None
    """The node it streams from now."""
    vote: Vote | None
    """Its voice in the group; a learner has none yet, or there are enough voters without it."""
    leaving: bool
    reinit: bool
    """A person ordered a new copy, and the node does not stream with it yet."""
    """It is to be removed, or replaced once its successor can vote."""
    fence: FenceWord | None
    """Who keeps its server from acknowledging without a lease; none: no server runs."""
    fenced: bool | None
    """It would not acknowledge a write now."""


class NodesView(Answer):
    """GET /nodes."""

    nodes: tuple[NodeView, ...]


class PhaseView(Answer):
    """One part of the time without writes, in order; the last, `total`, is all of it."""

    name: str
    ms: int = Field(ge=0)


class DecisionView(Answer):
    """One recorded decision. `phases`: of a grant, once its primary takes writes."""

    epoch: int
    rule: str
    action: str
    reason: str
    details: tuple[str, ...]
    actor: str
    at: str | None = Field(pattern=TIMESTAMP)
    phases: tuple[PhaseView, ...] = ()


class StatusView(ClusterStatusData):
    """GET /cluster/status: one coherent picture, the nodes included."""

    cluster_status: ClusterHealthWord
    healthy_nodes: int
    system_id: str | None
    """PostgreSQL's system identifier."""
    sync: SyncStateView
    last_decision: DecisionView | None
    nodes: tuple[NodeView, ...]


class CreateView(CreateData):
    """POST /cluster/create; addresses are PostgreSQL's host:port."""

    cluster_name: str
    primary_address: str | None
    replica_addresses: tuple[str, ...]


class DestroyView(DestroyData):
    """POST /cluster/destroy."""

    cluster_name: str
    nodes_silent: tuple[int, ...]
    """Not heard since; they finish when they see the record."""
    kept_aside: tuple[str, ...]
    """Data directories renamed aside, as far as they are known to this daemon."""


class FailoverView(FailoverData):
    """POST /cluster/failover."""

    epoch: int
    outage_ms: int | None
    """How long no server was able to accept a write."""
    phases: tuple[PhaseView, ...] = ()
    """What that time went to."""
