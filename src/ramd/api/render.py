"""Domain values → answer models. Pure but for the wall clock, which is handed in for people.

Must not live here: HTTP, judgement (that is `picture`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

from ramd.api.picture import NodePicture, Picture
from ramd.api.sync_view import sync_state
from ramd.domain import service as domain
from ramd.domain.decision import Hold
from ramd.domain.lsn import format_lsn
from ramd.domain.model import ClusterState, DecisionRecord, Member
from ramd.domain.service import (
    CreateResult,
    DestroyRequest,
    DestroyResult,
    FailoverResult,
    Snapshot,
)
from ramd.schema.answers import (
    ClusterHealthData,
    ClusterHealthWord,
    FenceWord,
    NodeState,
    Role,
    Vote,
)
from ramd.schema.cluster import (
    CreateView,
    DecisionView,
    DestroyView,
    FailoverView,
    HealthView,
    NodesView,
    NodeView,
    PhaseView,
    StatusView,
)
from ramd.schema.envelope import timestamp_of

Stage = Literal["clusterless", "forming", "formed", "removed"]
Authentication = Literal["trust", "scram-sha-256"]


def health(snapshot: Snapshot, now_ns: int) -> HealthView:
    """GET /health."""
    daemon = snapshot.daemon
    return HealthView(
        daemon_status=cast("Literal['running', 'stopping']", str(daemon.status)),
        uptime_seconds=max(0, now_ns - daemon.started_ns) // 1_000_000_000,
        version=daemon.version,
        node_id=daemon.node_id,
        name=daemon.name,
        stage=cast("Stage", str(daemon.stage)),
        forming=daemon.forming_text if daemon.stage is not domain.Stage.REMOVED else "",
        removed=daemon.forming_text if daemon.stage is domain.Stage.REMOVED else "",
    )


def cluster_health(picture: Picture) -> ClusterHealthData:
    """GET /cluster/health."""
    return ClusterHealthData(
        cluster_status=cast("ClusterHealthWord", picture.status),
        healthy_nodes=sum(1 for node in picture.nodes if node.healthy),
        total_nodes=len(picture.nodes),
        primary_node_id=picture.primary_id,
        replication_lag_ms=_worst_lag_ms(picture),
        reason=picture.reason,
    )


def cluster_status(snapshot: Snapshot, picture: Picture, now_unix_ms: int) -> StatusView:
    """GET /cluster/status."""
    state, group, reign = snapshot.state, snapshot.group, snapshot.state.reign
    return StatusView(
        cluster_id=state.cluster_id,
        cluster_name=state.cluster_name,
        node_count=len(picture.nodes),
        healthy_nodes=sum(1 for node in picture.nodes if node.healthy),
        primary_node_id=picture.primary_id,
        leader_node_id=group.coordinator if group is not None else None,
        has_quorum=group is not None and group.has_quorum,
        auto_failover_enabled=state.settings.auto_failover_enabled,
        synchronous_replication=bool(state.sync.goal.members),
        sync=sync_state(snapshot),
        last_topology_change=_moment(state.changed_unix_ms),
        epoch=state.epoch,
        timeline=reign.timeline if reign is not None else None,
        term=group.term if group is not None else 0,
        failover_count=state.failover_count,
        authentication=cast("Authentication", snapshot.daemon.authentication),
        cluster_status=cast("ClusterHealthWord", picture.status),
        reason=picture.reason,
        system_id=state.system_id or None,
        last_decision=_last_decision(state.decisions),
        nodes=nodes(snapshot, picture, now_unix_ms).nodes,
    )


def nodes(snapshot: Snapshot, picture: Picture, now_unix_ms: int) -> NodesView:
    """GET /nodes."""
    return NodesView(nodes=tuple(node(snapshot, one, now_unix_ms) for one in picture.nodes))


def node(snapshot: Snapshot, one: NodePicture, now_unix_ms: int) -> NodeView:
    """GET /nodes/{id}. What only a fresh observation can tell is None without one."""
    member = one.member
    seen = one.observation if one.fresh else None
    position = seen.position if seen is not None else None
    lag_ms = None if one.lag_seconds is None else round(one.lag_seconds * 1000)
    group = snapshot.group
    return NodeView(
        id=member.node_id,
        name=member.name,
        hostname=member.hostname,
        port=member.postgresql_port,
        role=cast("Role", str(one.role)),
        state=cast("NodeState", str(one.state)),
        priority=member.priority,
        replication_lag_ms=lag_ms,
        last_seen=None if one.age_ms is None else timestamp_of(now_unix_ms - one.age_ms),
        postgresql_version=(one.observation.version or None) if one.observation else None,
        uptime_seconds=_uptime_seconds(seen.started_unix_ms if seen else 0, now_unix_ms),
        replication_lag_bytes=one.lag_bytes,
        timeline=position.timeline if position is not None else None,
        lsn=format_lsn(position.lsn) if position is not None else None,
        http_port=member.http_port,
        raft_port=member.raft_port,
        is_leader=group is not None and group.coordinator == member.node_id,  # Raft's
        nofailover=member.nofailover,
        activity=seen.activity if seen is not None else "",
        healthy=one.healthy,
        trouble=one.trouble,
        last_seen_age_ms=one.age_ms,
        upstream_node_id=seen.upstream if seen is not None else None,
        vote=_vote(snapshot, member.node_id),
        leaving=snapshot.state.departure(member.node_id) is not None,
        reinit=snapshot.state.reinit(member.node_id) is not None,
        fence=cast("FenceWord", str(seen.fence)) if seen is not None else None,
        fenced=seen.fenced if seen is not None else None,
    )


def _vote(snapshot: Snapshot, node_id: int) -> Vote | None:
    group = snapshot.group
    if group is None or not group.voting.has(node_id):
        return None
    return "voter" if node_id in group.voting.voters else "learner"


def created(result: CreateResult, state: ClusterState) -> CreateView:
    """POST /cluster/create. Addresses are those of the members in `state`."""
    replicas = (state.member(node_id) for node_id in result.replica_nodes)
    primary = state.member(result.primary_node)
    return CreateView(
        cluster_id=result.cluster_id,
        cluster_name=result.cluster_name,
        nodes_created=1 + len(result.replica_nodes),
        primary_node=result.primary_node,
        replica_nodes=result.replica_nodes,
        primary_address=_address(primary) if primary is not None else None,
        replica_addresses=tuple(_address(one) for one in replicas if one is not None),
    )


def destroyed(request: DestroyRequest, result: DestroyResult) -> DestroyView:
    """POST /cluster/destroy."""
    return DestroyView(
        cluster_destroyed=True,
        nodes_stopped=len(result.nodes_stopped),
        data_removed=request.remove_data,
        cluster_name=result.cluster_name,
        nodes_silent=result.nodes_silent,
        kept_aside=result.kept_aside,
    )


def failed_over(result: FailoverResult) -> FailoverView:
    """POST /cluster/failover."""
    return FailoverView(
        failover_triggered=True,
        old_primary=result.old_primary,
        new_primary=result.new_primary,
        failover_time_ms=result.failover_time_ms,
        epoch=result.epoch,
        outage_ms=result.outage_ms,
        phases=phase_views(result.phases),
    )


def _worst_lag_ms(picture: Picture) -> int | None:
    """The largest known lag of the replicas that do their part."""
    lags = [
        one.lag_seconds
        for one in picture.nodes
        if one.healthy and one.member.node_id != picture.primary_id and one.lag_seconds is not None
    ]
    return round(max(lags) * 1000) if lags else None


def _last_decision(decisions: tuple[DecisionRecord, ...]) -> DecisionView | None:
    """The newest that changed something; where nothing ever did, the newest."""
    acted = [record for record in decisions if record.action != Hold.__name__]
    kept = acted or decisions
    return decision_view(kept[-1]) if kept else None


def decision_view(record: DecisionRecord) -> DecisionView:
    """One entry of the history."""
    return DecisionView(
        epoch=record.epoch,
        rule=record.rule,
        action=record.action,
        reason=record.reason,
        details=record.details,
        actor=record.actor,
        at=_moment(record.at_unix_ms),
        phases=phase_views((phase.name, phase.ms) for phase in record.phases),
    )


def phase_views(phases: Iterable[tuple[str, int]]) -> tuple[PhaseView, ...]:
    """The timeline of a change of primary."""
    return tuple(PhaseView(name=name, ms=ms) for name, ms in phases)


def _moment(unix_ms: int) -> str | None:
    return timestamp_of(unix_ms) if unix_ms else None


def _uptime_seconds(started_unix_ms: int, now_unix_ms: int) -> int | None:
    return max(0, now_unix_ms - started_unix_ms) // 1000 if started_unix_ms else None


def _address(member: Member) -> str:
    host = f"[{member.hostname}]" if ":" in member.hostname else member.hostname
    return f"{host}:{member.postgresql_port}"
