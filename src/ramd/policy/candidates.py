"""Who may become primary: every member judged, with the reason, and the fit ones in order.

Lives here: the judgement of single nodes. Must not live here: whether to wait or to choose
(`ramd.policy.election`). Start reading at `judge`.

In a failover only positions count that were reported under the seal of this very attempt (rule H2);
lineage is judged by the record (rule S6); among fit nodes the most advanced comes first, then the
higher priority, then the lower id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ramd.domain.decision import ClusterView, Verdict
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.observation import (
    DataKind,
    FenceKind,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)
from ramd.domain.sync import NO_SET
from ramd.policy.lineage import off_line, reach
from ramd.policy.picture import attempt, handover, living, newly_coordinating, observation, present
from ramd.policy.syncset import Safe, guarded, own_copy, ruling_nodes, safe_end, void

_TAGGED = "is tagged nofailover"
_DOWN = (ServerState.STOPPED, ServerState.CRASHED, ServerState.HUNG)
JUST_HEARD_NS = 600_000_000
"""A daemon that lives has been heard within this: its beats are 0.5 s apart. One that was lost with
its host has not, when its lease is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """All members judged.

    `others`: fit nodes except the recorded primary, best first. `former`: the recorded primary's
    verdict. `rejected`: the rest, by id. `pending`: living nodes whose position is still missing
    and would matter.
    """

    others: tuple[Verdict, ...]
    former: Verdict
    rejected: tuple[Verdict, ...]
    pending: tuple[int, ...] = ()
    whole: Lsn | None = None
    """Whoever holds WAL to here has every acknowledged commit; None: that was not asked, or cannot
    be told."""
    need: Lsn | None = None
    """Whoever holds less is not fit, see `ramd.policy.syncset.safe_end`; None: as above."""

    @property
    def short(self) -> tuple[Verdict, ...]:
        """Who would be fit with more WAL, the most advanced first."""
        found = (verdict for verdict in self.rejected if verdict.short)
        return tuple(sorted(found, key=lambda verdict: (-(verdict.lsn or 0), verdict.node_id)))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Everyone: fit ones first, best first, then the recorded primary, then the rejected."""
        return (*self.others, self.former, *self.rejected)


def judge(view: ClusterView) -> Field:
    """Everyone by the positions sealed under the attempt under way; without one, nobody is fit."""
    reports = sealed_reports(view)
    positions = {node_id: report.position for node_id, report in reports.items()}
    field = _field(view, positions, missing="has not reported its sealed position")
    return _whole_only(view, field, reports) if guarded(view) else field


def sealed_reports(view: ClusterView) -> dict[int, SealReport]:
    """What living nodes reported under the attempt under way, as far as it is of the line; other
    reports count for nothing."""
    found = ((m.node_id, _sealed(view, living(view, m.node_id))) for m in view.state.members)
    reports = {node_id: report for node_id, report in found if report is not None}
    everybody = [report.position for report in reports.values()]
    lease = view.lease
    if lease.release_lsn is not None and lease.release_timeline is not None:
        everybody.append(Position(timeline=lease.release_timeline, lsn=lease.release_lsn))

    def comparable(position: Position) -> Position:
        return replace(position, lsn=reach(view.state.reigns, position, everybody))

    return {n: replace(r, position=comparable(r.position)) for n, r in reports.items()}


def foresee(view: ClusterView) -> Field:
    """Everyone by what was last heard of them: what a failover would look at if it began now."""
    positions: dict[int, Position] = {}
    for member in view.state.members:
        seen = living(view, member.node_id)
        if seen is not None and seen.position is not None:
            positions[member.node_id] = seen.position
    return _field(view, positions, missing="its position is not known")


def willing(view: ClusterView) -> str:
    """Why the requested handover has become hopeless; '' if it has not."""
    wanted = handover(view)
    field = foresee(view)
    target = wanted.target if wanted else None
    if target is None:
        return "" if field.others else "no node can take over: " + reasons(field)
    if any(v.node_id == target for v in field.others):
        return ""
    why = next((v.reason for v in field.verdicts if v.node_id == target), "is not a member")
    return f"node {target} {why}"


def reasons(field: Field) -> str:
    """Every rejection, in one line."""
    rejected = (v for v in field.verdicts if not v.eligible)
    return "; ".join(f"node {v.node_id} {v.reason}" for v in rejected)


def last_known_lsn(view: ClusterView) -> Lsn | None:
    """Where the recorded primary's WAL ended as far as anybody knows."""
    if view.lease.released and view.lease.release_lsn is not None:
        return view.lease.release_lsn
    known = view.memory.primary_lsn if view.memory.epoch == view.state.epoch else None
    reign = present(view)
    seen = observation(view, reign.node_id)
    if seen is not None and seen.position is not None and seen.position.timeline == reign.timeline:
        known = max(known or Lsn(0), seen.position.lsn)
    return known


