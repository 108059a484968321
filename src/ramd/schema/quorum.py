"""The group itself: who votes, how far each member is, and how a lost majority is given up."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramd.schema.answers import ClusterHealthWord
from ramd.schema.envelope import TIMESTAMP, Answer
from ramd.schema.requests import NODES_MAX, Request

Selector = (
    Annotated[int, Field(ge=1, le=NODES_MAX)] | Annotated[str, Field(min_length=1, max_length=63)]
)


class QuorumMemberData(Answer):
    """One member of the group; null is "not known here"."""

    id: int
    name: str
    voter: bool
    leaving: bool
    """A change under way takes its vote."""
    raft_role: str | None
    reachable: bool
    """This daemon itself, or one it has a connection to or has just heard."""
    term: int | None
    commit_index: int | None
    applied_index: int | None
    match_index: int | None
    """Up to here its log is known to be the coordinator's; only the coordinator knows."""
    last_contact_ms: int | None
    """Since Raft heard it."""


class ElectionData(Answer):
    """Something about who coordinates, as this member saw it."""

    at: str = Field(pattern=TIMESTAMP)
    age_ms: int
    term: int
    reason: str


class DiskSyncData(Answer):
    """How long recent syncs of the group's log took."""

    p50_ms: float
    p99_ms: float
    max_ms: float


class QuorumStatusData(Answer):
    """GET /quorum/status: what the daemon that was asked knows of its group."""

    cluster_status: ClusterHealthWord
    """Of the group alone: critical without a quorum, degraded while a member is missing."""
    reason: str
    cluster_name: str
    cluster_id: str
    group_id: str
    has_quorum: bool
    voters: int
    voters_reachable: int
    majority: int
    learners: int
    answered_by_node_id: int
    leader_node_id: int | None
    """The coordinator; only it knows how far every member is."""
    raft_role: str
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    snapshot_index: int
    log_entries: int
    joint_change: bool
    """A change of the voters is under way: both majorities have to agree."""
    transfer_to_node_id: int | None
    members: tuple[QuorumMemberData, ...]
    disk_sync: DiskSyncData | None
    elections: tuple[ElectionData, ...]
    """The latest, newest first."""
    elections_begun: dict[str, int]
    """By this member since its daemon started, by reason."""
    loop_pauses: int
    loop_pause_max_ms: int
    snapshots_taken: int
    snapshots_sent: int
    snapshots_installed: int
    frames_dropped: int
    connections_refused: dict[str, int]
    """Between daemons, by either side, by code."""


class RecoverQuorumRequest(Request):
    """Without `apply` nothing is done and the answer says what would be."""

    apply: bool = False
    cluster_name: Annotated[str, Field(max_length=63)] | None = None
    confirmed_off: Annotated[tuple[Selector, ...], Field(max_length=NODES_MAX)] = ()
    """Exactly the other voters, by id or name: their hosts are off and stay off."""
    force: bool = False
    """Also on a node that had no vote."""


class LostNodeData(Answer):
    """A member that the new group will refuse for ever."""

    id: int
    name: str
    voter: bool
    last_contact_ms: int | None
    last_seen_ms: int | None
    lsn: str | None
    timeline: int | None


class RecoverQuorumData(Answer):
    """POST /quorum/recover: what it starts from, what it may lose, and what was done."""

    recovered: bool
    node_id: int
    voter: bool
    cluster_name: str
    epoch: int
    last_primary_node_id: int | None
    term: int
    last_index: int
    commit_index: int
    uncertain_entries: int
    """The end of the log of which it is not known whether it was committed: it counts from now."""
    last_contact_ms: int | None
    """What the others agreed on after it is lost."""
    wait_ms: int
    lsn: str | None
    timeline: int | None
    best_node_id: int | None
    """Who is known to have held more WAL than this node; null: nobody."""
    lost_bytes_min: int | None
    """At least so much WAL is missing here; null: not known."""
    lost_nodes: tuple[LostNodeData, ...]
    new_cluster_id: str | None
    primary_node_id: int | None
    recovery_time_ms: int | None
