"""What the rules say when they match, and when they do: conditions and actions over one view.

Lives here: the functions that the table in `ramd.policy.rules` names, in its order. Must not live
here: the order of the rules, or the judgement of nodes (`candidates`, `election`, `lineage`).
Each function may take for granted that no earlier rule of the table matched.
"""

from __future__ import annotations

from collections.abc import Callable

from ramd.domain.decision import (
    ClusterView,
    DropHandover,
    GrantTo,
    Hold,
    MoveCoordinator,
    Seal,
)
from ramd.domain.lsn import Lsn
from ramd.domain.model import StartMode
from ramd.domain.observation import Attempt, ServerState
from ramd.policy.candidates import foresee, sealed_reports, willing
from ramd.policy.election import Choice, Outcome, elect
from ramd.policy.first import first_holder, first_obstacle, first_reopening, only_first_has_data
from ramd.policy.picture import (
    attempt,
    cold,
    grace_until_ns,
    handover,
    living,
    movable,
    newly_coordinating,
    present,
    serving,
)
from ramd.policy.ruling import Ruling
from ramd.policy.syncset import granted_set

SETTLED_NS = 3_000_000_000
"""The primary serves and the coordinator coordinates for so long before coordination is moved."""
TRANSFER_EVERY_NS = 10_000_000_000
FAILURES_MAX = 3
"""So many failures in a row of an elected node to become primary, and another one is sought."""


# --- before there is a primary ---------------------------------------------------------------


def first_waits(view: ClusterView) -> bool:
    return view.state.reign is None and bool(first_obstacle(view))


def first_wait(view: ClusterView) -> Ruling:
    return Ruling(action=Hold(follow=False), reason=first_obstacle(view))


def first_primary(view: ClusterView) -> Ruling:
    chosen = first_holder(view)
    found = f"its existing data directory, timeline {chosen.timeline}"
    what = found if chosen.adopted else "a new database cluster"
    return Ruling(
        action=GrantTo(
            node_id=chosen.node_id, epoch=1, timeline=chosen.timeline, start=StartMode.OPEN
        ),
        reason=f"node {chosen.node_id} is the first primary, with {what}",
    )


def first_unopened(view: ClusterView) -> bool:
    return only_first_has_data(view) and not view.lease.released


def first_unopened_hold(view: ClusterView) -> Ruling:
    holder = present(view).node_id
    return Ruling(action=Hold(), reason=f"node {holder} is still making the first primary")


def first_again(view: ClusterView) -> Ruling:
    node_id, epoch = first_reopening(view), view.state.epoch + 1
    return Ruling(
        action=GrantTo(
            node_id=node_id,
            epoch=epoch,
            timeline=view.state.timeline_high,
            start=StartMode.OPEN,
        ),
        reason=f"epoch {view.state.epoch} ended before there was any data: node {node_id} begins",
    )


# --- the lease of the present epoch runs -----------------------------------------------------


def lease_runs(view: ClusterView) -> bool:
    return not movable(view)


def handover_hopeless(view: ClusterView) -> bool:
    if not lease_runs(view) or not serving(view) or handover(view) is None:
        return False
    return not newly_coordinating(view) and bool(willing(view))


def drop_handover(view: ClusterView) -> Ruling:
    return Ruling(
        action=DropHandover(epoch=view.state.epoch),
        reason=f"handover cancelled: {willing(view)}",
        candidates=foresee(view).verdicts,
    )


def handover_yielding(view: ClusterView) -> bool:
    return lease_runs(view) and handover(view) is not None


def handover_wait(view: ClusterView) -> Ruling:
    return Ruling(
        action=Hold(),
        reason=f"handover: waiting for node {present(view).node_id} to release its lease",
        wake_at_ns=view.lease.may_move_at_ns,
    )


def _transfer_target(view: ClusterView) -> int | None:
    """The healthy voter of the lowest id, not this one."""
    for member in view.state.members:
        seen = living(view, member.node_id)
        if member.node_id in (view.me, *view.voting.learners):
            continue
        if seen and seen.state is ServerState.RUNNING:
            return member.node_id
    return None


def should_move_coordinator(view: ClusterView) -> bool:
    if not lease_runs(view) or not serving(view) or present(view).node_id != view.me:
        return False
    since_ns = view.memory.serving_since_ns
    if since_ns is None or view.now_ns - max(since_ns, view.coordinator_since_ns) < SETTLED_NS:
        return False
    asked_ns = view.last_transfer_ns
    rested = not asked_ns or view.now_ns - asked_ns >= TRANSFER_EVERY_NS
    return rested and _transfer_target(view) is not None


def move_coordinator(view: ClusterView) -> Ruling:
    target = _transfer_target(view)
    assert target is not None
    return Ruling(
        action=MoveCoordinator(node_id=target),
        reason=f"the coordinator leaves the primary's host: to node {target}",
    )


def primary_serves(view: ClusterView) -> bool:
    return lease_runs(view) and serving(view)


