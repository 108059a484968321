"""The end of a switchover whose primary released the epoch with its server fenced and running.

Lives here: who takes over, and when the old primary goes on instead (attacks C11). Must not live
here: the fencing itself (`ramd.execute.yielding`). Start reading at `taken_over`.

The release says where all WAL ends that was ever acknowledged, and which replicas have confirmed to
hold it. So positions need not be compared, nobody has to be sealed, and the next epoch is granted
at once: to such a replica or, if that has become unfit meanwhile, to the old primary itself, whose
server resumes. Both are grants of the same epoch, of which the log accepts one.
"""

from __future__ import annotations

from ramd.domain.decision import ClusterView, GrantTo, Verdict
from ramd.domain.lsn import format_lsn
from ramd.domain.model import Reign, StartMode
from ramd.domain.observation import (
    Attempt,
    FenceKind,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)
from ramd.domain.sync import SyncGrant
from ramd.policy.candidates import foresee
from ramd.policy.picture import attempt, handover, living, present
from ramd.policy.ruling import Ruling
from ramd.policy.syncset import granted_set, guarded


def taken_over(view: ClusterView) -> bool:
    """The replica that was asked for, or any, has everything and is fit."""
    return taker(view) is not None


def taker(view: ClusterView) -> Verdict | None:
    """Who takes over; None: nobody that has confirmed all WAL is fit."""
    wanted, lease = handover(view), view.lease
    if not lease.released or lease.release_lsn is None or wanted is None or attempt(view):
        return None
    fit = [v for v in foresee(view).others if v.node_id in lease.holders and _provable(view, v)]
    if wanted.target is None:
        return fit[0] if fit else None
    return next((v for v in fit if v.node_id == wanted.target), None)


def grant_taker(view: ClusterView) -> Ruling:
    """The next epoch, on a new timeline, to the taker."""
    winner, end = taker(view), view.lease.release_lsn
    assert winner is not None
    assert end is not None
    holder = present(view)
    sync = _set_of(view, winner.node_id)
    waits = f"; its commits wait for {sync.target.text()}" if sync is not None else ""
    return Ruling(
        action=GrantTo(
            node_id=winner.node_id,
            epoch=view.state.epoch + 1,
            timeline=view.state.timeline_high + 1,
            start=StartMode.PROMOTE,
            parent_timeline=holder.timeline,
            seal_lsn=end,
            sync=sync,
        ),
        reason=f"switchover from node {holder.node_id} to node {winner.node_id}, which has"
        f" confirmed all WAL, to {format_lsn(end)}; loses nothing{waits}",
        candidates=foresee(view).verdicts,
    )


def resumable(view: ClusterView) -> bool:
    """The old primary gave the epoch back with its server running, and that still runs."""
    lease, reign = view.lease, present(view)
    if not lease.released or not lease.stands_by or attempt(view) is not None:
        return False
    if reign.start is StartMode.PROMOTE and reign.fork_lsn is None:
        return False
    seen = living(view, reign.node_id)
    if seen is None or seen.epoch_opened != reign.epoch:
        return False
    return seen.state is ServerState.RUNNING and seen.role is ServerRole.PRIMARY


def next_epoch_of(view: ClusterView, reign: Reign) -> GrantTo:
    """To whom had this one, where it was."""
    return GrantTo(
        node_id=reign.node_id,
        epoch=view.state.epoch + 1,
        timeline=reign.timeline,
        start=StartMode.RESUME,
        parent_timeline=reign.parent_timeline,
        seal_lsn=reign.seal_lsn,
    )


def grant_resume(view: ClusterView) -> Ruling:
    """The next epoch to the same server."""
    reign, lease, wanted = present(view), view.lease, handover(view)
    why = lease.release_reason
    if lease.holders and wanted is not None:
        who = "the target" if wanted.target is None else f"node {wanted.target}"
        why = f"{who} had all WAL and is not fit any more"
    elif lease.holders:
        why = "nobody asks for it any more"
    return Ruling(
        action=next_epoch_of(view, reign),
        reason=f"switchover undone, node {reign.node_id} goes on: {why or 'no reason given'}",
        candidates=foresee(view).verdicts,
    )


def _provable(view: ClusterView, verdict: Verdict) -> bool:
    """A synchronous set can be proven on it, if there is one."""
    seen = living(view, verdict.node_id)
    return seen is not None and (not guarded(view) or seen.fence is not FenceKind.STAND_IN)


def _set_of(view: ClusterView, winner: int) -> SyncGrant | None:
    """With whom it begins: whoever has confirmed all WAL of the old primary has it, and whoever
    streams from it will."""
    reign, end, holders = present(view), view.lease.release_lsn, view.lease.holders
    assert end is not None
    position = Position(timeline=reign.timeline, lsn=end)
    under = Attempt(term=view.term, number=view.next_attempt)
    reports: dict[int, SealReport] = {}
    for member in view.state.members:
        seen = living(view, member.node_id)
        if seen is None:
            continue
        if seen.upstream == reign.node_id or member.node_id in (winner, *holders):
            reports[member.node_id] = SealReport(
                epoch=reign.epoch, attempt=under, position=position, copy=seen.copy
            )
    return granted_set(view, winner, end, reports)
