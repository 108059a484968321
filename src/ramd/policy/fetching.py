"""What the chosen node lacks and another one has: whether it is fetched first, and from whom.

Lives here: the order, its bound, and the words about its end. Must not live here: who is chosen
(`ramd.policy.election`), the fetch itself (`ramd.execute.fetching`). Start reading at `order_for`.

The one that may be promoted need not be the one that has the most. A crashed primary whose host
lives has what no replica received; a replica that people do not want as primary may be ahead. Each
such source is asked once in an attempt, the furthest first, and all of it has one bound: what did
not come by then is lost as it would have been, and that is said. Where nobody may be promoted
without it, it is asked for again and again. Where the synchronous set shows
that the chosen one has every acknowledged commit, nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ramd.domain.decision import ClusterView, FetchBegun, FetchOrder, SealAttempt, Verdict
from ramd.domain.lsn import LSN_MAX, Lsn
from ramd.domain.observation import Fetched, Position
from ramd.policy.candidates import Field, sealed_reports, unfit
from ramd.policy.picture import attempt, living, present
from ramd.policy.syncset import guarded, void

FETCHES_KEPT = 16
FETCH_NS = 5_000_000_000
"""From the first order of an attempt until nothing more is waited for."""


def order_for(
    view: ClusterView, under: SealAttempt, field: Field, chosen: Verdict
) -> FetchOrder | None:
    """What `chosen` gets before it is promoted, or goes on getting; None: nothing, or no more."""
    if chosen.eligible and (field.whole is not None or view.now_ns >= fetch_until_ns(view, under)):
        return None
    mine = [begun for begun in under.fetches if begun.order.node_id == chosen.node_id]
    fresh = [begun for begun in mine if view.now_ns < begun.begun_ns + FETCH_NS]
    if fresh and _outcome(view, fresh[-1].order) is None:
        return fresh[-1].order
    least = field.need if guarded(view) and not chosen.eligible else Lsn(0)
    if least is None:
        return None
    # Without it nobody may be promoted: then those who failed are asked again after a while.
    asked = {begun.order.source for begun in (mine if chosen.eligible else fresh)}
    found = [
        order
        for order in _sources(view, under, chosen)
        if order.source not in asked and _end(order) >= least
    ]
    return max(found, key=lambda order: _rank(view, order), default=None)


def fetch_until_ns(view: ClusterView, under: SealAttempt) -> int:
    """When the fetches of an attempt have had their time."""
    begun_ns = under.fetches[0].begun_ns if under.fetches else view.now_ns
    return begun_ns + FETCH_NS


def with_order(under: SealAttempt, order: FetchOrder, now_ns: int) -> SealAttempt:
    """The attempt in which `order` is given, at `now_ns` if that is for the first time."""
    if any(begun.order == order for begun in under.fetches):
        return under
    begun = FetchBegun(order=order, begun_ns=now_ns)
    return replace(under, fetches=(*under.fetches, begun)[-FETCHES_KEPT:])


def order_text(order: FetchOrder) -> str:
    """One order in words."""
    more = "what there is more of WAL"
    if order.upto is not None:
        more = f"{order.upto - order.have} bytes"
    return f"node {order.node_id} fetches {more} from node {order.source} first"


def told(view: ClusterView, chosen: Verdict) -> str:
    """What was fetched for `chosen`, or why it was not; '' if there was nothing to fetch."""
    under = attempt(view)
    begun = under.fetches if under is not None else ()
    last = {one.order.source: one.order for one in begun if one.order.node_id == chosen.node_id}
    texts = [_told(order, _outcome(view, order)) for order in last.values()]
    if view.lease.doubt and (view.lease.release_lsn or 0) > (chosen.lsn or 0):
        texts.append(f"node {present(view).node_id} is not asked for it: {view.lease.doubt}")
    return "".join(f"; {text}" for text in texts)


def fetched_end(view: ClusterView, chosen: Verdict) -> Lsn | None:
    """Where the recorded primary's WAL ends, if `chosen` has got all of it; else None."""
    report = sealed_reports(view).get(chosen.node_id)
    done = report.fetched if report is not None else None
    return done.upto if done is not None and done.source == present(view).node_id else None


def furthest(view: ClusterView) -> Lsn:
    """The end of the most that anybody holds of the line, by sealed reports; 0: there are none."""
    reports = sealed_reports(view)
    known = [r.position.lsn for n, r in reports.items() if not void(view, n, reports)]
    return max(known, default=Lsn(0))


# --- inside ----------------------------------------------------------------------------------


def _outcome(view: ClusterView, order: FetchOrder) -> Fetched | None:
    """How the order ended, as the node that got it says; None: it has not said so yet."""
    report = sealed_reports(view).get(order.node_id)
    done = report.fetched if report is not None else None
    return done if done is not None and done.number == order.number else None


def _told(order: FetchOrder, done: Fetched | None) -> str:
    if done is None:
        return f"fetching from node {order.source} brought nothing"
    if done.upto is None:
        return f"fetching from node {order.source} failed: {done.why}"
    return f"it fetched {max(0, done.upto - order.have)} bytes from node {order.source} first"


def _sources(view: ClusterView, under: SealAttempt, chosen: Verdict) -> Iterator[FetchOrder]:
    """Everybody who has more of the same timeline: sealed nodes, and the recorded primary's."""
    holder, have = present(view).node_id, chosen.lsn or Lsn(0)
    held = _held(view)
    for node_id, at in held.items():
        more = at.timeline == chosen.timeline and at.lsn > have
        if more and (node_id != holder or not view.lease.doubt):
            yield _order(under, chosen, node_id, at.lsn)
    end = view.lease.release_lsn
    if holder not in held and _left_a_tail(view, chosen) and (end is None or end > have):
        yield _order(under, chosen, holder, end)


def _held(view: ClusterView) -> dict[int, Position]:
    """What the servers that could lend it hold, by sealed reports that count."""
    reports = sealed_reports(view)
    fit = {
        n: one for n, one in reports.items() if not unfit(view, n) and not void(view, n, reports)
    }
    return {node_id: report.position for node_id, report in fit.items()}


def _left_a_tail(view: ClusterView, chosen: Verdict) -> bool:
    """The server of the recorded primary wrote in its epoch and is dead, by the word of its node,
    which lives; what it wrote is on the timeline that `chosen` is on."""
    reign, lease = present(view), view.lease
    seen = living(view, reign.node_id)
    if seen is None or not lease.released or lease.stands_by or lease.doubt:
        return False
    timeline = lease.release_timeline if lease.release_lsn is not None else reign.timeline
    same = timeline == reign.timeline == chosen.timeline
    return same and seen.epoch_opened >= reign.epoch


def _order(under: SealAttempt, chosen: Verdict, source: int, upto: Lsn | None) -> FetchOrder:
    assert chosen.timeline is not None
    return FetchOrder(
        number=under.fetches[-1].order.number + 1 if under.fetches else 1,
        node_id=chosen.node_id,
        source=source,
        timeline=chosen.timeline,
        have=chosen.lsn or Lsn(0),
        upto=upto,
    )


def _end(order: FetchOrder) -> int:
    return LSN_MAX if order.upto is None else order.upto


def _rank(view: ClusterView, order: FetchOrder) -> tuple[int, bool, int]:
    """The furthest; where two hold the same, one whose server lives; then the lower id."""
    return (_end(order), order.source != present(view).node_id, -order.source)
