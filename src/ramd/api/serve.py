"""The HTTP server of one daemon: its own thread, its own event loop.

Lives here: socket and thread, from bind to stop. Must not live here: what runs in the thread
(`thread`), routes (`app`), an import of a web library: the daemon imports this module at its start.
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

from ramd.api.limits import Auth, Limits
from ramd.api.order import Order
from ramd.domain.errors import ConfigError, RamdError, Refused
from ramd.domain.service import Service

log = logging.getLogger(__name__)

BACKLOG = 128
SERVED_WITHIN_S = 60.0
STOPPED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What exists between bind and stop."""

    listener: socket.socket
    order: Order
    thread: threading.Thread
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What the application is made of. `control_loop` executes the writes."""

    service: Service
    control_loop: asyncio.AbstractEventLoop
    auth: Auth
    limits: Limits


class ApiServer:
    """Serves `service` on `bind`:`port`. Port 0 takes a free one; see `port` after `bind`.

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
        self._address = bind
        self._wanted_port = port
        self._ingredients = Ingredients(
            service=service,
            control_loop=control_loop,
            auth=auth or Auth(),
            limits=limits or Limits(),
        )
        self._running: Running | None = None

    @property
    def port(self) -> int:
        """The port that is bound, or the wanted one while none is."""
        return self._running.port if self._running is not None else self._wanted_port

    @property
    def alive(self) -> bool:
        """The thread lives. It ends by itself only through a bug, which is logged."""
        return self._running is not None and self._running.thread.is_alive()

    def start(self) -> None:
        """`bind`, then `await_served`."""
        self.bind()
        self.await_served()

    def bind(self) -> None:
        """Returns with the port bound. Who asks before the thread serves it waits in the queue.

        Raises Refused `port_in_use` naming the port and, if known, its owner; ConfigError for an
        address that this host does not have.
        """
        assert self._running is None, "started twice"
        listener = _listen(self._address, self._wanted_port)
        order = Order()
        thread = threading.Thread(
            target=_run, args=(self._ingredients, listener, order), name="ramd-http", daemon=True
        )
        thread.start()
        port = int(listener.getsockname()[1])
        self._running = Running(listener=listener, order=order, thread=thread, port=port)

    def await_served(self) -> None:
        """Returns once requests are answered. Raises RamdError if that is not so in time, or if
        it was stopped meanwhile. Blocks."""
        running = self._running
        if running is None or not running.order.served(SERVED_WITHIN_S):
            self.stop()
            raise RamdError(f"the HTTP server did not start within {SERVED_WITHIN_S:g} s")

    def stop(self) -> None:
        """Stop serving; answers under way get a moment. Returns within STOPPED_WITHIN_S.

        Blocks: from the control loop call `await asyncio.to_thread(server.stop)`. Commands under
        way on the control loop are not stopped. No-op if it does not run.
        """
        running, self._running = self._running, None
        if running is None:
            return
        running.order.stop()
        running.thread.join(STOPPED_WITHIN_S)
        running.listener.close()
        if running.thread.is_alive():
            log.error("the HTTP thread has not ended within %g s", STOPPED_WITHIN_S)


def _run(made_of: Ingredients, listener: socket.socket, order: Order) -> None:
    """The thread's life."""

    async def main() -> None:
        # Here, because these take as long to import as all the rest of the daemon.
        from ramd.api.thread import make_server, serve

        server = make_server(made_of.service, made_of.control_loop, made_of.auth, made_of.limits)
        await serve(server, listener, order)

    try:
        asyncio.run(main())
    except BaseException:  # boundary: a thread's end; nobody is above it to raise to
        log.critical("the HTTP thread ended by an error", exc_info=True)
    finally:
        order.detach()


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
    import psutil  # only for this message

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.pid:
                continue
            if connection.laddr and connection.laddr[1] == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
