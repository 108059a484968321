"""What a snapshot means to people: each node's condition and the verdict on the cluster.

Lives here: pure functions of (Snapshot, now). Must not live here: JSON, HTTP, wall-clock time.
Start reading at `look`. What is not known is None, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.model import ClusterState, Member
from ramd.domain.observation import FenceKind, Observation, ServerRole, ServerState
from ramd.domain.service import Snapshot

CRITICAL = "critical"
DEGRADED = "degraded"
HEALTHY = "healthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePicture:
    """One member as it is known here and now. `trouble` is '' exactly when it does its part."""

    member: Member
    role: ServerRole
    """Observed; where nothing fresh was heard, what the group has agreed on."""
    state: ServerState
    trouble: str
    age_ms: int | None
    """Since it was last heard."""
    observation: Observation | None
    """The last that was heard, however old; `state` is UNKNOWN when it is too old to rely on."""
    fresh: bool
    lag_bytes: int | None = None
    lag_seconds: float | None = None

    @property
    def healthy(self) -> bool:
        return not self.trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All members by id, and the verdict: one of HEALTHY, DEGRADED, CRITICAL, with its reason."""

    status: str
    reason: str
    nodes: tuple[NodePicture, ...]
    primary_id: int | None
    """Whom the group has made primary, whatever its condition."""

    def node(self, node_id: int) -> NodePicture | None:
        return next((n for n in self.nodes if n.member.node_id == node_id), None)

    def select(self, selector: str) -> NodePicture | None:
        """By id, name, `primary`, or `replica1` (the first replica by id), in this order."""
        for node in self.nodes:
            if selector in (str(node.member.node_id), node.member.name):
                return node
        if selector == "primary":
            return self.node(self.primary_id) if self.primary_id is not None else None
        number = selector.removeprefix("replica")
        if number == selector or not number.isascii() or not number.isdecimal():
            return None
        replicas = [n for n in self.nodes if n.member.node_id != self.primary_id]
        return replicas[int(number) - 1] if 1 <= int(number) <= len(replicas) else None


def stale_after_ms(snapshot: Snapshot) -> int:
    """How old an observation may be and still count: one lease, at least two seconds."""
    return max(2_000, snapshot.daemon.lease_ttl_ms)


def look(snapshot: Snapshot, now_ns: int) -> Picture:
    """The picture of a formed cluster at `now_ns` (the clock of the snapshot)."""
    state = snapshot.state
    reign = state.reign
    primary_id = reign.node_id if reign is not None else None
    source = _fresh_observation(snapshot, primary_id, now_ns)
    nodes = tuple(
        _node(snapshot, member, source, now_ns)
        for member in sorted(state.members, key=lambda m: m.node_id)
    )
    status, reason = _judge(snapshot, nodes, primary_id)
    return Picture(status=status, reason=reason, nodes=nodes, primary_id=primary_id)


def _judge(
    snapshot: Snapshot, nodes: tuple[NodePicture, ...], primary_id: int | None
) -> tuple[str, str]:
    """Critical: no quorum, or no primary that accepts writes. Degraded: any other trouble."""
    if snapshot.group is None or not snapshot.group.has_quorum:
        return CRITICAL, "no quorum: no majority of the members is in touch"
    primary = next((n for n in nodes if n.member.node_id == primary_id), None)
    if primary is None:
        why = [record.reason for record in snapshot.state.decisions[-1:] if record.epoch == 0]
        return CRITICAL, ": ".join(["no primary has been chosen yet", *why])
    if primary.trouble:
        trouble = f"primary {primary.member.name}: {primary.trouble}"
        return CRITICAL, "; ".join([trouble, *_nobody(snapshot.state)])
    troubled = [f"{n.member.name}: {n.trouble}" for n in nodes if n.trouble]
    if troubled:
        return DEGRADED, "; ".join(troubled)
    replicas = len(nodes) - 1
    return HEALTHY, (
        f"primary {primary.member.name} accepts writes, {replicas} of {replicas} replicas stream"
    )


