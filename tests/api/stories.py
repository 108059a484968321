"""Snapshots that tests begin from: a healthy cluster of three, and what can happen to it.

Node 1 is primary of epoch 1 on timeline 1; nodes 2 and 3 stream from it; node 2 coordinates. Time
starts at `NOW_NS`.
"""

from dataclasses import replace

from ramd.domain.consensus import GroupStatus
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, DecisionRecord, Member, Reign, StartMode
from ramd.domain.observation import (
    DataKind,
    FenceKind,
    Heard,
    Observation,
    Position,
    ServerRole,
    ServerState,
)
from ramd.domain.quorum import LostNode, RecoverPlan, RecoverResult
from ramd.domain.raft import Counts, DiskFacts, ElectionFacts, PeerFacts, RaftFacts
from ramd.domain.service import DaemonFacts, Snapshot, Stage

NOW_NS = 1_000_000_000_000
SECOND_NS = 1_000_000_000
PRIMARY_LSN = 0x3000_0000


def member(node_id: int) -> Member:
    return Member(
        node_id=node_id,
        name=f"node{node_id}",
        hostname="127.0.0.1",
        postgresql_port=5431 + node_id,
        raft_port=7399 + node_id,
        http_port=8007 + node_id,
    )


def primary_seen(node_id: int = 1) -> Observation:
    return Observation(
        node_id=node_id,
        boot=1,
        taken_ns=NOW_NS,
        data=DataKind.CLUSTER,
        state=ServerState.RUNNING,
        role=ServerRole.PRIMARY,
        accepting=True,
        system_id="7400",
        position=Position(timeline=1, lsn=Lsn(PRIMARY_LSN)),
        streaming_replicas=(2, 3),
        epoch_opened=1,
        lease_left_ms=2_800,
        fenced=False,
        fence=FenceKind.EXTENSION,
        version="18.0",
        started_unix_ms=1_700_000_000_000,
    )


def replica_seen(node_id: int, *, behind: int = 0) -> Observation:
    return Observation(
        node_id=node_id,
        boot=1,
        taken_ns=NOW_NS,
        data=DataKind.CLUSTER,
        state=ServerState.RUNNING,
        role=ServerRole.REPLICA,
        accepting=True,
        system_id="7400",
        position=Position(timeline=1, lsn=Lsn(PRIMARY_LSN - behind)),
        replayed_lsn=Lsn(PRIMARY_LSN - behind),
        upstream=1,
        lag_seconds=0.25,
        fence=FenceKind.EXTENSION,
        version="18.0",
        started_unix_ms=1_700_000_000_000,
    )


def heard(observation: Observation, *, age_ms: int = 100) -> Heard:
    return Heard(observation=observation, received_ns=NOW_NS - age_ms * 1_000_000)


def clusterless(stage: Stage = Stage.CLUSTERLESS, forming_text: str = "") -> Snapshot:
    """A daemon before any cluster."""
    return Snapshot(
        taken_ns=NOW_NS,
        daemon=DaemonFacts(
            version="0.1.0",
            node_id=1,
            name="node1",
            started_ns=NOW_NS - 60 * SECOND_NS,
            stage=stage,
            forming_text=forming_text,
        ),
    )


def healthy(me: int = 1) -> Snapshot:
    """The cluster as node `me` sees it; node 1 has 2.5 s of its lease left."""
    state = ClusterState(
        cluster_id="c0ffee",
        cluster_name="demo",
        members=(member(1), member(2), member(3)),
        system_id="7400",
        reigns=(
            Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN, since_unix_ms=1_700_000),
        ),
        timeline_high=1,
        decisions=(
            DecisionRecord(
                epoch=1,
                rule="first_primary",
                action="grant",
                reason="first primary: node1",
                details=("node1: lowest id",),
                at_unix_ms=1_700_000_000_000,
            ),
        ),
        changed_unix_ms=1_700_000_000_000,
    )
    daemon = replace(clusterless(Stage.FORMED).daemon, node_id=me, name=f"node{me}")
    return Snapshot(
        taken_ns=NOW_NS - 50_000_000,
        daemon=daemon,
        state=state,
        group=GroupStatus(
            me=me,
            coordinator=2,
            is_coordinator=me == 2,
            ready=me == 2,
            term=3,
            commit_index=9,
            applied_index=9,
            has_quorum=True,
            raft=raft(me),
        ),
        heard=(heard(primary_seen()), heard(replica_seen(2)), heard(replica_seen(3, behind=4096))),
        lease_epoch=1 if me == 1 else 0,
        lease_deadline_ns=NOW_NS + 2_500_000_000 if me == 1 else 0,
    )


