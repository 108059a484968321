"""A person moves the primary: what stands against it, the order, and how it ended.

Must not live here: HTTP, who takes over (`ramd.policy`), the fencing (`ramd.execute.yielding`).
Start reading at `move_primary`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ramd.domain.errors import OutcomeUnknown, Refused, Unavailable
from ramd.domain.model import ClusterState, DecisionRecord, Handover, Phase, StartMode
from ramd.domain.service import FailoverRequest, FailoverResult, Snapshot
from ramd.policy.obstacles import fit_targets, obstacles
from ramd.runtime import Runtime
from ramd.standing import serves
from ramd.state.commands import RequestHandover, encode
from ramd.state.phases import granted_record

T = TypeVar("T")

NS_PER_MS = 1_000_000
PROPOSE_TIMEOUT_S = 5.0
PHASES_S = 1.0
"""How long an answer waits for the timeline that belongs to it."""


class Until(Protocol):
    """Looks again after every beat until `check` gives something; bounded by the caller."""

    async def __call__(self, check: Callable[[], T | None]) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the use case works with."""

    runtime: Runtime
    picture: Callable[[], Snapshot]
    until: Until
    now_ns: Callable[[], int]


async def move_primary(desk: Desk, request: FailoverRequest, *, timeout_s: float) -> FailoverResult:
    """Raises Refused or Unavailable with every obstacle, and nothing was changed; OutcomeUnknown if
    it did not end in time."""
    require_movable(desk.runtime, request.target, at_any_price=request.accept_loss)
    state, begun_ns = desk.runtime.state, desk.now_ns()
    epoch, reign = state.epoch, state.reign
    handover = Handover(
        epoch=epoch,
        target=request.target,
        requested_by=request.actor,
        accept_loss=request.accept_loss,
    )
    await desk.runtime.link.propose(
        encode(RequestHandover(handover=handover)), timeout_s=PROPOSE_TIMEOUT_S
    )
    try:
        async with asyncio.timeout(timeout_s):
            new_primary = await desk.until(lambda: moved_to(desk.picture(), epoch))
    except TimeoutError:
        raise OutcomeUnknown(
            f"the failover did not finish within {timeout_s:g} s",
            hint="look at /api/v1/cluster/status",
        ) from None
    old_primary = reign.node_id if reign else None
    if new_primary == old_primary:
        raise _came_back(desk.picture().state, new_primary)
    took_ms = (desk.now_ns() - begun_ns) // NS_PER_MS
    phases = await _phases(desk, epoch + 1)
    total = next((phase.ms for phase in phases if phase.name == "total"), None)
    return FailoverResult(
        old_primary=old_primary,
        new_primary=new_primary,
        failover_time_ms=took_ms,
        epoch=desk.picture().state.epoch,
        outage_ms=total,
        phases=tuple((phase.name, phase.ms) for phase in phases),
    )


def require_movable(runtime: Runtime, target: int | None, *, at_any_price: bool = False) -> None:
    """Every obstacle, found before anything is touched. Raises Refused, or Unavailable. At any
    price: that nobody is fit is no obstacle; who it becomes is told by what they hold."""
    view = runtime.view()
    found = obstacles(view, target, quorum=runtime.status.has_quorum)
    if at_any_price:
        found = tuple(one for one in found if one.code != "no_candidate")
    if not found:
        return
    first, fit = found[0], fit_targets(view)
    error = Unavailable if first.code == "no_quorum" else Refused
    whom = ", ".join(str(node) for node in fit)
    raise error(
        "; ".join(one.reason for one in found),
        code=first.code,
        hint=f"accepted now: node {whom}" if fit else f"needed: {first.accepted}",
        field="target_node" if first.node_id is not None and first.node_id == target else "",
        obstacles=found,
    )


def moved_to(picture: Snapshot, epoch: int) -> int | None:
    """The new primary once it accepts writes. Raises Refused if it was cancelled or undone."""
    state = picture.state
    if state.epoch == epoch and state.handover is None:
        why = _last(state, "CancelHandover") or "cancelled"
        raise Refused(f"the failover was cancelled: {why}", code="no_candidate")
    if state.epoch == epoch or state.reign is None:
        return None
    if state.reign.start is StartMode.RESUME:
        record = granted_record(state, state.epoch)
        raise Refused(
            record.reason if record is not None else "the switchover was undone",
            code="no_candidate",
            hint="nothing was lost; look at /api/v1/cluster/decisions",
        )
    holder = picture.of(state.reign.node_id)
    if holder is None or not serves(holder.observation, state):
        return None
    return state.reign.node_id


def _came_back(state: ClusterState, node_id: int) -> Refused:
    """Another node was elected and lost before it served, and the old primary has it again."""
    record = granted_record(state, state.epoch)
    why = f": {record.reason}" if record is not None else ""
    return Refused(
        f"node {node_id} is primary again, in epoch {state.epoch}{why}",
        code="no_candidate",
        hint="who was to take over was lost; look at /api/v1/cluster/decisions",
    )


async def _phases(desk: Desk, epoch: int) -> tuple[Phase, ...]:
    """The coordinator's record of how long it took; () if it does not come soon."""

    def recorded() -> tuple[Phase, ...] | None:
        record = granted_record(desk.picture().state, epoch)
        return record.phases if record is not None and record.phases else None

    try:
        async with asyncio.timeout(PHASES_S):
            return await desk.until(recorded)
    except TimeoutError:
        return ()


def _last(state: ClusterState, action: str) -> str:
    kept: list[DecisionRecord] = [r for r in state.decisions if r.action == action]
    return kept[-1].reason if kept else ""