def _nobody(state: ClusterState) -> list[str]:
    """Why nobody takes over, if that was decided last."""
    last = state.decisions[-1:]
    return [r.reason for r in last if r.rule == "nobody_eligible" and r.epoch == state.epoch]


def _node(
    snapshot: Snapshot, member: Member, source: Observation | None, now_ns: int
) -> NodePicture:
    state = snapshot.state
    heard = snapshot.of(member.node_id)
    holder = state.reign is not None and state.reign.node_id == member.node_id
    agreed = ServerRole.PRIMARY if holder else ServerRole.REPLICA
    if heard is None:
        return NodePicture(
            member=member,
            role=agreed,
            state=ServerState.UNKNOWN,
            trouble="never heard",
            age_ms=None,
            observation=None,
            fresh=False,
        )
    seen = heard.observation
    age_ms = max(0, now_ns - heard.received_ns) // 1_000_000
    if age_ms > stale_after_ms(snapshot):
        return NodePicture(
            member=member,
            role=agreed,
            state=ServerState.UNKNOWN,
            trouble=f"not heard for {age_ms / 1000:.1f} s",
            age_ms=age_ms,
            observation=seen,
            fresh=False,
        )
    lag_bytes, lag_seconds = _lag(seen, source)
    return NodePicture(
        member=member,
        role=seen.role or agreed,
        state=seen.state,
        trouble=_primary_trouble(seen) if holder else _replica_trouble(seen, state),
        age_ms=age_ms,
        observation=seen,
        fresh=True,
        lag_bytes=lag_bytes,
        lag_seconds=lag_seconds,
    )


def _primary_trouble(seen: Observation) -> str:
    """Why the agreed primary does not accept writes; '' if it does."""
    return (
        _server_trouble(seen)
        or ("not promoted yet" if seen.role is not ServerRole.PRIMARY else "")
        or (_fenced(seen) if seen.fenced else "")
    )


def _fenced(seen: Observation) -> str:
    if seen.sync is not None and seen.sync.waits_for and seen.lease_left_ms:
        return f"no writes yet: {seen.sync.waits_for}"
    return "fenced: it holds no lease"


def _replica_trouble(seen: Observation, state: ClusterState) -> str:
    """Why a replica does not do its part; '' if it streams from the agreed primary."""
    trouble = _server_trouble(seen)
    if trouble:
        return trouble
    if seen.role is ServerRole.PRIMARY:
        return "still runs as a primary although another node was chosen"
    holder = state.reign.node_id if state.reign is not None else None
    if seen.upstream is None:
        return "does not stream"
    return "" if seen.upstream == holder else f"streams from node {seen.upstream}, not the primary"


def _server_trouble(seen: Observation) -> str:
    detail = f" ({seen.activity})" if seen.activity else ""
    if seen.state is not ServerState.RUNNING:
        return f"server {seen.state}{detail}"
    if seen.fence is FenceKind.OFF:
        return "pgraft.enforce is off: this server acknowledges writes without a lease"
    return "" if seen.accepting else f"server does not answer{detail}"


def _fresh_observation(snapshot: Snapshot, node_id: int | None, now_ns: int) -> Observation | None:
    heard = snapshot.of(node_id) if node_id is not None else None
    if heard is None or now_ns - heard.received_ns > stale_after_ms(snapshot) * 1_000_000:
        return None
    return heard.observation


def _lag(seen: Observation, source: Observation | None) -> tuple[int | None, float | None]:
    """WAL not yet received (bytes), and replay delay (seconds), behind the primary."""
    if source is not None and seen.node_id == source.node_id:
        return (0, 0.0) if seen.role is ServerRole.PRIMARY else (None, None)
    lag_bytes = None
    mine, theirs = seen.position, source.position if source is not None else None
    if mine is not None and theirs is not None and mine.timeline == theirs.timeline:
        # The two were observed at different moments: a replica may be ahead of an older report.
        lag_bytes = max(0, theirs.lsn - mine.lsn)
    return lag_bytes, seen.lag_seconds
