"""The routes under /api/v1: read the request, ask the service, render the answer.

Lives here: thin handlers and the table of aliases. Must not live here: decisions, SQL, waiting for
anything but the service. Start reading at `api_router`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ramd.api import render
from ramd.api.dispatch import Dispatcher
from ramd.api.errors import now_unix_ms
from ramd.api.explaining import ExplainingHandlers, add_explaining_routes
from ramd.api.guard import client_of
from ramd.api.limits import Limits
from ramd.api.members import Common, MemberHandlers, add_member_routes
from ramd.api.picture import NodePicture, Picture, look
from ramd.api.quorum import QuorumHandlers, add_quorum_routes
from ramd.domain import service as domain
from ramd.domain.errors import Refused, Unavailable
from ramd.schema import cluster as views
from ramd.schema import requests
from ramd.schema.answers import ClusterHealthData
from ramd.schema.envelope import Answer, Failure, Success, timestamp_of

PREFIX = "/api/v1"

ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": Failure, "description": "Refused or failed: a stable code and a hint."}
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What the routes do, over one service."""

    service: domain.Service
    dispatcher: Dispatcher
    limits: Limits

    async def health(self) -> Response:
        """This daemon, with or without a cluster."""
        snapshot = self.service.snapshot()
        data = render.health(snapshot, self.service.now_ns())
        return success(f"daemon {data.daemon_status}, {data.stage}", data)

    async def cluster_health(self) -> Response:
        """One word on the cluster, and why."""
        _, picture = self.look()
        return success(f"cluster {picture.status}", render.cluster_health(picture))

    async def cluster_status(self) -> Response:
        """The whole cluster in one coherent picture."""
        snapshot, picture = self.look()
        data = render.cluster_status(snapshot, picture, now_unix_ms())
        return success(f"cluster {picture.status}", data)

    async def nodes(self) -> Response:
        """All nodes by id."""
        snapshot, picture = self.look()
        data = render.nodes(snapshot, picture, now_unix_ms())
        return success(f"{len(data.nodes)} nodes", data)

    async def node(self, node_id: str) -> Response:
        """One node by id, name, `primary`, or `replica1`: the first replica by id."""
        snapshot, picture = self.look()
        found = _select(picture, node_id, field="node_id")
        data = render.node(snapshot, found, now_unix_ms())
        return success(f"node {data.id} is a {data.role}, {data.state}", data)

    async def own_node(self) -> Response:
        """This daemon's own node."""
        return await self.node(str(self.service.snapshot().daemon.node_id))

    async def create(self, request: Request) -> Response:
        """Make a cluster on this host; answers when every replica streams."""
        body = requests.read_request(requests.CreateRequest, await request.body())
        wanted = domain.CreateRequest(
            num_nodes=body.num_nodes,
            primary_port=body.primary_port,
            replica_ports=body.replica_ports or (),
            data_dir=body.data_dir or "",
            log_dir=body.log_dir or "",
            actor=actor_of(request),
        )
        limit_s = self.limits.create_timeout_s
        result = await self.dispatcher.run(
            "create", lambda: self.service.create(wanted, timeout_s=limit_s), timeout_s=limit_s
        )
        data = render.created(result, self.service.snapshot().state)
        return success(f"cluster {result.cluster_name} created", data, code=201)

    async def destroy(self, request: Request) -> Response:
        """Finish the cluster; data directories are renamed aside unless removal is asked for."""
        body = requests.read_request(requests.DestroyRequest, await request.body())
        self.formed()
        wanted = domain.DestroyRequest(
            remove_data=body.remove_data,
            cluster_name=body.cluster_name or "",
            actor=actor_of(request),
        )
        limit_s = self.limits.destroy_timeout_s
        result = await self.dispatcher.run(
            "destroy", lambda: self.service.destroy(wanted, timeout_s=limit_s), timeout_s=limit_s
        )
        data = render.destroyed(wanted, result)
        return success(f"cluster {result.cluster_name} destroyed", data)

    async def failover(self, request: Request) -> Response:
        """Move the primary to `target_node`, or to the best candidate."""
        body = requests.read_request(requests.FailoverRequest, await request.body())
        return await self._failover(request, body.target_node, accept_loss=body.accept_loss)

    async def failover_to(self, request: Request, target_node: str) -> Response:
        """The same with the target in the path."""
        body = requests.read_request(requests.FailoverRequest, await request.body())
        return await self._failover(request, target_node, accept_loss=body.accept_loss)

    async def _failover(
        self, request: Request, target: int | str | None, *, accept_loss: bool
    ) -> Response:
        _, picture = self.look()
        node_id = None
        if target is not None:
            node_id = _select(picture, str(target), field="target_node").member.node_id
        data = render.failed_over(await fail_over(self, request, node_id, accept_loss=accept_loss))
        return success(f"node {data.new_primary} is primary", data)

    def formed(self) -> domain.Snapshot:
        """The snapshot of a formed cluster.

        Raises Refused `no_cluster` before there is one, Unavailable while a daemon that has just
        started again has not read the group's state yet.
        """
        snapshot = self.service.snapshot()
        if snapshot.daemon.stage is domain.Stage.FORMING:
            raise Refused(
                "this daemon's cluster is not formed yet",
                code="no_cluster",
                hint=snapshot.daemon.forming_text,
            )
        if snapshot.daemon.stage is domain.Stage.REMOVED:
            raise Refused(
                "this node was removed from its cluster",
                code="no_cluster",
                hint=snapshot.daemon.forming_text,
            )
        if snapshot.daemon.stage is not domain.Stage.FORMED:
            raise Refused(
                "this daemon is in no cluster",
                code="no_cluster",
                hint="POST /api/v1/cluster/create, or ramctrl cluster create, makes one",
            )
        if not snapshot.state.formed:
            raise Unavailable(
                "this daemon has not heard the state of its cluster yet",
                hint="it comes with the first coordinator; try again",
            )
        return snapshot

    def look(self) -> tuple[domain.Snapshot, Picture]:
        """The snapshot of a formed cluster and what it means. Raises as `formed`."""
        snapshot = self.formed()
        return snapshot, look(snapshot, self.service.now_ns())


