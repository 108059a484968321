"""Questions to one `ClusterView`: who lives, who serves, whether the epoch may move.

Lives here: plain readings of the view, each with one name, so that rules read as sentences. Must
not live here: any choice. Start reading anywhere.
"""

from __future__ import annotations

from ramd.domain.decision import ClusterView, SealAttempt
from ramd.domain.lsn import format_lsn
from ramd.domain.model import Handover, Reign
from ramd.domain.observation import DataKind, Observation, ServerRole

NS_PER_MS = 1_000_000
BLANK = (DataKind.ABSENT, DataKind.PARTIAL)
"""Directories without anything that could be started."""


def observation(view: ClusterView, node_id: int) -> Observation | None:
    """The last that was heard of a node, however old."""
    heard = view.heard.get(node_id)
    return heard.observation if heard else None


def living(view: ClusterView, node_id: int) -> Observation | None:
    """The last that was heard of a node, if it is not silent."""
    heard = view.heard.get(node_id)
    if heard is None or view.now_ns - heard.received_ns > view.silent_after_ns:
        return None
    return heard.observation


def newly_coordinating(view: ClusterView) -> bool:
    """Too early to call a node silent: it may not have reached this coordinator yet."""
    return view.now_ns - view.coordinator_since_ns <= view.silent_after_ns


def present(view: ClusterView) -> Reign:
    """The present reign. Only for views of a cluster that has one."""
    return view.state.reigns[-1]


def serving(view: ClusterView) -> bool:
    """The holder of the present epoch is heard, and serves as its primary."""
    reign = view.state.reign
    seen = living(view, reign.node_id) if reign else None
    if reign is None or seen is None:
        return False
    opened = seen.epoch_opened >= reign.epoch
    return opened and seen.accepting and seen.role is ServerRole.PRIMARY


def movable(view: ClusterView) -> bool:
    """The epoch may move (rule S3): released, run out, or never granted."""
    lease = view.lease
    if lease.released or lease.may_move_at_ns is None:
        return True
    return view.now_ns >= lease.may_move_at_ns


def attempt(view: ClusterView) -> SealAttempt | None:
    """The failover attempt under way for the present epoch, begun by this very coordinator."""
    begun = view.sealing
    if begun is None or begun.epoch != view.state.epoch or begun.attempt.term != view.term:
        return None
    return begun


def handover(view: ClusterView) -> Handover | None:
    """The handover asked for in the present epoch."""
    wanted = view.state.handover
    return wanted if wanted is not None and wanted.epoch == view.state.epoch else None


def grace_until_ns(view: ClusterView) -> int:
    """Until when a coordinator waits for the recorded primary after its own start."""
    return view.started_ns + view.state.settings.startup_grace_ms * NS_PER_MS


def cold(view: ClusterView, at_ns: int) -> bool:
    """At `at_ns` this daemon was young and had never heard the present epoch being served.

    Then most likely everything was down, and the recorded primary is as good as any other node.
    """
    unseen = view.memory.served_epoch < view.state.epoch
    return unseen and at_ns < grace_until_ns(view)


def inputs(view: ClusterView) -> tuple[str, ...]:
    """What the decision rests on, one line each, for the history and for people."""
    reign = view.state.reign
    if reign is None:
        return tuple(_node_line(view, m.node_id) for m in view.state.members)
    lines = [f"epoch {reign.epoch}: node {reign.node_id} on timeline {reign.timeline}"]
    lines.append(f"lease: {_lease_text(view)}")
    return (*lines, *(_node_line(view, m.node_id) for m in view.state.members))


def _lease_text(view: ClusterView) -> str:
    lease = view.lease
    if lease.released:
        end = "unknown" if lease.release_lsn is None else format_lsn(lease.release_lsn)
        return f"released ({lease.release_reason or 'no reason given'}), end of WAL {end}"
    if lease.may_move_at_ns is None or movable(view):
        return "run out"
    return f"may move in {(lease.may_move_at_ns - view.now_ns) // NS_PER_MS} ms"


def _node_line(view: ClusterView, node_id: int) -> str:
    heard = view.heard.get(node_id)
    if heard is None:
        return f"node {node_id}: never heard"
    seen = heard.observation
    role = seen.role or "no role"
    where = "no position"
    if seen.position is not None:
        where = f"{format_lsn(seen.position.lsn)} on timeline {seen.position.timeline}"
    age_ms = max(0, view.now_ns - heard.received_ns) // NS_PER_MS
    return f"node {node_id}: {seen.state}, {role}, {where}, heard {age_ms} ms ago"
