"""The routes that say what was decided and what would be, and the short ways to a switchover.

Lives here: thin handlers and their rendering. Must not live here: rules. Start reading at
`add_explaining_routes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ramd.api.members import Common
from ramd.api.render import decision_view, phase_views
from ramd.domain import service as domain
from ramd.domain.decision import ClusterView, Decision, GrantTo, Hold
from ramd.domain.errors import Refused, Unavailable
from ramd.domain.lsn import format_lsn
from ramd.policy.decide import decide
from ramd.policy.explain import action_text, candidates
from ramd.policy.obstacles import fit_targets, obstacles
from ramd.policy.whatif import if_host_lost, if_server_crashed
from ramd.schema import explain as views
from ramd.schema.envelope import Success, obstacle_view
from ramd.schema.requests import read_request

LIMIT_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainingHandlers:
    """What the routes do, over one service."""

    common: Common
    fail_over: Callable[[Request, int | None], Awaitable[domain.FailoverResult]]

    async def decisions(
        self,
        *,
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 20,
        rule: Annotated[str, Query(max_length=63)] = "",
        epoch: Annotated[int | None, Query(ge=0)] = None,
        changes: bool = False,
    ) -> Response:
        """The history, newest first. `rule` and `epoch` filter; `changes`: only what did something.

        A cluster keeps its last 100 decisions.
        """
        snapshot, _ = self.common.look()
        kept = snapshot.state.decisions
        found = [
            record
            for record in reversed(kept)
            if rule in ("", record.rule)
            and epoch in (None, record.epoch)
            and not (changes and record.action == Hold.__name__)
        ]
        data = views.DecisionsView(
            decisions=tuple(decision_view(record) for record in found[:limit]), kept=len(kept)
        )
        return self.common.success(f"{len(data.decisions)} decisions", data, 200)

    async def explain(self) -> Response:
        """What the rules say now, of each node, and if the primary's server or host were lost."""
        snapshot, _ = self.common.look()
        if snapshot.view is None:
            raise Unavailable("this daemon has no picture of its cluster yet", hint="try again")
        data = explained(snapshot, snapshot.view)
        return self.common.success(f"rule {data.now.rule}: {data.now.reason}", data, 200)

    async def promote(self, request: Request) -> Response:
        """Make one node the primary: a failover to it."""
        body = read_request(views.MoveRequest, await request.body())
        return await self._promote(request, str(body.node_id))

    async def promote_to(self, request: Request, node_id: str) -> Response:
        """The same with the node in the path."""
        return await self._promote(request, node_id)

    async def demote(self, request: Request) -> Response:
        """Make the primary a replica: a failover to the best candidate."""
        body = read_request(views.MoveRequest, await request.body())
        return await self._demote(request, str(body.node_id))

    async def demote_of(self, request: Request, node_id: str) -> Response:
        """The same with the node in the path."""
        return await self._demote(request, node_id)

    async def _promote(self, request: Request, selector: str) -> Response:
        _, picture = self.common.look()
        target = self.common.select(picture, selector, "node_id").node_id
        result = await self.fail_over(request, target)
        data = views.PromoteView(
            node_promoted=result.new_primary,
            new_primary=result.new_primary,
            promotion_time_ms=result.failover_time_ms,
            epoch=result.epoch,
            outage_ms=result.outage_ms,
            phases=phase_views(result.phases),
        )
        return self.common.success(f"node {data.new_primary} is primary", data, 200)

    async def _demote(self, request: Request, selector: str) -> Response:
        snapshot, picture = self.common.look()
        node_id = self.common.select(picture, selector, "node_id").node_id
        reign = snapshot.state.reign
        if reign is None or reign.node_id != node_id:
            holder = "there is none" if reign is None else f"that is node {reign.node_id}"
            raise Refused(
                f"node {node_id} is not the primary: {holder}",
                code="conflict",
                hint="accepted: the primary's id or name, or 'primary'",
                field="node_id",
            )
        result = await self.fail_over(request, None)
        data = views.DemoteView(
            node_demoted=node_id,
            old_primary=result.old_primary,
            new_primary=result.new_primary,
            demotion_time_ms=result.failover_time_ms,
            epoch=result.epoch,
            outage_ms=result.outage_ms,
            phases=phase_views(result.phases),
        )
        return self.common.success(f"node {data.new_primary} is primary", data, 200)


def explained(snapshot: domain.Snapshot, view: ClusterView) -> views.ExplainView:
    """GET /cluster/explain."""
    group, reign = snapshot.group, view.state.reign
    coordinates = group is not None and group.is_coordinator
    if not coordinates:
        # What the coordinator itself waits for is its own business: the picture is what counts.
        view = replace(view, ready=True)
    quorum = group is not None and group.has_quorum
    decision = decide(view)
    now = _judged(decision)
    assert now is not None
    return views.ExplainView(
        node_id=snapshot.daemon.node_id,
        coordinates=coordinates,
        now=now,
        inputs=decision.inputs,
        candidates=tuple(
            views.CandidateView(
                node_id=verdict.node_id,
                primary=reign is not None and verdict.node_id == reign.node_id,
                eligible=verdict.eligible,
                reason=verdict.reason,
                lsn=None if verdict.lsn is None else format_lsn(verdict.lsn),
                timeline=verdict.timeline,
                obstacles=tuple(
                    obstacle_view(one) for one in obstacles(view, verdict.node_id, quorum=quorum)
                ),
            )
            for verdict in candidates(view)
        ),
        switchover_targets=fit_targets(view),
        if_server_crashed=_judged(if_server_crashed(view)),
        if_host_lost=_judged(if_host_lost(view)),
    )


def _judged(decision: Decision | None) -> views.JudgedView | None:
    if decision is None:
        return None
    action = decision.action
    return views.JudgedView(
        rule=decision.rule,
        action=action_text(action),
        reason=decision.reason,
        node_id=action.node_id if isinstance(action, GrantTo) else None,
    )


def add_explaining_routes(router: APIRouter, handlers: ExplainingHandlers) -> None:
    """The documented routes, and deprecated spellings."""
    body_of = handlers.common.body_of
    router.get(
        "/cluster/decisions", tags=["decisions"], response_model=Success[views.DecisionsView]
    )(handlers.decisions)
    router.get("/cluster/explain", tags=["decisions"], response_model=Success[views.ExplainView])(
        handlers.explain
    )
    router.post(
        "/cluster/promote",
        tags=["cluster"],
        response_model=Success[views.PromoteView],
        openapi_extra=body_of(views.MoveRequest),
    )(handlers.promote)
    router.post(
        "/cluster/demote",
        tags=["cluster"],
        response_model=Success[views.DemoteView],
        openapi_extra=body_of(views.MoveRequest),
    )(handlers.demote)
    for path, handler in (
        ("/cluster/promote/{node_id}", handlers.promote_to),
        ("/promote/{node_id}", handlers.promote_to),
        ("/cluster/demote/{node_id}", handlers.demote_of),
        ("/demote/{node_id}", handlers.demote_of),
    ):
        router.add_api_route(path, handler, methods=["POST"], include_in_schema=False)
