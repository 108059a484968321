"""GET /metrics: what the present snapshot says, as samples of the declared metrics.

Lives here: the filling, the routes, and the counting of requests. Must not live here: names and
sentences of metrics (`ramd.metrics.declared`), judgement (`picture`). Start reading at `samples`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramd.api.health import CHECKS
from ramd.api.picture import CRITICAL, DEGRADED, HEALTHY, NodePicture, Picture, look
from ramd.domain.observation import FenceKind, ServerRole
from ramd.domain.raft import RaftFacts
from ramd.domain.service import Service, Snapshot, Stage
from ramd.metrics.exposition import Exposition, Sample
from ramd.metrics.requests import RequestMeter

PATHS = (
    "/metrics",
    "/prometheus",
    "/api/v1/metrics",
    "/api/v1/prometheus",
    "/api/v1/cluster/metrics",
)
"""Of the REST interface's port; open like the health checks."""
RAFT_ROLES = ("follower", "pre_candidate", "candidate", "leader")  # Raft's words
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class DaemonMetrics:
    """The metrics of one daemon: a meter of requests, and their text beside everything else."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.meter = RequestMeter()
        self._exposition = Exposition(self._samples, self.meter)

    def _samples(self) -> Iterator[Sample]:
        yield from samples(self._service.snapshot(), self._service.now_ns())
        yield from self.meter.samples()

    async def answer(self, request: Request) -> Response:
        """One scrape."""
        body, content_type = self._exposition.text(request.headers.get("accept", ""))
        headers = {"content-type": content_type, "cache-control": "no-store"}
        return Response(body, headers=headers)

    def routes(self, paths: tuple[str, ...] = PATHS) -> list[BaseRoute]:
        """One raw route for each path."""
        return [Route(path, self.answer, methods=["GET", "HEAD"]) for path in paths]


class Metered:
    """ASGI middleware: every HTTP request is counted with its route and its status."""

    def __init__(self, app: ASGIApp, *, meter: RequestMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began_s = time.perf_counter()
        self._meter.begin()
        try:
            await self._app(scope, receive, watched)
        finally:
            took_s = time.perf_counter() - began_s
            self._meter.end(scope["method"], _route_of(scope), status, took_s)


def _route_of(scope: Scope) -> str:
    """The route's own spelling, `/api/v1/nodes/{node_id}`; '' if there is none."""
    path: str = scope["path"]
    if path in PATHS or path in CHECKS:  # raw routes leave no trace of themselves
        return path
    return str(getattr(scope.get("route"), "path", ""))


# --- the snapshot as samples -----------------------------------------------------------------


def samples(snapshot: Snapshot, now_ns: int) -> Iterator[Sample]:
    """Everything the snapshot tells at `now_ns`. What is not known gives no sample."""
    formed = snapshot.daemon.stage is Stage.FORMED and snapshot.state.formed
    picture = look(snapshot, now_ns) if formed else None
    yield from _daemon(snapshot, now_ns, picture)
    if picture is not None:
        yield from _cluster(snapshot, picture)
        for node in picture.nodes:
            yield from _node(node, picture.primary_id)
    raft = snapshot.group.raft if snapshot.group is not None else None
    if raft is not None:
        yield from _raft(raft, now_ns)


