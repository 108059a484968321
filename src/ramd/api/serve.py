"""The HTTP server of one daemon: its own thread, its own event loop.

Lives here: socket, thread and uvicorn, from bind to stop. Must not live here: routes (`app`).
The control loop hands in its `Service` and its loop; the two threads meet in `Service.snapshot`
(reads) and in `dispatch` (writes) only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from dataclasses import dataclass

import psutil
import uvicorn

from ramd.api.app import build_app
from ramd.api.connection import BoundedProtocol
from ramd.api.dispatch import Dispatcher
from ramd.api.guard import Auth, Limits
from ramd.domain.errors import ConfigError, RamdError, Refused
from ramd.domain.service import Service

log = logging.getLogger(__name__)

BACKLOG = 128
STARTED_WITHIN_S = 15.0
DRAIN_S = 2
"""How long answers under way may take once the server stops."""
STOPPED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What exists between start and stop."""

    listener: socket.socket
    server: uvicorn.Server
    thread: threading.Thread
    port: int


class ApiServer:
    """Serves `service` on `bind`:`port`. Port 0 takes a free one; see `port` after `start`.

    `control_loop` is the running loop on which writes are executed.
    """

    def __init__(
        self,
        service: Service,
        *,
        control_loop: asyncio.AbstractEventLoop,
        bind: str,
        port: int,
        auth: Auth | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._bind = bind
        self._wanted_port = port
        limits = limits or Limits()
        dispatcher = Dispatcher(control_loop, pending_max=limits.writes_max)
        self._app = build_app(service, dispatcher, auth=auth or Auth(), limits=limits)
        self._running: Running | None = None

    @property
    def port(self) -> int:
        """The port that is served, or the wanted one while it is not."""
        return self._running.port if self._running is not None else self._wanted_port

    @property
    def alive(self) -> bool:
        """The thread lives. It ends by itself only through a bug, which is logged."""
        return self._running is not None and self._running.thread.is_alive()

    def start(self) -> None:
        """Returns with the port bound and served (some milliseconds; at most STARTED_WITHIN_S).

        Raises Refused `port_in_use` naming the port and, if known, its owner; ConfigError for an
        address that this host does not have.
        """
        assert self._running is None, "started twice"
        listener = _listen(self._bind, self._wanted_port)
        server = uvicorn.Server(
            uvicorn.Config(
                self._app,
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
        ready = threading.Event()
        thread = threading.Thread(
            target=_run, args=(server, listener, ready), name="ramd-http", daemon=True
        )
        thread.start()
        port = int(listener.getsockname()[1])
        self._running = Running(listener=listener, server=server, thread=thread, port=port)
        if not ready.wait(STARTED_WITHIN_S) or not server.started:
            self.stop()
            raise RamdError(f"the HTTP server did not start within {STARTED_WITHIN_S:g} s")

    def stop(self) -> None:
        """Stop serving; answers under way get DRAIN_S. Returns within STOPPED_WITHIN_S.

        Blocks: from the control loop call `await asyncio.to_thread(server.stop)`. Commands under
        way on the control loop are not stopped. No-op if it does not run.
        """
        running, self._running = self._running, None
        if running is None:
            return
        running.server.should_exit = True
        running.thread.join(STOPPED_WITHIN_S)
        running.listener.close()
        if running.thread.is_alive():
            log.error("the HTTP thread has not ended within %g s", STOPPED_WITHIN_S)


def _run(server: uvicorn.Server, listener: socket.socket, ready: threading.Event) -> None:
    """The thread's life."""

    async def serve() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():  # ends with start-up or with its failure
            await asyncio.sleep(0.005)
        ready.set()
        await serving

    try:
        asyncio.run(serve())
    except BaseException:  # boundary: a thread's end; nobody is above it to raise to
        log.critical("the HTTP thread ended by an error", exc_info=True)
    finally:
        ready.set()


def _listen(bind: str, port: int) -> socket.socket:
    """A listening socket, bound here so that the error belongs to the caller of start()."""
    try:
        found = socket.getaddrinfo(
            bind or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(
            f"http_bind_address = {bind}: {error.strerror or error}", field="http_bind_address"
        ) from error
    family, kind, proto, _, address = found[0]
    listener = socket.socket(family, kind, proto)
    try:
        # Only what is left of closed connections may be ignored: another listener is an error.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _bind_error(bind, port, error) from error
    return listener


def _bind_error(bind: str, port: int, error: OSError) -> RamdError:
    if error.errno == errno.EADDRINUSE:
        owner = _owner_of(port)
        return Refused(
            f"http_port {port} on {bind} is in use{f' by {owner}' if owner else ''}",
            code="port_in_use",
            hint="stop that program or choose another http_port",
            field="http_port",
        )
    field = "http_port" if error.errno == errno.EACCES else "http_bind_address"
    return ConfigError(f"cannot serve HTTP on {bind} port {port}: {error.strerror}", field=field)


def _owner_of(port: int) -> str:
    """`name (pid 12)` of the program that listens on `port`; '' if it cannot be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.pid:
                continue
            if connection.laddr and connection.laddr[1] == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
