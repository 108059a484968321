"""A person moves the primary: what stands against it, the order, and how it ended.

Must not live here: HTTP, who takes over (`ramd.policy`), the fencing (`ramd.execute.yielding`).
Start reading at `move_primary`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ramd.domain.consensus import PROPOSE_TIMEOUT_S
from ramd.domain.errors import (
    EndedOtherwise,
    Moved,
    Obstacle,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from ramd.domain.model import ClusterState, DecisionRecord, Handover, Phase, StartMode
from ramd.domain.service import FailoverRequest, FailoverResult, Snapshot
from ramd.policy.obstacles import fit_targets, obstacles
from ramd.runtime import Runtime
from ramd.standing import serves
from ramd.state.commands import RequestHandover, encode
from ramd.state.phases import granted_record

T = TypeVar("T")

NS_PER_MS = 1_000_000
PHASES_S = 1.0
"""How long an answer waits for the timeline that belongs to it."""
LATELY_NS = 1_000_000_000
"""A node that lives is heard twice in this time: by the coordinator, and through it by everybody.
Whoever is to take over must have been; to count as silent takes a node longer."""
HEARD_S = 1.0
"""How long a target that was not heard lately is waited for."""
OPERATION_BYTES = 8


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
    """Raises Refused or Unavailable with every obstacle, and nothing was changed; EndedOtherwise if
    another node than the target is primary now; OutcomeUnknown if it did not end in time."""
    begun_ns = desk.now_ns()
    require_movable(desk.runtime, request.target, at_any_price=request.accept_loss)
    if request.target is not None and not request.accept_loss:
        await _require_heard(desk, request.target)
        require_movable(desk.runtime, request.target)
    state = desk.runtime.state
    epoch, reign = state.epoch, state.reign
    await _ask(desk, request, epoch)
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
    if request.target not in (None, new_primary):
        raise _another(desk.picture().state, request.target, old_primary, new_primary)
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


async def _ask(desk: Desk, request: FailoverRequest, epoch: int) -> None:
    """Have it recorded. Raises Refused if somebody else's request of the same moment was first."""
    handover = Handover(
        epoch=epoch,
        target=request.target,
        requested_by=request.actor,
        operation=secrets.token_hex(OPERATION_BYTES),
        accept_loss=request.accept_loss,
    )
    await desk.runtime.link.propose(
        encode(RequestHandover(handover=handover)), timeout_s=PROPOSE_TIMEOUT_S
    )
    recorded = desk.runtime.state.handover
    if recorded is not None and recorded != handover:
        whom = "any node" if recorded.target is None else f"node {recorded.target}"
        raise Refused(
            f"a switchover to {whom}, asked for by {recorded.requested_by or 'a person'}, is under"
            " way already",
            code="busy",
            hint="one at a time: ask again when it has ended",
        )


async def _require_heard(desk: Desk, target: int) -> None:
    """The target has been heard lately, or is soon. Raises Refused: it may be dead, and the primary
    would be fenced for nothing."""

    def silent_ms() -> int | None:
        view = desk.runtime.view()
        heard = view.heard.get(target)
        silent_ns = LATELY_NS if heard is None else view.now_ns - heard.received_ns
        return silent_ns // NS_PER_MS if silent_ns >= LATELY_NS else None

    try:
        async with asyncio.timeout(HEARD_S):
            await desk.until(lambda: True if silent_ms() is None else None)
    except TimeoutError:
        one = Obstacle(
            code="no_candidate",
            node_id=target,
            reason=f"node {target} was not heard for {silent_ms() or 0} ms",
            accepted="a replica that answers now",
        )
        whom = ", ".join(str(n) for n in fit_targets(desk.runtime.view()) if n != target)
        raise Refused(
            one.reason,
            code=one.code,
            hint=f"accepted now: node {whom}" if whom else f"needed: {one.accepted}",
            field="target_node",
            obstacles=(one,),
        ) from None


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


def _another(
    state: ClusterState, target: int | None, old_primary: int | None, new_primary: int
) -> EndedOtherwise:
    """The target was lost on the way, and an ordinary failover chose who is primary now."""
    assert target is not None
    record = granted_record(state, state.epoch)
    why = f": {record.reason}" if record is not None else ""
    return EndedOtherwise(
        f"node {new_primary} is primary now, in epoch {state.epoch}, not node {target}{why}",
        hint=f"look at /api/v1/cluster/decisions for what became of node {target}; once it streams,"
        " ask again",
        moved=Moved(
            target_node=target,
            old_primary=old_primary,
            new_primary=new_primary,
            epoch=state.epoch,
        ),
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
