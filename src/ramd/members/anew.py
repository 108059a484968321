"""A person wants the copy of the data on a replica made anew: an order in the replicated state,
which the node itself carries out.

Must not live here: HTTP, the rules themselves. Start reading at `reinit`.
"""

from __future__ import annotations

import asyncio

from ramd.domain.errors import Refused, Unavailable
from ramd.domain.model import Reinit
from ramd.domain.service import ReinitRequest, ReinitResult
from ramd.members.orders import LOOK, Desk
from ramd.policy.reinit import copy_of, reinit_obstacle
from ramd.state.reinit import OrderReinit


async def reinit(desk: Desk, request: ReinitRequest, *, timeout_s: float) -> ReinitResult:
    """The order is committed; then its end is waited for, as long as there is time. A copy may take
    hours: that it is not finished is no failure.

    Raises Refused with what is in the way, Unavailable, OutcomeUnknown.
    """
    node_id = request.node_id
    member = desk.consensus.state().member(node_id)
    if member is None:
        raise Refused(f"there is no node {node_id}", code="not_found", field="node_id", hint=LOOK)
    if not desk.consensus.status().has_quorum:
        raise Unavailable("no majority of members is reachable", code="no_quorum")
    view = desk.view()
    order = Reinit(node_id=node_id, copy=copy_of(view, node_id), requested_by=request.actor)
    why = reinit_obstacle(view, node_id)
    after = await desk.settle(OrderReinit(reinit=order, at_unix_ms=desk.unix_ms()), obstacle=why)
    done = False
    if after.reinit(node_id) == order:
        done = await _carried_out(desk, order, timeout_s)
    seen = desk.view().heard.get(node_id)
    activity = seen.observation.activity if seen is not None else ""
    return ReinitResult(node_id=node_id, name=member.name, done=done, activity=activity)


async def _carried_out(desk: Desk, order: Reinit, timeout_s: float) -> bool:
    def over() -> bool | None:
        return True if desk.consensus.state().reinit(order.node_id) != order else None

    try:
        async with asyncio.timeout(timeout_s):
            await desk.until(over)
    except TimeoutError:
        return False
    reign = desk.consensus.state().reign
    if reign is not None and reign.node_id == order.node_id:
        raise Refused(f"node {order.node_id} has become the primary meanwhile: it keeps its copy")
    return True
