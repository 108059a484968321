"""Every metric of the daemon: name, kind, labels and one sentence, declared here and nowhere else.

No web or metrics library is imported here, so that whoever only wants the names pays nothing.
Names that users of this field know are kept, also where a gauge ends in `_total`; beside such a one
stands a twin with a clean name. An alias shows the same values under another name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How Prometheus reads the values."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    UNTYPED = "unknown"
    """Only grows, but its name says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One family. A counter's name ends in `_total`. `alias_of` names the family whose values it
    repeats, times `factor`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    alias_of: str = ""
    factor: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A heading of docs/metrics.md, and when its families are there."""

    title: str
    about: str
    metrics: tuple[Metric, ...]


NODE = ("node", "name")
"""Labels of a member: its id and its name."""


def gauge(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, help=help_text, labels=labels)


def counter(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, help=help_text, labels=labels)


def untyped(name: str, help_text: str) -> Metric:
    return Metric(name=name, kind=Kind.UNTYPED, help=help_text)


CLUSTER = Topic(
    title="The cluster",
    about="As this daemon sees it, while it is a member of a formed cluster.",
    metrics=(
        gauge("ramd_cluster_info", "Always 1; the cluster's name and id.", ("cluster", "id")),
        gauge("ramd_cluster_nodes_total", "Members of the cluster."),
        gauge("ramd_cluster_healthy_nodes", "Members that do their part."),
        gauge("ramd_cluster_primary_node", "Node id of the agreed primary; 0: there is none."),
        gauge("ramd_cluster_status", "1 for the present verdict, 0 for the others.", ("status",)),
        gauge("ramd_cluster_has_quorum", "1 while this node knows a coordinator with a majority."),
        gauge("ramd_cluster_is_leader", "1 if this node is the coordinator (Raft leader)."),
        gauge("ramd_cluster_coordinator_node", "Node id of the coordinator; 0: none is known."),
        gauge("ramd_cluster_epoch", "Present epoch: grows with each change of the primary."),
        gauge("ramd_cluster_timeline", "Timeline of the present epoch; 0: none."),
        counter("ramd_failover_count_total", "Changes of the primary, planned ones included."),
        gauge(
            "ramd_primary_change_seconds",
            "What the last change of the primary took, by phase; `total`: from the last write to"
            " the first. Absent until one was timed.",
            ("phase",),
        ),
        gauge("ramd_cluster_auto_failover_enabled", "1 if failover is automatic."),
        gauge(
            "ramd_cluster_last_change_timestamp_seconds",
            "When the topology last changed, in seconds since 1970.",
        ),
        gauge("ramd_replication_connections_active", "Members that stream from the primary."),
        gauge("ramd_replication_lag_max_seconds", "The largest known lag of a replica."),
        gauge("ramd_replication_lag_average_seconds", "The mean of the known lags."),
    ),
)
NODES = Topic(
    title="Each node",
    about="What this daemon last heard of each member; nothing is shown that is not known.",
    metrics=(
        gauge("ramd_node_up", "1 if it was heard within a lease.", NODE),
        gauge("ramd_node_healthy", "1 if it does its part.", NODE),
        gauge("ramd_node_primary", "1 for the agreed primary.", NODE),
        gauge("ramd_node_state", "1 for the state its server is in.", (*NODE, "state")),
        gauge("ramd_node_last_seen_seconds", "Age of the last observation of it.", NODE),
        gauge("ramd_node_timeline", "Timeline of its WAL.", NODE),
        gauge("ramd_node_wal_lsn", "End of the WAL it holds, as a number of bytes.", NODE),
        gauge("ramd_node_replayed_lsn", "Up to where a replica has replayed, in bytes.", NODE),
        gauge("ramd_replication_lag_seconds", "How late a replica replays.", NODE),
        gauge("ramd_replication_lag_bytes", "WAL that a replica has not received.", NODE),
        gauge("ramd_node_fenced", "1 if its server would acknowledge no write.", NODE),
        gauge("ramd_node_epoch_opened", "Last epoch in which it accepted writes.", NODE),
        gauge("ramd_node_lease_left_seconds", "What was left of its lease when it spoke.", NODE),
        gauge("ramd_node_flush_stuck_seconds", "Age of a flush of WAL that does not end.", NODE),
        gauge("ramd_node_failures", "Failures in a row at what it is to become.", NODE),
        gauge("ramd_node_loop_lag_seconds", "How late its control loop was.", NODE),
    ),
)
DAEMON = Topic(
    title="This daemon and its server",
    about="Always there.",
    metrics=(
        gauge("ramd_build_info", "Always 1; what runs.", ("version", "python")),
        gauge("ramd_node_info", "Always 1; which node this is.", ("node", "name")),
        gauge("ramd_daemon_uptime_seconds", "Since the daemon started."),
        gauge("ramd_daemon_stage", "1 for the stage it is in.", ("stage",)),
        gauge("ramd_snapshot_age_seconds", "Age of the picture that these values are of."),
        gauge("ramd_primary", "1 while this node is the primary and its lease runs."),
        gauge("ramd_lease_left_seconds", "What is left of this node's own lease; 0: none."),
        gauge("ramd_lease_ttl_seconds", "Length of a lease."),
        gauge("ramd_postgresql_connected", "1 if this node's server answers SQL."),
        gauge("ramd_memory_usage_bytes", "Resident memory of the daemon."),
        gauge(
            "ramd_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in force expires, in seconds since 1970; absent without TLS.",
        ),
    ),
)
RAFT = Topic(
    title="Raft",
    about="This node's member of the group, while there is one. Counters begin at 0 with it.",
    metrics=(
        gauge("ramd_raft_role", "1 for its role.", ("role",)),
        gauge("ramd_raft_term", "Its term."),
        gauge("ramd_raft_commit_index", "Index up to which it knows entries to be committed."),
        gauge("ramd_raft_applied_index", "Index up to which it has applied them."),
        gauge("ramd_raft_last_index", "Last index of its log."),
        gauge("ramd_raft_snapshot_index", "Last index that is in its snapshot; 0: none."),
        gauge("ramd_raft_log_entries", "Entries that it keeps in memory."),
        gauge("ramd_raft_voters", "Members that vote."),
        gauge("ramd_raft_learners", "Members that do not vote."),
        gauge("ramd_raft_joint_change", "1 while a change of the voters is under way."),
        gauge("ramd_raft_member", "1 for a voter, 0 for a learner.", ("node",)),
        gauge("ramd_raft_peer_connected", "1 if the connection to it is usable.", ("node",)),
        gauge(
            "ramd_raft_peer_match_index",
            "Up to where its log is known to be the coordinator's; on the coordinator.",
            ("node",),
        ),
        gauge("ramd_raft_peer_last_contact_seconds", "Since it was last heard by Raft.", ("node",)),
        gauge(
            "ramd_raft_disk_sync_seconds",
            "How long recent syncs of its log took: quantiles 0.5 and 0.99, and 1, the longest.",
            ("quantile",),
        ),
        counter("ramd_raft_elections_total", "Elections it began, by reason.", ("reason",)),
        counter("ramd_raft_snapshots_total", "Snapshots, by what was done.", ("what",)),
        counter("ramd_raft_messages_received_total", "Raft messages taken from peers."),
        counter("ramd_raft_heartbeats_sent_total", "Heartbeats sent."),
        counter("ramd_raft_frames_dropped_total", "Frames that a full queue did not take."),
        counter(
            "ramd_raft_connections_refused_total",
            "Connections between daemons that either side refused, by code.",
            ("code",),
        ),
        gauge("ramd_loop_lag_seconds", "How late the last timer of the control loop fired."),
        gauge("ramd_loop_lag_max_seconds", "The longest since the start."),
        counter("ramd_loop_pauses_total", "Times the control loop stood still for over 50 ms."),
    ),
)
HTTP = Topic(
    title="HTTP",
    about="Requests to the REST interface of this daemon; `route` is the route's own spelling.",
    metrics=(
        counter("ramd_http_requests_total", "Requests answered.", ("method", "route", "code")),
        Metric(
            name="ramd_http_request_duration_seconds",
            kind=Kind.HISTOGRAM,
            help="How long they took.",
            labels=("method", "route"),
        ),
        gauge("ramd_http_requests_in_flight", "Requests under way."),
        untyped("ramd_http_requests_2xx", "Requests answered with 2xx."),
        untyped("ramd_http_requests_4xx", "Requests answered with 4xx."),
        untyped("ramd_http_requests_5xx", "Requests answered with 5xx."),
    ),
)

_ORIGINALS = (CLUSTER, NODES, DAEMON, RAFT, HTTP)
_BY_NAME = {metric.name: metric for topic in _ORIGINALS for metric in topic.metrics}


def _alias(name: str, of: str, *, kind: Kind | None = None, factor: float = 1.0) -> Metric:
    original = _BY_NAME[of]
    return Metric(
        name=name,
        kind=kind or original.kind,
        help=f"The same as {of}{', in milliseconds' if factor != 1.0 else ''}.",
        labels=original.labels,
        alias_of=of,
        factor=factor,
    )


ALIASES = Topic(
    title="Other names",
    about="The same values under names that dashboards know, or under cleaner ones.",
    metrics=(
        _alias("ramd_cluster_nodes", "ramd_cluster_nodes_total"),
        _alias("ramd_cluster_nodes_healthy", "ramd_cluster_healthy_nodes"),
        _alias("ramd_cluster_primary_node_id", "ramd_cluster_primary_node"),
        _alias("ramd_failovers_total", "ramd_failover_count_total"),
        _alias("ramd_cluster_leader_term", "ramd_raft_term"),  # Raft's word
        _alias("ramd_raft_leader", "ramd_cluster_is_leader"),  # Raft's word
        _alias("ramd_raft_healthy", "ramd_cluster_has_quorum"),
        _alias("ramd_node_replication_lag_ms", "ramd_replication_lag_seconds", factor=1000.0),
        _alias("ramd_replication_lag_max_ms", "ramd_replication_lag_max_seconds", factor=1000.0),
        _alias(
            "ramd_replication_lag_avg_ms", "ramd_replication_lag_average_seconds", factor=1000.0
        ),
        _alias("ramd_uptime_seconds", "ramd_daemon_uptime_seconds"),
    ),
)
TOPICS = (*_ORIGINALS, ALIASES)


def all_metrics(topics: Iterable[Topic] = TOPICS) -> tuple[Metric, ...]:
    """Every family in the order of its declaration."""
    return tuple(metric for topic in topics for metric in topic.metrics)


METRICS = {metric.name: metric for metric in all_metrics()}
assert len(METRICS) == len(all_metrics()), "a metric is declared twice"
