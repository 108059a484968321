"""The routes of synchronous replication: show it, and ask for a change.

Must not live here: what may be asked for (`ramd.policy.syncorder`). Start reading at `sync_router`.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from ramd.api.routes import ERRORS, PREFIX, Handlers, actor_of, success
from ramd.api.sync_view import sync_data
from ramd.domain.service import SyncChange
from ramd.domain.sync import SyncMode, SyncOrder
from ramd.schema import sync as views
from ramd.schema.envelope import Success
from ramd.schema.requests import read_request

CHANGE_TIMEOUT_S = 15.0


class SyncHandlers:
    """What the routes do."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    async def status(self) -> Response:
        """Whom commits wait for, and how far every replica is."""
        data = sync_data(self._handlers.formed())
        return success(f"commits wait for {data.waits_for}", data)

    async def change(self, request: Request) -> Response:
        """Change mode, number, or what happens when replicas are lost."""
        body = read_request(views.SyncRequest, await request.body())
        order = SyncOrder(
            mode=SyncMode(body.mode) if body.mode is not None else None,
            num_sync_standbys=body.num_sync_standbys,
            enforce_sync_standbys=body.enforce_sync_standbys,
            sync_replication_timeout_ms=body.sync_replication_timeout_ms,
        )
        return await self._order(request, order)

    async def add(self, request: Request) -> Response:
        """A replica may confirm commits from now on."""
        body = read_request(views.SyncNodeRequest, await request.body())
        return await self._order(request, SyncOrder(add=body.node_name))

    async def remove(self, request: Request) -> Response:
        """A replica may confirm commits no longer."""
        body = read_request(views.SyncNodeRequest, await request.body())
        return await self._order(request, SyncOrder(remove=body.node_name))

    async def _order(self, request: Request, order: SyncOrder) -> Response:
        here = self._handlers
        here.formed()
        wanted = SyncChange(order=order, actor=actor_of(request))
        done = await here.dispatcher.run(
            "sync",
            lambda: here.service.change_sync(wanted, timeout_s=CHANGE_TIMEOUT_S),
            timeout_s=CHANGE_TIMEOUT_S + 5,
        )
        data = sync_data(here.service.snapshot())
        how = "" if done.settled else "; the change is recorded and still under way"
        return success(f"commits wait for {data.waits_for}{how}", data)


def sync_router(handlers: Handlers) -> APIRouter:
    """Two names of the same thing, as users know them."""
    router = APIRouter(prefix=PREFIX, responses=ERRORS, tags=["replication"])
    here, answer = SyncHandlers(handlers), Success[views.SyncData]
    router.get("/sync-standbys/status", response_model=answer)(here.status)
    router.get("/replication/sync", response_model=answer)(here.status)
    for path, handler, body in (
        ("/replication/sync", here.change, views.SyncRequest),
        ("/sync-standbys/add", here.add, views.SyncNodeRequest),
        ("/sync-standbys/remove", here.remove, views.SyncNodeRequest),
    ):
        schema = {"application/json": {"schema": body.model_json_schema()}}
        extra = {"requestBody": {"required": True, "content": schema}}
        router.post(path, response_model=answer, openapi_extra=extra)(handler)
    return router
