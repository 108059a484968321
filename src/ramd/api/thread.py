"""The HTTP thread from its beginning to its end: import, make the application, serve, stop.

Everything that needs the web libraries is imported here, and this module only in the thread: a
daemon that starts must not wait for them before it may vote or take over its running server.
Start reading at `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

from ramd.api.app import build_app
from ramd.api.connection import BoundedProtocol
from ramd.api.dispatch import Dispatcher
from ramd.api.limits import Auth, Limits
from ramd.api.order import Order
from ramd.domain.service import Service

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


def make_server(
    service: Service, control_loop: asyncio.AbstractEventLoop, auth: Auth, limits: Limits
) -> PatientServer:
    """The application in a server that has no socket yet. Needs a running loop."""
    dispatcher = Dispatcher(control_loop, pending_max=limits.writes_max)
    return PatientServer(
        uvicorn.Config(
            build_app(service, dispatcher, auth=auth, limits=limits),
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
    )


async def serve(server: PatientServer, listener: socket.socket, order: Order) -> None:
    """Serve `listener` until told to stop; `order` learns when requests are answered."""
    loop = asyncio.get_running_loop()
    order.attach(lambda: loop.call_soon_threadsafe(server.tell))
    try:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # ends with start-up or its failure
            await asyncio.sleep(0.005)
        order.settle(served=server.started)
        await serving
    finally:
        order.detach()