def _daemon(snapshot: Snapshot, now_ns: int, picture: Picture | None) -> Iterator[Sample]:
    daemon = snapshot.daemon
    me = picture.node(daemon.node_id) if picture is not None else None
    lease_ms = snapshot.lease_left_ms(now_ns) if snapshot.state.epoch else 0
    reign = snapshot.state.reign
    mine = reign is not None and reign.node_id == daemon.node_id and lease_ms > 0
    serving = me is not None and me.fresh and me.role is ServerRole.PRIMARY
    yield Sample("ramd_build_info", 1, (daemon.version, platform.python_version()))
    yield Sample("ramd_node_info", 1, (str(daemon.node_id), daemon.name))
    yield Sample("ramd_daemon_uptime_seconds", max(0, now_ns - daemon.started_ns) / 1e9)
    for stage in Stage:
        yield Sample("ramd_daemon_stage", daemon.stage is stage, (stage.value,))
    yield Sample("ramd_snapshot_age_seconds", max(0, now_ns - snapshot.taken_ns) / 1e9)
    yield Sample("ramd_primary", mine and serving)
    yield Sample("ramd_lease_left_seconds", lease_ms / 1e3)
    yield Sample("ramd_lease_ttl_seconds", daemon.lease_ttl_ms / 1e3)
    seen = me.observation if me is not None and me.fresh else None
    yield Sample("ramd_postgresql_connected", seen is not None and seen.accepting)
    yield from _known("ramd_memory_usage_bytes", resident_bytes())
    until = daemon.certificate_until_unix_s
    yield from _known("ramd_tls_certificate_expiry_timestamp_seconds", until)


def _cluster(snapshot: Snapshot, picture: Picture) -> Iterator[Sample]:
    state, group, reign = snapshot.state, snapshot.group, snapshot.state.reign
    coordinator = group.coordinator if group is not None else None
    lags = [n.lag_seconds for n in picture.nodes if _lags(n, picture) and n.lag_seconds is not None]
    primary = picture.node(picture.primary_id) if picture.primary_id is not None else None
    yield Sample("ramd_cluster_info", 1, (state.cluster_name, state.cluster_id))
    yield Sample("ramd_cluster_nodes_total", len(picture.nodes))
    yield Sample("ramd_cluster_healthy_nodes", sum(n.healthy for n in picture.nodes))
    yield Sample("ramd_cluster_primary_node", picture.primary_id or 0)
    for word in (HEALTHY, DEGRADED, CRITICAL):
        yield Sample("ramd_cluster_status", picture.status == word, (word,))
    yield Sample("ramd_cluster_has_quorum", group is not None and group.has_quorum)
    coordinates = group is not None and group.is_coordinator
    yield Sample("ramd_cluster_is_leader", coordinates)  # Raft's word, which dashboards know
    yield Sample("ramd_cluster_coordinator_node", coordinator or 0)
    yield Sample("ramd_cluster_epoch", state.epoch)
    yield Sample("ramd_cluster_timeline", reign.timeline if reign is not None else 0)
    yield Sample("ramd_failover_count_total", state.failover_count)
    for phase in next((r.phases for r in reversed(state.decisions) if r.phases), ()):
        yield Sample("ramd_primary_change_seconds", phase.ms / 1e3, (phase.name,))
    automatic = state.settings.auto_failover_enabled
    yield Sample("ramd_cluster_auto_failover_enabled", automatic)
    if state.changed_unix_ms:
        changed_s = state.changed_unix_ms / 1e3
        yield Sample("ramd_cluster_last_change_timestamp_seconds", changed_s)
    if primary is not None and primary.fresh and primary.observation is not None:
        streams = len(primary.observation.streaming_replicas)
        yield Sample("ramd_replication_connections_active", streams)
    if lags:
        yield Sample("ramd_replication_lag_max_seconds", max(lags))
        yield Sample("ramd_replication_lag_average_seconds", sum(lags) / len(lags))


def _lags(node: NodePicture, picture: Picture) -> bool:
    return node.fresh and node.member.node_id != picture.primary_id