# --- one node --------------------------------------------------------------------------------


def _field(view: ClusterView, positions: Mapping[int, Position], *, missing: str) -> Field:
    holder = present(view).node_id
    verdicts = {
        member.node_id: _verdict(view, member.node_id, positions, missing)
        for member in view.state.members
    }
    absent = Verdict(node_id=holder, eligible=False, reason="is not a member")
    former = verdicts.pop(holder, absent)
    fit = [verdict for verdict in verdicts.values() if verdict.eligible]
    silent = [node_id for node_id in verdicts if node_id not in positions]
    pending = tuple(n for n in silent if _could_report(view, n))
    lenders = tuple(n for n in silent if n not in pending and _could_lend(view, n))
    lenders += (holder,) if holder not in positions and _about_to_tell(view) else ()
    return Field(
        others=tuple(sorted(fit, key=lambda verdict: _rank(view, verdict))),
        former=former,
        rejected=tuple(verdict for verdict in verdicts.values() if not verdict.eligible),
        pending=pending + (lenders if fit or pending else ()),
    )


def _verdict(
    view: ClusterView, node_id: int, positions: Mapping[int, Position], missing: str
) -> Verdict:
    position = positions.get(node_id)
    why, behind = unfit(view, node_id) or _barred(view, node_id), ""
    if not why and position is None:
        why = missing
    if not why and position is not None:
        why = off_line(view.state.reigns, position, positions.values())
        behind = "" if why else _too_far_behind(view, node_id, position)
        why = why or behind
    if position is None:
        return Verdict(node_id=node_id, eligible=False, reason=why)
    holds = f"holds WAL to {format_lsn(position.lsn)} on timeline {position.timeline}"
    return Verdict(
        node_id=node_id,
        eligible=not why,
        reason=why or holds,
        lsn=position.lsn,
        timeline=position.timeline,
        short=bool(behind),
    )


def _rank(view: ClusterView, verdict: Verdict) -> tuple[int, int, int]:
    member = view.state.member(verdict.node_id)
    priority = member.priority if member else 0
    return (-(verdict.lsn or 0), -priority, verdict.node_id)


def _sealed(view: ClusterView, seen: Observation | None) -> SealReport | None:
    under = attempt(view)
    if seen is None or seen.sealed is None or under is None:
        return None
    report = seen.sealed
    if (report.epoch, report.attempt) != (under.epoch, under.attempt):
        return None
    return report


# --- rule S4: nothing that was acknowledged is lost --------------------------------------------


def _whole_only(view: ClusterView, field: Field, reports: Mapping[int, SealReport]) -> Field:
    """Nobody is fit who may lack an acknowledged commit."""
    safe = safe_end(view, reports)
    others = [_if_whole(view, verdict, reports, safe) for verdict in field.others]
    former = field.former
    if former.eligible:
        less = safe.need is not None and (former.lsn or 0) < safe.need
        if less or not own_copy(view, reports[former.node_id]):
            former = _if_whole(view, former, reports, safe)
    return replace(
        field,
        others=tuple(verdict for verdict in others if verdict.eligible),
        former=former,
        rejected=(*(v for v in others if not v.eligible), *field.rejected),
        whole=None if NO_SET in view.state.sync.rules else safe.need,
        need=safe.need,
    )