def with_heard(snapshot: Snapshot, *changed: Heard) -> Snapshot:
    """The same with newer (or older) news of some nodes."""
    ids = {h.observation.node_id for h in changed}
    kept = tuple(h for h in snapshot.heard if h.observation.node_id not in ids)
    return replace(snapshot, heard=kept + changed)


def without_heard(snapshot: Snapshot, node_id: int) -> Snapshot:
    """The same, never having heard of `node_id`."""
    kept = tuple(h for h in snapshot.heard if h.observation.node_id != node_id)
    return replace(snapshot, heard=kept)


def without_quorum(snapshot: Snapshot) -> Snapshot:
    assert snapshot.group is not None
    return replace(snapshot, group=replace(snapshot.group, has_quorum=False, coordinator=None))


def raft(me: int = 1) -> RaftFacts:
    """Member `me` of the group of three, which node 2 leads; node 3 is one entry behind."""
    leads = me == 2
    contact = {1: 20, 2: 30, 3: 40}
    peers = tuple(
        PeerFacts(
            node_id=node,
            connected=True,
            match_index=(8 if node == 3 else 9) if leads else None,
            contact_ns=NOW_NS - contact[node] * 1_000_000 if leads or node == 2 else None,
        )
        for node in (1, 2, 3)
        if node != me
    )
    return RaftFacts(
        role="leader" if leads else "follower",
        term=3,
        commit_index=9,
        applied_index=9,
        last_index=9,
        group_id="c0ffee",
        voters=(1, 2, 3),
        log_entries=9,
        peers=peers,
        elections=(
            ElectionFacts(at_ns=NOW_NS - 90 * SECOND_NS, term=2, reason="campaign"),
            ElectionFacts(at_ns=NOW_NS - 60 * SECOND_NS, term=3, reason="campaign"),
        ),
        disk=DiskFacts(p50_ms=0.5, p99_ms=4.0, max_ms=30.25),
        loop_lag_ms=1,
        loop_lag_max_ms=80,
        longest_ttl_ms=3_000,
        counts=Counts(
            messages_taken=100,
            elections=(("timeout", 2),),
            refused=(("secret", 1),),
            pauses=1,
            snapshots_taken=1,
        ),
    )


def alone(me: int = 1, *, silent_ms: int = 10_000) -> Snapshot:
    """The same cluster as node `me` sees it once both others are gone for `silent_ms`."""
    snapshot = without_quorum(healthy(me))
    others = [n for n in (1, 2, 3) if n != me]
    snapshot = with_heard(
        snapshot,
        *(
            Heard(observation=h.observation, received_ns=NOW_NS - silent_ms * 1_000_000)
            for h in snapshot.heard
            if h.observation.node_id in others
        ),
    )
    assert snapshot.group is not None
    peers = tuple(
        PeerFacts(node_id=n, connected=False, contact_ns=NOW_NS - silent_ms * 1_000_000)
        for n in others
    )
    facts = replace(raft(me), role="candidate", peers=peers)
    return replace(snapshot, group=replace(snapshot.group, raft=facts), lease_deadline_ns=0)


def recovery(*, done: bool) -> RecoverResult:
    """What a recovery on node 3 answers: node 1 was primary and held 4096 bytes more."""
    lost = tuple(
        LostNode(
            node_id=node,
            name=f"node{node}",
            voter=True,
            answers=False,
            contact_age_ms=10_000,
            seen_age_ms=10_100,
            position=Position(timeline=1, lsn=Lsn(PRIMARY_LSN)),
        )
        for node in (1, 2)
    )
    plan = RecoverPlan(
        node_id=3,
        voter=True,
        cluster_name="demo",
        epoch=1,
        primary=1,
        term=3,
        last_index=9,
        commit_index=8,
        contact_age_ms=10_000,
        wait_ms=0,
        position=Position(timeline=1, lsn=Lsn(PRIMARY_LSN - 4096)),
        best=lost[0],
        lost=lost,
    )
    if not done:
        return RecoverResult(plan=plan)
    return RecoverResult(plan=plan, done=True, cluster_id="beef", primary=3, epoch=2, took_ms=4_200)