def _node(node: NodePicture, primary_id: int | None) -> Iterator[Sample]:
    labels = (str(node.member.node_id), node.member.name)
    yield Sample("ramd_node_up", node.fresh, labels)
    yield Sample("ramd_node_healthy", node.healthy, labels)
    yield Sample("ramd_node_primary", node.member.node_id == primary_id, labels)
    yield Sample("ramd_node_state", 1, (*labels, node.state.value))
    age_s = node.age_ms / 1e3 if node.age_ms is not None else None
    yield from _known("ramd_node_last_seen_seconds", age_s, labels)
    yield from _known("ramd_replication_lag_seconds", node.lag_seconds, labels)
    yield from _known("ramd_replication_lag_bytes", node.lag_bytes, labels)
    seen = node.observation
    if seen is None or not node.fresh:
        return
    if seen.position is not None:
        yield Sample("ramd_node_timeline", seen.position.timeline, labels)
        yield Sample("ramd_node_wal_lsn", seen.position.lsn, labels)
    yield from _known("ramd_node_replayed_lsn", seen.replayed_lsn, labels)
    if seen.fence is not FenceKind.NONE:
        yield Sample("ramd_node_fenced", seen.fenced, labels)
    yield Sample("ramd_node_epoch_opened", seen.epoch_opened, labels)
    yield Sample("ramd_node_lease_left_seconds", seen.lease_left_ms / 1e3, labels)
    yield Sample("ramd_node_flush_stuck_seconds", seen.flush_stuck_ms / 1e3, labels)
    yield Sample("ramd_node_failures", seen.failures, labels)
    yield Sample("ramd_node_loop_lag_seconds", seen.loop_lag_ms / 1e3, labels)


def _raft(raft: RaftFacts, now_ns: int) -> Iterator[Sample]:
    for role in RAFT_ROLES:
        yield Sample("ramd_raft_role", raft.role == role, (role,))
    yield Sample("ramd_raft_term", raft.term)
    yield Sample("ramd_raft_commit_index", raft.commit_index)
    yield Sample("ramd_raft_applied_index", raft.applied_index)
    yield Sample("ramd_raft_last_index", raft.last_index)
    yield Sample("ramd_raft_snapshot_index", raft.snapshot_index)
    yield Sample("ramd_raft_log_entries", raft.log_entries)
    yield Sample("ramd_raft_voters", len(raft.voters))
    yield Sample("ramd_raft_learners", len(raft.learners))
    yield Sample("ramd_raft_joint_change", bool(raft.outgoing))
    for node_id in sorted({*raft.voters, *raft.outgoing, *raft.learners}):
        yield Sample("ramd_raft_member", node_id not in raft.learners, (str(node_id),))
    for peer in raft.peers:
        labels = (str(peer.node_id),)
        yield Sample("ramd_raft_peer_connected", peer.connected, labels)
        yield from _known("ramd_raft_peer_match_index", peer.match_index, labels)
        if peer.contact_ns is not None:
            age_s = max(0, now_ns - peer.contact_ns) / 1e9
            yield Sample("ramd_raft_peer_last_contact_seconds", age_s, labels)
    if raft.disk is not None:
        disk = {"0.5": raft.disk.p50_ms, "0.99": raft.disk.p99_ms, "1": raft.disk.max_ms}
        for quantile, took_ms in disk.items():
            yield Sample("ramd_raft_disk_sync_seconds", took_ms / 1e3, (quantile,))
    yield Sample("ramd_loop_lag_seconds", raft.loop_lag_ms / 1e3)
    yield Sample("ramd_loop_lag_max_seconds", raft.loop_lag_max_ms / 1e3)
    yield from _counted(raft)


def _counted(raft: RaftFacts) -> Iterator[Sample]:
    counts = raft.counts
    for reason, count in counts.elections:
        yield Sample("ramd_raft_elections_total", count, (reason,))
    snapshots = {
        "taken": counts.snapshots_taken,
        "sent": counts.snapshots_sent,
        "installed": counts.snapshots_installed,
    }
    for what, count in snapshots.items():
        yield Sample("ramd_raft_snapshots_total", count, (what,))
    yield Sample("ramd_raft_messages_received_total", counts.messages_taken)
    yield Sample("ramd_raft_heartbeats_sent_total", counts.heartbeats_sent)
    yield Sample("ramd_raft_frames_dropped_total", counts.frames_dropped)
    for code, count in counts.refused:
        yield Sample("ramd_raft_connections_refused_total", count, (code,))
    yield Sample("ramd_loop_pauses_total", counts.pauses)


def _known(
    name: str, value: float | None, labels: tuple[str, ...] = ()
) -> tuple[()] | tuple[Sample]:
    return () if value is None else (Sample(name, value, labels),)


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the kernel does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None