def _if_whole(
    view: ClusterView, verdict: Verdict, reports: Mapping[int, SealReport], safe: Safe
) -> Verdict:
    why = void(view, verdict.node_id, reports)
    seen = living(view, verdict.node_id)
    if not why and seen is not None and seen.fence is FenceKind.STAND_IN:
        why = "does not load the extension, without which no synchronous set can be proven"
    if not why and safe.need is None:
        why = f"may lack acknowledged commits: {safe.why}"
    short = not why and safe.need is not None and (verdict.lsn or 0) < safe.need
    if short and safe.need is not None:
        why = f"may lack commits that were acknowledged up to {format_lsn(safe.need)}"
    return verdict if not why else replace(verdict, eligible=False, reason=why, short=short)


def unfit(view: ClusterView, node_id: int) -> str:
    """Why the server of a node cannot be promoted, whatever it holds."""
    seen = living(view, node_id)
    if seen is None:
        return "is silent" if node_id in view.heard else "was never heard"
    if seen.data is not DataKind.CLUSTER:
        return f"has no data (its directory is {seen.data})"
    system_id = view.state.system_id
    if system_id and seen.system_id and seen.system_id != system_id:
        return f"holds data of another system ({seen.system_id})"
    if seen.state in _DOWN:
        return f"has a server that is {seen.state}"
    return ""


def _barred(view: ClusterView, node_id: int) -> str:
    """Why people do not want this node. The recorded primary may always go on where it was."""
    if node_id == present(view).node_id:
        return ""
    member = view.state.member(node_id)
    if _leaves(view, node_id):
        return "is being removed"
    if member is not None and member.nofailover:
        return _TAGGED
    if not view.state.settings.auto_failover_enabled and handover(view) is None:
        return "may not be promoted: automatic failover is off"
    return ""


def _leaves(view: ClusterView, node_id: int) -> bool:
    """It is on its way out of the group: at once, or because its successor is being let in now."""
    order = view.state.departure(node_id)
    if order is None:
        return False
    waits = order.successor is not None and view.voting.settled and view.voting.has(node_id)
    return not waits


def _too_far_behind(view: ClusterView, node_id: int, position: Position) -> str:
    """`maximum_lag_on_failover`; a person who asks for a handover overrides it."""
    bound = view.state.settings.maximum_lag_on_failover
    known = last_known_lsn(view)
    if not bound or known is None or handover(view) is not None:
        return ""
    behind = known - position.lsn
    if node_id == present(view).node_id or behind <= bound:
        return ""
    return f"is {behind} bytes behind the primary, allowed are {bound}"


def _could_report(view: ClusterView, node_id: int) -> bool:
    """A node with data that people do not bar and that may be alive: worth a bounded wait."""
    if _barred(view, node_id) and node_id not in ruling_nodes(view):
        return False
    seen = living(view, node_id)
    if seen is None:
        return newly_coordinating(view)
    return seen.data is DataKind.CLUSTER


def _could_lend(view: ClusterView, node_id: int) -> bool:
    """A running replica that is tagged: it may have what the one that is chosen has to fetch."""
    seen = living(view, node_id)
    running = seen is not None and seen.role is ServerRole.REPLICA
    return running and _barred(view, node_id) == _TAGGED


def _about_to_tell(view: ClusterView) -> bool:
    """The recorded primary's daemon lives and stops what it had: where commits wait for nobody, it
    alone may hold the end of what was acknowledged, and is about to say so."""
    reign = present(view)
    heard = view.heard.get(reign.node_id)
    if heard is None or view.lease.released or guarded(view):
        return False
    seen = heard.observation
    wrote = seen.data is DataKind.CLUSTER and seen.epoch_opened >= reign.epoch
    return wrote and view.now_ns - heard.received_ns < JUST_HEARD_NS
