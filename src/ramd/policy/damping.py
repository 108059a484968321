"""Two reasons to leave an epoch alone although its lease has run out (docs/adr/0019).

Lives here: a lease that nobody was there to renew, and a primary of which only the daemon is
silent. Must not live here: whether the epoch may move at all (`picture`). Start reading at
`may_renew`.

Both are for a primary whose server refuses writes by itself without a lease, so waiting costs time
and no commit. Both are bounded, and neither holds once something definite is known.
"""

from __future__ import annotations

from ramd.domain.decision import ClusterView, Hold
from ramd.domain.observation import FenceKind, Heard, Observation, ServerRole, ServerState
from ramd.policy.picture import NS_PER_MS, attempt, handover, living, present
from ramd.policy.ruling import Ruling
from ramd.policy.rulings import FAILURES_MAX

HEAR_NS = 1_000_000_000
"""Two beats of the control loop: whoever lives has been heard within that."""
FED_NS = 1_000_000_000
"""So long a silent daemon is waited for at most: about what the failover itself would cost."""


def may_renew(view: ClusterView) -> bool:
    """The holder had nobody to ask: nobody coordinated, or this coordinator stood still, or they
    did not hear each other. Now it has."""
    return view.now_ns < _renew_until_ns(view)


def renew_hold(view: ClusterView) -> Ruling:
    holder = present(view).node_id
    if _unheard(view):
        reason = f"this coordinator listens again: node {holder} has had no time to be heard"
    else:
        reason = f"node {holder} is heard again, and runs without a lease: it may renew it now"
    return Ruling(action=Hold(), reason=reason, wake_at_ns=_renew_until_ns(view))


def receivers_fed(view: ClusterView) -> bool:
    """The server of a silent daemon was alive after that had fallen silent."""
    return view.now_ns < _fed_until_ns(view) and _fed(view) is not None


def fed_hold(view: ClusterView) -> Ruling:
    fed = _fed(view)
    assert fed is not None
    node_id, age_ns = fed
    holder = present(view).node_id
    return Ruling(
        action=Hold(),
        reason=f"only the daemon of node {holder} is silent: its server sent something to node"
        f" {node_id} {age_ns // NS_PER_MS} ms ago",
        wake_at_ns=_fed_until_ns(view),
    )


def _waits(view: ClusterView) -> Heard | None:
    """The holder's last word, if by that it can still go on in this epoch; else None."""
    heard = view.heard.get(present(view).node_id)
    ending = view.lease.released or attempt(view) is not None or handover(view) is not None
    if heard is None or ending:
        return None
    return heard if _leads(heard.observation, present(view).epoch) else None


def _leads(seen: Observation, epoch: int) -> bool:
    """It runs as the primary of `epoch`, and refuses writes without a lease."""
    runs = seen.state is ServerState.RUNNING and seen.role is ServerRole.PRIMARY
    able = seen.epoch_opened >= epoch and seen.failures < FAILURES_MAX
    return runs and able and seen.fence is not FenceKind.STAND_IN


def _renew_until_ns(view: ClusterView) -> int:
    """Until when the holder may renew; 0: it had its time, or will not.

    It asks ten times per lease, and at once when it has somebody to ask.
    """
    since_ns, again_ns = view.coordinator_since_ns, view.memory.heard_since_ns
    if _waits(view) is None:
        return 0
    if _unheard(view):
        return since_ns + min(HEAR_NS, view.lease_ttl_ns)
    return 0 if again_ns is None else max(since_ns, again_ns) + view.lease_ttl_ns


def _unheard(view: ClusterView) -> bool:
    """The holder's last word is older than this coordinator's time, or its pause."""
    return view.heard[present(view).node_id].received_ns < view.coordinator_since_ns


def _fed_until_ns(view: ClusterView) -> int:
    over_ns = view.lease.may_move_at_ns
    return 0 if over_ns is None else over_ns + FED_NS


def _fed(view: ClusterView) -> tuple[int, int] | None:
    """(replica, how long ago) of the newest message that the holder's server sent surely after its
    daemon had fallen silent; None: there was none.

    The daemon was silent from one beat after its last word on at the latest.
    """
    word = _waits(view)
    if word is None:
        return None
    ages = [
        (age_ns, node_id)
        for node_id in view.heard
        if (age_ns := _fed_age_ns(view, node_id)) is not None
        and view.now_ns - age_ns > word.received_ns + HEAR_NS
    ]
    age_ns, node_id = min(ages, default=(0, 0))
    return (node_id, age_ns) if node_id else None


def _fed_age_ns(view: ClusterView, node_id: int) -> int | None:
    """How long ago this replica got something from the holder's server; None: not known, or it is
    connected no more."""
    seen = living(view, node_id)
    if seen is None or seen.fed_ms is None or seen.upstream != present(view).node_id:
        return None
    return view.now_ns - view.heard[node_id].received_ns + seen.fed_ms * NS_PER_MS