def serving_hold(view: ClusterView) -> Ruling:
    """Looked at again when the lease runs out: a short one does before silence counts as silence,
    and the epoch may move from that moment on."""
    return Ruling(
        action=Hold(),
        reason=f"node {present(view).node_id} serves as primary",
        wake_at_ns=view.lease.may_move_at_ns,
    )


def holder_failing(view: ClusterView) -> bool:
    """An elected node that cannot become primary, while somebody else could."""
    seen = living(view, present(view).node_id)
    if not lease_runs(view) or attempt(view) is not None or seen is None:
        return False
    failing = seen.epoch_opened < view.state.epoch and seen.failures >= FAILURES_MAX
    return failing and bool(foresee(view).others)


def seal_failing(view: ClusterView) -> Ruling:
    return _seal(view, f"node {present(view).node_id} fails to become primary")


def sealed_lease_runs(view: ClusterView) -> bool:
    return lease_runs(view) and attempt(view) is not None


def sealed_lease_hold(view: ClusterView) -> Ruling:
    return Ruling(
        action=Hold(follow=False),
        reason=f"sealed: the lease of node {present(view).node_id} must run out first",
        wake_at_ns=view.lease.may_move_at_ns,
    )


def primary_opens(view: ClusterView) -> bool:
    return lease_runs(view) and living(view, present(view).node_id) is not None


def opening_hold(view: ClusterView) -> Ruling:
    holder = present(view).node_id
    seen = living(view, holder)
    what = seen.state if seen else ServerState.UNKNOWN
    return Ruling(
        action=Hold(),
        reason=f"node {holder} holds the epoch and does not serve: its server is {what}",
        wake_at_ns=view.lease.may_move_at_ns,
    )


def lease_running_hold(view: ClusterView) -> Ruling:
    return Ruling(
        action=Hold(),
        reason=f"node {present(view).node_id} is silent: its lease must run out first",
        wake_at_ns=view.lease.may_move_at_ns,
    )


# --- the epoch may move ----------------------------------------------------------------------


def cold_start(view: ClusterView) -> bool:
    reign = present(view)
    waits = attempt(view) is None and handover(view) is None and not view.lease.released
    return waits and reign.node_id not in view.heard and cold(view, view.now_ns)


def cold_hold(view: ClusterView) -> Ruling:
    return Ruling(
        action=Hold(),
        reason=f"cold start: waiting to hear of node {present(view).node_id}, the last primary",
        wake_at_ns=grace_until_ns(view),
    )


def failover_off(view: ClusterView) -> bool:
    if view.state.settings.auto_failover_enabled or handover(view) is not None:
        return False
    back = living(view, present(view).node_id) is not None
    return not (view.lease.released and back)


def failover_off_hold(view: ClusterView) -> Ruling:
    return Ruling(
        action=Hold(),
        reason=f"automatic failover is off: waiting for node {present(view).node_id}, or for a"
        " failover asked for by a person",
        candidates=foresee(view).verdicts,
    )


def begin_attempt(view: ClusterView) -> Ruling:
    holder, lease = present(view).node_id, view.lease
    if lease.released:
        why = f"node {holder} gave the epoch back: {lease.release_reason or 'no reason given'}"
    else:
        why = f"the lease of node {holder} has run out"
    return _seal(view, why)


def _seal(view: ClusterView, why: str) -> Ruling:
    return Ruling(
        action=Seal(
            epoch=view.state.epoch,
            attempt=Attempt(term=view.term, number=view.next_attempt),
        ),
        reason=f"{why}; positions are compared",
        wake_at_ns=view.now_ns + view.seal_wait_ns,
    )


def _choice(view: ClusterView) -> Choice:
    under = attempt(view)
    assert under is not None
    return elect(view, under)


def outcome_is(outcome: Outcome) -> Callable[[ClusterView], bool]:
    def matches(view: ClusterView) -> bool:
        return _choice(view).outcome is outcome

    return matches


def sealed_hold(view: ClusterView) -> Ruling:
    choice = _choice(view)
    return Ruling(
        action=Hold(follow=False),
        reason=choice.reason,
        candidates=choice.field.verdicts,
        wake_at_ns=choice.until_ns,
    )


def grant_winner(view: ClusterView) -> Ruling:
    choice = _choice(view)
    winner = choice.winner
    assert winner is not None
    lsn = winner.lsn or Lsn(0)
    grant = granted_set(view, winner.node_id, lsn, sealed_reports(view))
    waits = f"; its commits wait for {grant.target.text()}" if grant is not None else ""
    return Ruling(
        action=GrantTo(
            node_id=winner.node_id,
            epoch=view.state.epoch + 1,
            timeline=view.state.timeline_high + 1,
            start=StartMode.PROMOTE,
            parent_timeline=winner.timeline,
            seal_lsn=winner.lsn,
            sync=grant,
        ),
        reason=f"{choice.reason}{waits}",
        candidates=choice.field.verdicts,
    )


def hold(reason: str, *, follow: bool) -> Callable[[ClusterView], Ruling]:
    return lambda _view: Ruling(action=Hold(follow=follow), reason=reason)
