"""What the coordinator would decide if something happened now: the real rules over a made-up view.

Lives here: making the view and letting the rules run until they grant or can only wait. Must not
live here: any rule. Start reading at `if_server_crashed`. Nodes are taken to answer a seal with the
position they were last heard with, which is the best that anybody can know beforehand.
"""

from __future__ import annotations

from dataclasses import replace

from ramd.domain.decision import ClusterView, Decision, GrantTo, LeaseView, Seal, SealAttempt
from ramd.domain.observation import Heard, Observation, SealReport, ServerRole, ServerState
from ramd.policy.decide import decide
from ramd.policy.picture import living, observation, present

STEPS_MAX = 6
"""Seal, wait, grant, and some to spare; what is not granted by then waits for somebody."""


def if_server_crashed(view: ClusterView) -> Decision | None:
    """The primary's server ends now, its host and daemon live; None: there is no primary."""
    if view.state.reign is None:
        return None
    holder = present(view).node_id
    seen = observation(view, holder)
    if seen is None:
        return if_host_lost(view)
    dead = replace(
        seen,
        state=ServerState.CRASHED,
        role=None,
        accepting=False,
        position=None,
        streaming_replicas=(),
        upstream=None,
    )
    end = seen.position.lsn if seen.position is not None and seen.role else None
    lease = LeaseView(
        may_move_at_ns=view.lease.may_move_at_ns,
        released=True,
        release_lsn=end,
        release_reason="its server has crashed",
    )
    heard = {**view.heard, holder: Heard(observation=dead, received_ns=view.now_ns)}
    return _run(replace(_plain(view), heard=heard, lease=lease))


def if_host_lost(view: ClusterView) -> Decision | None:
    """The primary's host is silent from now on, and its lease runs out; None: as above."""
    if view.state.reign is None:
        return None
    holder = present(view).node_id
    over_ns = max(view.lease.may_move_at_ns or 0, view.now_ns + view.silent_after_ns) + 1
    later = _later(_plain(view), over_ns, without=holder)
    return _run(replace(later, lease=LeaseView(may_move_at_ns=over_ns - 1)))


def _plain(view: ClusterView) -> ClusterView:
    """Without an attempt under way, of a coordinator that has heard everybody there is to hear."""
    since_ns = min(view.coordinator_since_ns, view.now_ns - view.silent_after_ns - 1)
    return replace(view, sealing=None, ready=True, coordinator_since_ns=since_ns)


def _run(view: ClusterView) -> Decision:
    """The first grant, or the last decision to wait."""
    holder = present(view).node_id
    decision = decide(view)
    for _ in range(STEPS_MAX):
        if isinstance(decision.action, GrantTo):
            break
        if isinstance(decision.action, Seal):
            under = decision.action
            sealing = SealAttempt(epoch=under.epoch, attempt=under.attempt, begun_ns=view.now_ns)
            view = _sealed(replace(view, sealing=sealing), sealing)
        else:
            view = _later(view, decision.wake_at_ns or view.now_ns, without=holder)
        decision = decide(view)
    return decision


def _sealed(view: ClusterView, under: SealAttempt) -> ClusterView:
    """Everybody who lives as a replica has reported."""
    heard = dict(view.heard)
    for node_id, one in view.heard.items():
        seen = living(view, node_id)
        if seen is not None and seen.role is ServerRole.REPLICA and seen.position is not None:
            heard[node_id] = replace(one, observation=_reported(seen, under))
    return replace(view, heard=heard)


def _reported(seen: Observation, under: SealAttempt) -> Observation:
    assert seen.position is not None
    report = SealReport(
        epoch=under.epoch, attempt=under.attempt, position=seen.position, copy=seen.copy
    )
    return replace(seen, sealed=report, upstream=None)


def _later(view: ClusterView, now_ns: int, *, without: int) -> ClusterView:
    """Time has passed; whoever lived is heard still, except one, whose server feeds nobody."""
    heard = {
        node_id: Heard(observation=replace(one.observation, fed_ms=None), received_ns=now_ns)
        if node_id != without and living(view, node_id) is not None
        else one
        for node_id, one in view.heard.items()
    }
    return replace(view, now_ns=max(now_ns, view.now_ns), heard=heard)
