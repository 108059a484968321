"""What the synchronous set means to a failover: who is known to have every acknowledged commit.

Lives here: rule S4 for the coordinator, and the set that a new primary begins with. Must not live
here: what the primary itself does about its set (`ramd.policy.syncing`). Start reading at
`safe_end`.

A commit was acknowledged when some k copies of the set had it. Any |M|-k+1 copies of the set meet
those in at least one, so the furthest of them has it. A copy counts by what was sealed in this very
attempt, on the line of the record, and not below what it once confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramd.domain.decision import ClusterView
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import FenceKind, Observation, SealReport
from ramd.domain.sync import ALONE, NO_SET, SyncGrant, SyncMember, SyncMode, SyncSet
from ramd.policy.lineage import off_line
from ramd.policy.picture import handover, observation, present

INCOMPLETE_MAX = 256 << 10
"""Bytes of an incomplete record at the end of what was confirmed, which a restart takes away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Safe:
    """A server that holds WAL to `need` has every acknowledged commit; None: nobody can tell, and
    `why`."""

    need: Lsn | None
    why: str = ""


def may_confirm(state: ClusterState, node_id: int) -> bool:
    """People want this node to be waited for, and it stays in the group."""
    member = state.member(node_id)
    if member is None or member.nosync or state.departure(node_id) is not None:
        return False
    names = state.settings.sync_standby_names
    return not names or member.name in names


def confirmers(state: ClusterState, primary: int) -> tuple[int, ...]:
    """Every node that may be waited for while `primary` is the primary."""
    nodes = (member.node_id for member in state.members)
    return tuple(node for node in nodes if node != primary and may_confirm(state, node))


def joining(state: ClusterState, primary: int) -> tuple[int, ...]:
    """Those of them that may be in the next set: a copy that is to go confirms nothing more."""
    return tuple(n for n in confirmers(state, primary) if state.reinit(n) is None)


def synchronous(state: ClusterState, primary: int) -> bool:
    """Commits shall wait for replicas, as people have set it: `auto` counts replicas, not those
    that may confirm, so that taking one off the list does not switch all of it off."""
    mode, replicas = state.settings.synchronous_replication, len(state.members) - 1
    wanted = mode is SyncMode.ON or (mode is SyncMode.AUTO and replicas > 1)
    return wanted and bool(confirmers(state, primary))


def begun(state: ClusterState, primary: Observation) -> bool:
    """Commits wait for replicas, if they are to and the server can prove it."""
    if primary.fence is not FenceKind.EXTENSION or not synchronous(state, primary.node_id):
        return True
    return state.sync.target is None and bool(state.sync.goal.members)


def loss_accepted(view: ClusterView) -> bool:
    """A person wants another primary at any price."""
    wanted = handover(view)
    return wanted is not None and wanted.accept_loss


def guarded(view: ClusterView) -> bool:
    """Only a server that has every acknowledged commit may be promoted."""
    return not view.state.sync.asynchronous and not loss_accepted(view)


def ruling_nodes(view: ClusterView) -> tuple[int, ...]:
    """Nodes whose position matters to the sets that rule."""
    return tuple(node for rule in view.state.sync.rules for node in rule.nodes)


def safe_end(view: ClusterView, reports: Mapping[int, SealReport]) -> Safe:
    """How far a server must be, by the positions sealed under the attempt under way."""
    counted = {n: r for n, r in reports.items() if not void(view, n, reports)}
    needs, missing = [Lsn(0)], ""
    for rule in view.state.sync.rules:
        known = [counted[m.node_id] for m in rule.members if _is(counted.get(m.node_id), m)]
        wanted = len(rule.members) - rule.k + 1
        if rule == NO_SET:
            continue
        if len(known) < wanted and (past := _past_end(view, rule)) is not None:
            needs.append(past)
        elif rule.alone or len(known) < wanted:
            missing = missing or _missing(rule, known, reports, wanted)
        else:
            needs.append(max(report.position.lsn for report in known))
    if not missing:
        return Safe(need=max(needs))
    end = primary_end(view, counted)
    return Safe(need=end) if end is not None else Safe(need=None, why=missing)


def _past_end(view: ClusterView, rule: SyncSet) -> Lsn | None:
    """Where everything lies that was acknowledged by `rule`, if only earlier primaries went by it.

    A set never holds its primary: the present one has never gone by a set that it is in itself. And
    it was elected with all WAL that had been acknowledged before, so that ends where it was then.
    """
    reign = present(view)
    return reign.seal_lsn if reign.node_id in rule.nodes else None


