"""The HTTP thread from its beginning to its end: import, make the application, serve, stop.

Everything that needs the web libraries is imported here, and this module only in the thread: a
daemon that starts must not wait for them before it may vote or take over its running server.
Start reading at `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from ramd.api.app import build_app
from ramd.api.connection import BoundedProtocol
from ramd.api.dispatch import Dispatcher
from ramd.api.metrics import DaemonMetrics
from ramd.api.order import Order
from ramd.api.serve import Ingredients

DRAIN_S = 2
"""How long answers under way may take once the server stops."""
LOOK_S = 1.0


class PatientServer(uvicorn.Server):
    """Looks once a second whether to stop, not ten times, and at once when it is told to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    async def main_loop(self) -> None:
        """Until it is told to stop. Each look, always at count 0, also renews the Date header."""
        while not self._told.is_set() and not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._told.wait()

    def tell(self) -> None:
        """Stop now. In the server's own loop."""
        self._told.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A server without a socket yet, and the socket that it is to serve."""

    server: PatientServer
    listener: socket.socket


def open_doors(made_of: Ingredients, listeners: Mapping[str, socket.socket]) -> list[Door]:
    """A server for each socket: the REST interface for "http", the metrics alone for "metrics"."""
    metrics = DaemonMetrics(made_of.service)
    context = made_of.tls.context if made_of.tls is not None else None
    apps: dict[str, ASGIApp] = {}
    if "http" in listeners:
        dispatcher = Dispatcher(made_of.control_loop, pending_max=made_of.limits.writes_max)
        apps["http"] = build_app(
            made_of.service, dispatcher, auth=made_of.auth, limits=made_of.limits, metrics=metrics
        )
    if made_of.metrics is not None:
        apps["metrics"] = metrics_app(metrics, made_of.metrics.path)
    return [
        Door(server=make_server(apps[what], context), listener=listener)
        for what, listener in listeners.items()
    ]


def metrics_app(metrics: DaemonMetrics, path: str) -> ASGIApp:
    """Nothing but the metrics, at one path."""
    return Starlette(routes=metrics.routes((path,)))


def make_server(app: ASGIApp, context: ssl.SSLContext | None) -> PatientServer:
    """The application in a server that has no socket yet. Needs a running loop."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=DRAIN_S,
    )
    config.load()
    config.ssl = context  # made by us: it can be given another certificate later
    return PatientServer(config)


async def serve(doors: Sequence[Door], order: Order) -> None:
    """Serve every door until told to stop; `order` learns when requests are answered by all."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        for door in doors:
            door.server.tell()

    order.attach(lambda: loop.call_soon_threadsafe(tell), loop.call_soon_threadsafe)
    try:
        serving = asyncio.gather(*(d.server.serve(sockets=[d.listener]) for d in doors))
        while not all(d.server.started for d in doors) and not serving.done():
            await asyncio.sleep(0.005)  # ends with start-up or its failure
        order.settle(served=all(d.server.started for d in doors))
        await serving
    finally:
        order.detach()
