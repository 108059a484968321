"""The routes by which members come and go, beside those of `routes`.

Lives here: thin handlers. Must not live here: decisions. Start reading at `add_member_routes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ramd.api.dispatch import Dispatcher
from ramd.api.limits import Limits
from ramd.api.picture import Picture
from ramd.domain import service as domain
from ramd.domain.errors import Refused
from ramd.domain.model import ClusterState, Member
from ramd.schema import members as views
from ramd.schema.envelope import Answer, Success, timestamp_of
from ramd.schema.requests import read_request

NAMES = ("node_id", "name", "node_address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What these handlers share with those of `routes`."""

    look: Callable[[], tuple[domain.Snapshot, Picture]]
    select: Callable[[Picture, str, str], Member]
    """(picture, selector, field) → the member. Raises Refused."""
    actor: Callable[[Request], str]
    success: Callable[[str, Answer, int], Response]
    body_of: Callable[[Any], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberHandlers:
    """What the routes do, over one service."""

    service: domain.Service
    dispatcher: Dispatcher
    limits: Limits
    common: Common

    async def add_node(self, request: Request) -> Response:
        """Invite a node: answers with a token and the lines of its ramd.conf."""
        body = read_request(views.AddNodeRequest, await request.body())
        _, picture = self.common.look()
        replaces = None
        if body.replace is not None:
            replaces = self.common.select(picture, str(body.replace), "replace").node_id
        wanted = domain.AddNodeRequest(
            node_id=body.node_id,
            hostname=body.hostname or "",
            postgresql_port=body.port,
            raft_port=body.raft_port,
            http_port=body.http_port,
            name=body.name or "",
            priority=body.priority,
            nofailover=body.nofailover,
            replaces=replaces,
            actor=self.common.actor(request),
        )
        limit_s = self.limits.request_timeout_s
        result = await self.dispatcher.run(
            "add-node", lambda: self.service.add_node(wanted, timeout_s=limit_s), timeout_s=limit_s
        )
        data = added(result)
        return self.common.success(f"node {data.node_id} may join", data, 201)

    async def remove_node(self, request: Request) -> Response:
        """Take a node out of the group; its data stay where they are."""
        body = read_request(views.RemoveNodeRequest, await request.body())
        snapshot, picture = self.common.look()
        node_id = self._meant(body, snapshot.state, picture)
        wanted = domain.RemoveNodeRequest(node_id=node_id, actor=self.common.actor(request))
        limit_s = self.limits.failover_timeout_s
        result = await self.dispatcher.run(
            "remove-node",
            lambda: self.service.remove_node(wanted, timeout_s=limit_s),
            timeout_s=limit_s,
        )
        data = views.RemoveNodeData(
            node_removed=result.node_id, name=result.name, invitation_withdrawn=result.withdrawn
        )
        what = "may join no more" if result.withdrawn else "was removed"
        return self.common.success(f"node {result.node_id} {what}", data, 200)

    def _meant(self, body: views.RemoveNodeRequest, state: ClusterState, picture: Picture) -> int:
        """Which node the body names. Raises Refused."""
        given = [name for name in NAMES if getattr(body, name) is not None]
        if len(given) != 1:
            raise Refused(
                f"name the node by one of {', '.join(NAMES)}",
                code="invalid_field",
                field=given[1] if given else "node_id",
            )
        if body.node_address is not None:
            return _at(body.node_address, state)
        selector = str(body.node_id if body.node_id is not None else body.name)
        for invitation in state.invitations:
            if selector in (str(invitation.member.node_id), invitation.member.name):
                return invitation.member.node_id
        return self.common.select(picture, selector, given[0]).node_id

    async def add_voter(self, request: Request) -> Response:
        """Give a learner a vote now; refused while it is behind."""
        body = read_request(views.AddVoterRequest, await request.body())
        _, picture = self.common.look()
        node_id = self.common.select(picture, str(body.node_id), "node_id").node_id
        wanted = domain.AddVoterRequest(node_id=node_id, actor=self.common.actor(request))
        limit_s = self.limits.request_timeout_s
        result = await self.dispatcher.run(
            "add-voter",
            lambda: self.service.add_voter(wanted, timeout_s=limit_s),
            timeout_s=limit_s,
        )
        data = views.AddVoterData(node_id=result.node_id, voters=result.voters)
        return self.common.success(f"node {result.node_id} votes", data, 200)

    async def reinit(self, request: Request, node_id: str) -> Response:
        """Keep a replica's data directory aside and clone the primary; refused for the primary."""
        read_request(views.ReinitRequest, await request.body())
        _, picture = self.common.look()
        meant = self.common.select(picture, node_id, "node_id").node_id
        wanted = domain.ReinitRequest(node_id=meant, actor=self.common.actor(request))
        limit_s = self.limits.failover_timeout_s
        result = await self.dispatcher.run(
            "reinit",
            lambda: self.service.reinit(wanted, timeout_s=limit_s),
            timeout_s=limit_s,
        )
        data = views.ReinitData(
            node_reinitialized=result.node_id,
            name=result.name,
            done=result.done,
            activity=result.activity,
        )
        what = "holds a new copy" if result.done else "is being made anew"
        return self.common.success(f"node {result.node_id} {what}", data, 200)


def _at(address: str, state: ClusterState) -> int:
    """The one member at `host` or `host:port`. Raises Refused."""
    found = [
        member.node_id
        for member in state.members
        if address in (member.hostname, f"{member.hostname}:{member.postgresql_port}")
    ]
    if len(found) == 1:
        return found[0]
    wrong = "several nodes are" if found else "no node is"
    raise Refused(
        f"{wrong} at '{address[:260]}'",
        code="conflict" if found else "not_found",
        field="node_address",
        hint="name it by node_id, or as hostname:port with PostgreSQL's port",
    )


def added(result: domain.AddNodeResult) -> views.AddNodeData:
    """POST /cluster/add-node."""
    member = result.member
    return views.AddNodeData(
        node_id=member.node_id,
        name=member.name,
        hostname=member.hostname,
        port=member.postgresql_port,
        raft_port=member.raft_port,
        http_port=member.http_port,
        replaces_node_id=result.replaces,
        join_token=result.token,
        expires_at=timestamp_of(result.expires_unix_ms),
        conf=result.conf,
    )


def add_member_routes(router: APIRouter, handlers: MemberHandlers) -> None:
    """The documented routes, and deprecated spellings."""
    body_of = handlers.common.body_of
    router.post(
        "/cluster/add-node",
        tags=["cluster"],
        status_code=201,
        response_model=Success[views.AddNodeData],
        openapi_extra=body_of(views.AddNodeRequest),
    )(handlers.add_node)
    router.post(
        "/cluster/remove-node",
        tags=["cluster"],
        response_model=Success[views.RemoveNodeData],
        openapi_extra=body_of(views.RemoveNodeRequest),
    )(handlers.remove_node)
    router.post(
        "/cluster/add-voter",
        tags=["cluster"],
        response_model=Success[views.AddVoterData],
        openapi_extra=body_of(views.AddVoterRequest),
    )(handlers.add_voter)
    router.post(
        "/nodes/{node_id}/reinit",
        tags=["nodes"],
        response_model=Success[views.ReinitData],
        openapi_extra=body_of(views.ReinitRequest),
    )(handlers.reinit)
    for path, handler in (
        ("/replica/add", handlers.add_node),
        ("/replica/remove", handlers.remove_node),
    ):
        router.add_api_route(path, handler, methods=["POST"], include_in_schema=False)
