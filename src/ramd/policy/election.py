"""Whether the attempt under way can end now: wait, promote, restart in place, or nobody.

Lives here: the choice among judged nodes. Must not live here: the judgement of a single node
(`ramd.policy.candidates`). Start reading at `elect`.

Where commits do not wait for replicas, a failover takes the most advanced node that reports in time
and says what that loses; where they do, `candidates` lets nobody through who may lack one that was
acknowledged. What the chosen one lacks and somebody else has, it fetches first (`fetching`). Two
cases are stricter. A planned handover must lose nothing, else the old primary goes on. After a cold
start the old primary goes on if it holds strictly more than anybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ramd.domain.decision import ClusterView, FetchOrder, SealAttempt, Verdict
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.observation import DataKind
from ramd.policy.candidates import Field, judge, last_known_lsn, reasons
from ramd.policy.fetching import fetch_until_ns, fetched_end, furthest, order_for, order_text, told
from ramd.policy.memory import restart_pause_ns
from ramd.policy.picture import (
    NS_PER_MS,
    cold,
    grace_until_ns,
    handover,
    living,
    observation,
    present,
)
from ramd.policy.syncset import loss_accepted


class Outcome(StrEnum):
    """How an attempt stands."""

    WAIT = "wait"
    FETCH = "fetch"
    """`winner` first gets WAL that another node has more."""
    PROMOTE = "promote"
    RESTART = "restart"
    """The recorded primary gets the next epoch itself."""
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The outcome and why; `winner` with PROMOTE, RESTART and FETCH, `until_ns` with WAIT and
    FETCH, `order` with FETCH."""

    outcome: Outcome
    reason: str
    field: Field
    winner: Verdict | None = None
    until_ns: int | None = None
    order: FetchOrder | None = None


def elect(view: ClusterView, under: SealAttempt) -> Choice:
    """The choice under the attempt `under`. Total; the epoch must be movable."""
    field = judge(view)
    if handover(view) is not None and view.lease.released:
        planned = _planned(view, under, field)
        if planned is not None:
            return planned
    return _ordinary(view, under, field)


def _planned(view: ClusterView, under: SealAttempt, field: Field) -> Choice | None:
    """A handover after the primary gave back; None: it became an ordinary failover."""
    need = _end_of_wal(view, field)
    whole = [v for v in field.others if need is not None and (v.lsn or 0) >= need]
    report_until_ns = under.begun_ns + view.seal_wait_ns
    wanted = _target(view)
    if whole and (wanted not in field.pending or view.now_ns >= report_until_ns):
        winner = next((v for v in whole if v.node_id == wanted), whole[0])
        return _promote(view, field, winner, "handover")
    if field.pending and view.now_ns < report_until_ns:
        return _wait(field, report_until_ns, _missing(field.pending))
    if field.former.eligible:
        what = "the end of the primary's WAL" if need is None else f"WAL to {format_lsn(need)}"
        reason = f"handover given up: no fit node holds {what}; node {field.former.node_id} goes on"
        return Choice(outcome=Outcome.RESTART, reason=reason, field=field, winner=field.former)
    until_ns = under.begun_ns + view.state.settings.startup_grace_ms * NS_PER_MS
    if living(view, field.former.node_id) is not None and view.now_ns < until_ns:
        reason = f"no fit node holds all of its WAL: waiting for node {field.former.node_id}"
        return _wait(field, until_ns, reason)
    return None


