"""The routes about the group itself: how it stands, and going on without a lost majority.

Lives here: thin handlers, and facts → answer models. Must not live here: what a recovery needs
(`ramd.recovery`). Start reading at `add_quorum_routes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastapi import APIRouter, Request
from starlette.responses import Response

from ramd.api.dispatch import Dispatcher
from ramd.api.errors import now_unix_ms
from ramd.api.limits import Limits
from ramd.api.members import Common
from ramd.api.picture import CRITICAL, DEGRADED, HEALTHY, Picture
from ramd.domain import service as domain
from ramd.domain.consensus import GroupStatus
from ramd.domain.errors import Unavailable
from ramd.domain.lsn import format_lsn
from ramd.domain.observation import Position, RaftMark
from ramd.domain.quorum import LostNode, RecoverRequest, RecoverResult
from ramd.domain.raft import RaftFacts
from ramd.schema import quorum as views
from ramd.schema.answers import ClusterHealthWord
from ramd.schema.envelope import Success, timestamp_of
from ramd.schema.requests import read_request

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumHandlers:
    """What the routes do, over one service."""

    service: domain.Service
    dispatcher: Dispatcher
    limits: Limits
    common: Common

    async def status(self) -> Response:
        """Who votes, how far each member is, and what this member went through."""
        snapshot, picture = self.common.look()
        data = status_of(snapshot, picture, self.service.now_ns(), now_unix_ms())
        return self.common.success(f"quorum {data.cluster_status}: {data.reason}", data, 200)

    async def recover(self, request: Request) -> Response:
        """Say what a recovery on this node would start from; with `apply`, do it."""
        body = read_request(views.RecoverQuorumRequest, await request.body())
        _, picture = self.common.look()
        select = self.common.select
        off = [select(picture, str(one), "confirmed_off").node_id for one in body.confirmed_off]
        wanted = RecoverRequest(
            apply=body.apply,
            cluster_name=body.cluster_name or "",
            confirmed_off=tuple(off),
            learner=body.force,
            actor=self.common.actor(request),
        )
        limit_s = self.limits.recover_timeout_s
        result = await self.dispatcher.run(
            "quorum recover",
            lambda: self.service.recover_quorum(wanted, timeout_s=limit_s),
            timeout_s=limit_s,
        )
        done = f"node {result.plan.node_id} goes on alone" if result.done else "nothing was done"
        return self.common.success(done, recovered(result), 200)


def add_quorum_routes(router: APIRouter, handlers: QuorumHandlers) -> None:
    """The documented routes."""
    router.get("/quorum/status", tags=["quorum"], response_model=Success[views.QuorumStatusData])(
        handlers.status
    )
    router.post(
        "/quorum/recover",
        tags=["quorum"],
        response_model=Success[views.RecoverQuorumData],
        openapi_extra=handlers.common.body_of(views.RecoverQuorumRequest),
    )(handlers.recover)


# --- how it stands ---------------------------------------------------------------------------


def status_of(
    snapshot: domain.Snapshot, picture: Picture, now_ns: int, unix_ms: int
) -> views.QuorumStatusData:
    """What this daemon knows. Raises Unavailable before its member was seen once."""
    group = snapshot.group
    if group is None or group.raft is None:
        raise Unavailable("this daemon has not looked at its group yet", hint="try again")
    raft = group.raft
    members = _members(snapshot, raft, now_ns)
    word, reason = _verdict(group, raft, members, picture)
    counts = raft.counts
    return views.QuorumStatusData(
        cluster_status=cast("ClusterHealthWord", word),
        reason=reason,
        cluster_name=snapshot.state.cluster_name,
        cluster_id=snapshot.state.cluster_id,
        group_id=raft.group_id,
        has_quorum=group.has_quorum,
        voters=len(raft.voters),
        voters_reachable=sum(m.reachable for m in members if m.id in raft.voters),
        majority=raft.majority,
        learners=len(raft.learners),
        answered_by_node_id=group.me,
        leader_node_id=group.coordinator,
        raft_role=raft.role,
        term=raft.term,
        commit_index=raft.commit_index,
        applied_index=raft.applied_index,
        last_index=raft.last_index,
        snapshot_index=raft.snapshot_index,
        log_entries=raft.log_entries,
        joint_change=bool(raft.outgoing),
        transfer_to_node_id=raft.transfer_to,
        members=members,
        disk_sync=_disk(raft),
        elections=_elections(raft, now_ns, unix_ms),
        elections_begun=dict(counts.elections),
        loop_pauses=counts.pauses,
        loop_pause_max_ms=raft.loop_lag_max_ms,
        snapshots_taken=counts.snapshots_taken,
        snapshots_sent=counts.snapshots_sent,
        snapshots_installed=counts.snapshots_installed,
        frames_dropped=counts.frames_dropped,
        connections_refused=dict(counts.refused),
    )


def _members(
    snapshot: domain.Snapshot, raft: RaftFacts, now_ns: int
) -> tuple[views.QuorumMemberData, ...]:
    everybody = sorted({*raft.voters, *raft.outgoing, *raft.learners})
    return tuple(_member(snapshot, raft, node_id, now_ns) for node_id in everybody)


def _member(
    snapshot: domain.Snapshot, raft: RaftFacts, node_id: int, now_ns: int
) -> views.QuorumMemberData:
    known, peer = snapshot.state.member(node_id), raft.peer(node_id)
    me = node_id == snapshot.daemon.node_id
    mark = _own_mark(raft) if me else _mark(snapshot, node_id)
    contact_ns = peer.contact_ns if peer is not None else None
    age_ms = None if contact_ns is None else max(0, now_ns - contact_ns) // NS_PER_MS
    recent = age_ms is not None and age_ms <= snapshot.daemon.lease_ttl_ms
    return views.QuorumMemberData(
        id=node_id,
        name=known.name if known is not None else f"node{node_id}",
        voter=node_id in raft.voters,
        leaving=node_id in raft.outgoing and node_id not in raft.voters,
        raft_role=mark.role if mark is not None else None,
        reachable=me or recent or (peer is not None and peer.connected),
        term=mark.term if mark is not None else None,
        commit_index=mark.commit_index if mark is not None else None,
        applied_index=mark.applied_index if mark is not None else None,
        match_index=_match(raft, node_id, me=me),
        last_contact_ms=0 if me else age_ms,
    )


def _match(raft: RaftFacts, node_id: int, *, me: bool) -> int | None:
    if raft.role != "leader":  # Raft's word
        return None
    if me:
        return raft.last_index
    peer = raft.peer(node_id)
    return peer.match_index if peer is not None else None


def _own_mark(raft: RaftFacts) -> RaftMark:
    return RaftMark(
        role=raft.role,
        term=raft.term,
        commit_index=raft.commit_index,
        applied_index=raft.applied_index,
    )


def _mark(snapshot: domain.Snapshot, node_id: int) -> RaftMark | None:
    heard = snapshot.of(node_id)
    return heard.observation.raft if heard is not None else None


def _verdict(
    group: GroupStatus,
    raft: RaftFacts,
    members: tuple[views.QuorumMemberData, ...],
    picture: Picture,
) -> tuple[str, str]:
    reachable = sum(m.reachable for m in members if m.voter)
    score = f"{reachable} of {len(raft.voters)} voters in touch, {raft.majority} are needed"
    if not group.has_quorum:
        return CRITICAL, f"no quorum: {score}"
    missing = [m.name for m in members if not m.reachable]
    if missing:
        return DEGRADED, f"quorum, but not in touch: {', '.join(missing)}; {score}"
    if raft.outgoing:
        return DEGRADED, f"a change of the voters is under way; {score}"
    strangers = [n.member.name for n in picture.nodes if not _belongs(raft, n.member.node_id)]
    if strangers:
        return DEGRADED, f"members that the group does not hold: {', '.join(strangers)}; {score}"
    return HEALTHY, score


def _belongs(raft: RaftFacts, node_id: int) -> bool:
    return node_id in (*raft.voters, *raft.outgoing, *raft.learners)


def _disk(raft: RaftFacts) -> views.DiskSyncData | None:
    if raft.disk is None:
        return None
    disk = raft.disk
    return views.DiskSyncData(p50_ms=disk.p50_ms, p99_ms=disk.p99_ms, max_ms=disk.max_ms)


def _elections(raft: RaftFacts, now_ns: int, unix_ms: int) -> tuple[views.ElectionData, ...]:
    found = []
    for note in reversed(raft.elections):
        age_ms = max(0, now_ns - note.at_ns) // NS_PER_MS
        found.append(
            views.ElectionData(
                at=timestamp_of(unix_ms - age_ms), age_ms=age_ms, term=note.term, reason=note.reason
            )
        )
    return tuple(found)


# --- recovery --------------------------------------------------------------------------------


def recovered(result: RecoverResult) -> views.RecoverQuorumData:
    """POST /quorum/recover."""
    plan = result.plan
    return views.RecoverQuorumData(
        recovered=result.done,
        node_id=plan.node_id,
        voter=plan.voter,
        cluster_name=plan.cluster_name,
        epoch=result.epoch if result.done else plan.epoch,
        last_primary_node_id=plan.primary,
        term=plan.term,
        last_index=plan.last_index,
        commit_index=plan.commit_index,
        uncertain_entries=plan.uncertain_entries,
        last_contact_ms=plan.contact_age_ms,
        wait_ms=plan.wait_ms,
        lsn=_lsn(plan.position),
        timeline=plan.position.timeline if plan.position is not None else None,
        best_node_id=plan.best.node_id if plan.best is not None else None,
        lost_bytes_min=plan.lost_bytes_min,
        lost_nodes=tuple(_lost(node) for node in plan.lost),
        new_cluster_id=result.cluster_id or None,
        primary_node_id=result.primary,
        recovery_time_ms=result.took_ms if result.done else None,
    )


def _lost(node: LostNode) -> views.LostNodeData:
    return views.LostNodeData(
        id=node.node_id,
        name=node.name,
        voter=node.voter,
        last_contact_ms=node.contact_age_ms,
        last_seen_ms=node.seen_age_ms,
        lsn=_lsn(node.position),
        timeline=node.position.timeline if node.position is not None else None,
    )


def _lsn(position: Position | None) -> str | None:
    return format_lsn(position.lsn) if position is not None else None