async def fail_over(
    handlers: Handlers, request: Request, target: int | None, *, accept_loss: bool = False
) -> domain.FailoverResult:
    """Ask for it, within the limit of a failover."""
    wanted = domain.FailoverRequest(target=target, actor=actor_of(request), accept_loss=accept_loss)
    limit_s = handlers.limits.failover_timeout_s
    return await handlers.dispatcher.run(
        "failover",
        lambda: handlers.service.failover(wanted, timeout_s=limit_s),
        timeout_s=limit_s,
    )


def api_router(handlers: Handlers) -> APIRouter:
    """Documented routes, then deprecated spellings of the same handlers."""
    router = APIRouter(prefix=PREFIX, responses=ERRORS)
    router.get("/health", tags=["health"], response_model=Success[views.HealthView])(
        handlers.health
    )
    router.get("/cluster/health", tags=["health"], response_model=Success[ClusterHealthData])(
        handlers.cluster_health
    )
    router.get("/cluster/status", tags=["cluster"], response_model=Success[views.StatusView])(
        handlers.cluster_status
    )
    router.get("/nodes", tags=["nodes"], response_model=Success[views.NodesView])(handlers.nodes)
    router.get("/nodes/{node_id}", tags=["nodes"], response_model=Success[views.NodeView])(
        handlers.node
    )
    router.post(
        "/cluster/create",
        tags=["cluster"],
        status_code=201,
        response_model=Success[views.CreateView],
        openapi_extra=_body_of(requests.CreateRequest, required=True),
    )(handlers.create)
    router.post(
        "/cluster/destroy",
        tags=["cluster"],
        response_model=Success[views.DestroyView],
        openapi_extra=_body_of(requests.DestroyRequest),
    )(handlers.destroy)
    router.post(
        "/cluster/failover",
        tags=["cluster"],
        response_model=Success[views.FailoverView],
        openapi_extra=_body_of(requests.FailoverRequest),
    )(handlers.failover)
    common = _common(handlers)
    add_member_routes(router, _member_handlers(handlers, common))
    add_quorum_routes(router, _quorum_handlers(handlers, common))
    explaining = ExplainingHandlers(common=common, fail_over=partial(fail_over, handlers))
    add_explaining_routes(router, explaining)
    for method, path, handler in _aliases(handlers):
        router.add_api_route(path, handler, methods=[method], include_in_schema=False)
    return router


def _common(handlers: Handlers) -> Common:
    return Common(
        look=handlers.look,
        select=lambda picture, selector, field: _select(picture, selector, field=field).member,
        actor=actor_of,
        success=lambda message, data, code: success(message, data, code=code),
        body_of=_body_of,
    )


def _member_handlers(handlers: Handlers, common: Common) -> MemberHandlers:
    return MemberHandlers(
        service=handlers.service,
        dispatcher=handlers.dispatcher,
        limits=handlers.limits,
        common=common,
    )


def _quorum_handlers(handlers: Handlers, common: Common) -> QuorumHandlers:
    return QuorumHandlers(
        service=handlers.service,
        dispatcher=handlers.dispatcher,
        limits=handlers.limits,
        common=common,
    )


def _aliases(handlers: Handlers) -> list[tuple[str, str, Callable[..., Any]]]:
    """Deprecated spellings; kept for scripts that know them."""
    return [
        ("POST", "/failover", handlers.failover),
        ("POST", "/cluster/switchover", handlers.failover),
        ("POST", "/cluster/failover/{target_node}", handlers.failover_to),
        ("GET", "/node/info", handlers.own_node),
    ]


def _body_of(model: type[requests.Request], *, required: bool = False) -> dict[str, Any]:
    """The OpenAPI description of a body that the handler reads itself."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}


def success(message: str, data: Answer, *, code: int = 200) -> Response:
    envelope = Success(code=code, message=message, data=data, timestamp=timestamp_of(now_unix_ms()))
    return Response(
        envelope.model_dump_json(serialize_as_any=True),
        status_code=code,
        media_type="application/json",
    )


def _select(picture: Picture, selector: str, *, field: str) -> NodePicture:
    found = picture.select(selector)
    if found is None:
        known = ", ".join(node.member.name for node in picture.nodes)
        raise Refused(
            f"there is no node '{selector[:63]}'",
            code="not_found",
            hint=f"nodes: {known}; or an id, 'primary', 'replica1'",
            field=field,
        )
    return found


def actor_of(request: Request) -> str:
    return f"api {client_of(request.scope)}"
