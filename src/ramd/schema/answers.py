"""What answers carry as `data`. None always means "not known" or "there is none", never zero."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ramd.schema.envelope import TIMESTAMP, Answer

Role = Literal["primary", "replica"]
NodeState = Literal[
    "running", "starting", "stopped", "crashed", "hung", "rejoining", "unknown"
]  # the words of ramd.domain.observation.ServerState; a test compares
FenceWord = Literal["extension", "stand_in", "off", "none"]
Vote = Literal["voter", "learner"]
ClusterHealthWord = Literal["healthy", "degraded", "critical"]


class HealthData(Answer):
    """GET /health: this daemon; answers before there is a cluster too."""

    daemon_status: Literal["running", "stopping"]
    uptime_seconds: int = Field(ge=0)
    version: str


class ClusterHealthData(Answer):
    """GET /cluster/health."""

    cluster_status: ClusterHealthWord
    healthy_nodes: int = Field(ge=0)
    total_nodes: int = Field(ge=1)
    primary_node_id: int | None
    replication_lag_ms: int | None
    """The largest of the healthy replicas."""
    reason: str = ""
    """Why it is not healthy, for people."""


class ClusterStatusData(Answer):
    """GET /cluster/status."""

    cluster_id: str
    cluster_name: str
    node_count: int = Field(ge=1)
    primary_node_id: int | None
    leader_node_id: int | None
    """The coordinator."""
    has_quorum: bool
    auto_failover_enabled: bool
    synchronous_replication: bool
    last_topology_change: str | None = Field(pattern=TIMESTAMP)
    epoch: int = Field(ge=0)
    timeline: int | None
    term: int = Field(ge=0)
    failover_count: int = Field(ge=0)
    authentication: Literal["trust", "scram-sha-256"]
    """How clients by TCP prove who they are to PostgreSQL."""
    reason: str = ""
    """What the coordinator does or waits for, for people."""


class NodeData(Answer):
    """One node; `port` is PostgreSQL's."""

    id: int
    name: str
    hostname: str
    port: int
    role: Role | None
    state: NodeState
    priority: int
    replication_lag_ms: int | None
    last_seen: str | None = Field(pattern=TIMESTAMP)
    postgresql_version: str | None
    uptime_seconds: int | None
    replication_lag_bytes: int | None
    timeline: int | None
    lsn: str | None
    http_port: int
    raft_port: int
    is_leader: bool  # of Raft: the coordinator; a name that users know
    nofailover: bool
    activity: str
    """What the daemon is doing with it, for people."""


class NodesData(Answer):
    """GET /nodes."""

    nodes: tuple[NodeData, ...]


class CreateData(Answer):
    """POST /cluster/create."""

    cluster_id: str
    nodes_created: int
    primary_node: int
    replica_nodes: tuple[int, ...]


class DestroyData(Answer):
    """POST /cluster/destroy."""

    cluster_destroyed: bool
    nodes_stopped: int
    data_removed: bool


class FailoverData(Answer):
    """POST /cluster/failover."""

    failover_triggered: bool
    old_primary: int | None
    new_primary: int | None
    failover_time_ms: int | None