def _ordinary(view: ClusterView, under: SealAttempt, field: Field) -> Choice:
    report_until_ns = under.begun_ns + view.seal_wait_ns
    if field.pending and view.now_ns < report_until_ns:
        return _wait(field, report_until_ns, _missing(field.pending))
    former = field.former
    if cold(view, under.begun_ns):
        until_ns = max(grace_until_ns(view), report_until_ns)
        if former.lsn is None and _may_come(view) and view.now_ns < until_ns:
            reason = f"cold start: waiting for the position of node {former.node_id}"
            return _wait(field, until_ns, reason)
        best = max((v.lsn or 0 for v in field.others), default=-1)
        if former.eligible and (former.lsn or 0) > best:
            return _restart(field, "cold start: it holds the most WAL")
    pause_until_ns = under.begun_ns + restart_pause_ns(view)
    paused = view.now_ns < pause_until_ns
    winner = _most_advanced(view, field.others)
    if winner is None and (paused or not former.eligible):
        winner = _most_advanced(view, field.short)
    order = order_for(view, under, field, winner) if winner is not None else None
    if order is not None:
        return Choice(
            outcome=Outcome.FETCH,
            reason=order_text(order),
            field=field,
            winner=winner,
            until_ns=fetch_until_ns(view, under),
            order=order,
        )
    if winner is not None and winner.eligible:
        return _promote(view, field, winner, "failover")
    if former.eligible:
        if paused:
            reason = f"node {former.node_id} ended soon after its last restart in place: a pause"
            return _wait(field, pause_until_ns, reason)
        return _restart(field, "no other node may be promoted")
    return Choice(
        outcome=Outcome.NOBODY,
        reason="no node may become primary: " + reasons(field),
        field=field,
    )


def _most_advanced(view: ClusterView, verdicts: tuple[Verdict, ...]) -> Verdict | None:
    """The first of `verdicts`, or the node that was asked for, if it holds as much."""
    equal = [v for v in verdicts if v.lsn == verdicts[0].lsn]
    wanted = _target(view)
    return next((v for v in equal if v.node_id == wanted), equal[0] if equal else None)


def _wait(field: Field, until_ns: int, reason: str) -> Choice:
    return Choice(outcome=Outcome.WAIT, reason=reason, field=field, until_ns=until_ns)


def _restart(field: Field, why: str) -> Choice:
    reason = f"restart of node {field.former.node_id} in place: {why}"
    return Choice(outcome=Outcome.RESTART, reason=reason, field=field, winner=field.former)


def _promote(view: ClusterView, field: Field, winner: Verdict, what: str) -> Choice:
    reason = (
        f"{what} from node {field.former.node_id} to node {winner.node_id}, which "
        f"{winner.reason}{told(view, winner)}; {_loss(view, field, winner)}"
    )
    return Choice(outcome=Outcome.PROMOTE, reason=reason, field=field, winner=winner)


def _loss(view: ClusterView, field: Field, winner: Verdict) -> str:
    """What the promotion loses of the primary's WAL, as far as that can be known."""
    end, lsn = _end_of_wal(view, field), winner.lsn or 0
    if end is None:
        end = fetched_end(view, winner)
    if field.whole is not None:
        extra = max(0, end - lsn) if end is not None else 0
        unheard = f", and {extra} bytes that were not" if extra else ""
        return f"loses nothing that was acknowledged{unheard}"
    if end is not None:
        return f"loses {end - lsn} bytes" if end > lsn else "loses nothing"
    seen = max(last_known_lsn(view) or Lsn(0), furthest(view))
    if loss_accepted(view):
        return "what it loses is unknown, and a person accepted that"
    if seen > lsn:
        return f"what it loses is unknown, at least {seen - lsn} bytes"
    return "what it loses is unknown"


def _end_of_wal(view: ClusterView, field: Field) -> Lsn | None:
    """The proven end of the recorded primary's WAL: in its release, or sealed by itself."""
    if view.lease.released and view.lease.release_lsn is not None:
        return view.lease.release_lsn
    return field.former.lsn


def _missing(pending: tuple[int, ...]) -> str:
    nodes = ", ".join(str(node_id) for node_id in pending)
    return f"waiting for the sealed position of node {nodes}"


def _target(view: ClusterView) -> int | None:
    wanted = handover(view)
    return wanted.target if wanted else None


def _may_come(view: ClusterView) -> bool:
    """The recorded primary's node lives and has data, or was not heard yet by this daemon; one
    that is no member any more was given up by a person."""
    holder = present(view).node_id
    if view.state.member(holder) is None:
        return False
    seen = living(view, holder)
    if seen is None:
        return observation(view, holder) is None
    return seen.data is DataKind.CLUSTER