def primary_end(view: ClusterView, counted: Mapping[int, SealReport]) -> Lsn | None:
    """Where the WAL of the recorded primary ends, as it said itself after the death of its server
    was proven; None if it did not, or if its data are another copy by now."""
    if view.lease.released and view.lease.release_lsn is not None:
        return view.lease.release_lsn
    report = counted.get(present(view).node_id)
    return report.position.lsn if report is not None and own_copy(view, report) else None


def own_copy(view: ClusterView, report: SealReport) -> bool:
    """What the recorded primary's node holds is what it was primary with."""
    return view.state.sync.primary_copy in ("", report.copy)


def void(view: ClusterView, node_id: int, reports: Mapping[int, SealReport]) -> str:
    """Why the sealed position of a node among `reports` does not count; '' if it does."""
    report = reports[node_id]
    if not report.copy:
        return "holds a copy without a name"
    everyone = (one.position for one in reports.values())
    if why := off_line(view.state.reigns, report.position, everyone):
        return why
    confirmed = _confirmed(view, node_id, report.copy)
    if report.position.lsn + INCOMPLETE_MAX < confirmed:
        here, there = format_lsn(report.position.lsn), format_lsn(confirmed)
        return f"holds WAL to {here} only, and once confirmed {there}"
    return ""


def granted_set(
    view: ClusterView, winner: int, upto: Lsn, reports: Mapping[int, SealReport]
) -> SyncGrant | None:
    """The set that `winner`, which holds WAL to `upto`, begins with; None in a cluster without any.

    Of the replicas that are sealed and can follow as they are. Too few of them are too few only
    where that is enforced: then the first that come back are waited for.
    """
    state = view.state
    loss = loss_accepted(view)
    if state.sync.asynchronous:
        return None
    copy = reports[winner].copy
    if not synchronous(state, winner):
        return SyncGrant(target=NO_SET, primary_copy=copy, after_loss=loss)
    ready = [
        SyncMember(node_id=node, copy=reports[node].copy)
        for node in joining(state, winner)
        if node in reports and not void(view, node, reports)
        if reports[node].copy and reports[node].position.lsn <= upto
    ]
    target = _first_set(view, winner, ready)
    return SyncGrant(target=target, primary_copy=copy, after_loss=loss)


def _first_set(view: ClusterView, winner: int, ready: list[SyncMember]) -> SyncSet:
    settings, state = view.state.settings, view.state
    wanted = settings.num_sync_standbys
    members = list(ready)
    if settings.enforce_sync_standbys and len(members) < wanted:
        have = {member.node_id for member in members}
        absent = [node for node in confirmers(state, winner) if node not in have]
        members += [SyncMember(node_id=node, copy=_last_copy(view, node)) for node in absent]
    if not members:
        return ALONE
    members.sort(key=lambda member: member.node_id)
    return SyncSet(members=tuple(members), k=min(wanted, len(members)))


def _last_copy(view: ClusterView, node_id: int) -> str:
    seen = observation(view, node_id)
    return seen.copy if seen is not None else ""


def _is(report: SealReport | None, member: SyncMember) -> bool:
    return report is not None and bool(member.copy) and report.copy == member.copy


def _confirmed(view: ClusterView, node_id: int, copy: str) -> Lsn:
    """What the recorded primary last said that this copy has confirmed."""
    seen = observation(view, present(view).node_id)
    streams = seen.sync.streams if seen is not None and seen.sync is not None else ()
    known = [s.flushed for s in streams if (s.node_id, s.copy) == (node_id, copy)]
    return max(known, default=Lsn(0))


def _missing(
    rule: SyncSet, known: list[SealReport], reports: Mapping[int, SealReport], wanted: int
) -> str:
    if rule.alone:
        return "the primary acknowledged commits alone: only what it holds itself is complete"
    other = [
        m.node_id for m in rule.members if m.node_id in reports and not _is(reports[m.node_id], m)
    ]
    remade = f"; node {other[0]} holds another copy than the recorded one" if other else ""
    return (
        f"commits waited for {rule.text()}: positions of {wanted} of these copies are needed,"
        f" {len(known)} known{remade}"
    )
