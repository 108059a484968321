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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramd import events
from ramd.api.limits import Auth, Limits
from ramd.api.order import Order
from ramd.api.tls import ServerTls
from ramd.domain.errors import ConfigError, RamdError, Refused
from ramd.domain.service import Service

log = logging.getLogger(__name__)

BACKLOG = 128
HANDSHAKE_S = 5.0
SERVED_WITHIN_S = 60.0
STOPPED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPlace:
    """Where metrics are served besides the REST interface's own port."""

    bind: str
    port: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What exists between bind and stop. `listeners` by "http" and "metrics"."""

    listeners: Mapping[str, socket.socket]
    order: Order
    thread: threading.Thread

    def port(self, what: str) -> int | None:
        """The port that is bound; None: there is none."""
        listener = self.listeners.get(what)
        return int(listener.getsockname()[1]) if listener is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What the application is made of. `control_loop` executes the writes."""

    service: Service
    control_loop: asyncio.AbstractEventLoop
    auth: Auth
    limits: Limits
    metrics: MetricsPlace | None = None
    tls: ServerTls | None = None


class ApiServer:
    """Serves `service` on `bind`:`port`. Port 0 takes a free one; see `port` after `bind`. Port
    None: no REST interface, only the metrics.

    `control_loop` is the running loop on which writes are executed.
    """

    def __init__(
        self,
        service: Service,
        *,
        control_loop: asyncio.AbstractEventLoop,
        bind: str,
        port: int | None,
        auth: Auth | None = None,
        limits: Limits | None = None,
        metrics: MetricsPlace | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._address = bind
        self._wanted_port = port
        self._ingredients = Ingredients(
            service=service,
            control_loop=control_loop,
            auth=auth or Auth(),
            limits=limits or Limits(),
            metrics=metrics,
            tls=tls,
        )
        self._running: Running | None = None

    @property
    def port(self) -> int:
        """The port that is bound, or the wanted one while none is; 0: no REST interface."""
        bound = self._running.port("http") if self._running is not None else None
        return bound or self._wanted_port or 0

    @property
    def metrics_port(self) -> int | None:
        """The port that serves the metrics alone; None: none does."""
        return self._running.port("metrics") if self._running is not None else None

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
        listeners: dict[str, socket.socket] = {}
        if self._wanted_port is not None:
            listeners["http"] = _listen(self._address, self._wanted_port, HTTP)
        try:
            metrics = _listen_for_metrics(self._ingredients.metrics)
        except BaseException:
            for listener in listeners.values():
                listener.close()
            raise
        if metrics is not None:
            listeners["metrics"] = metrics
        order = Order()
        thread = threading.Thread(
            target=_run, args=(self._ingredients, listeners, order), name="ramd-http", daemon=True
        )
        thread.start()
        self._running = Running(listeners=listeners, order=order, thread=thread)

    def renew_certificate(self, cert_file: Path, key_file: Path) -> bool:
        """Have new connections see what these files hold now; they were checked before. False:
        nothing is served by TLS. Never waits."""
        tls, running = self._ingredients.tls, self._running
        if tls is None or running is None:
            return False
        tls.point(cert_file, key_file)
        return running.order.run(tls.load)

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
        for listener in running.listeners.values():
            listener.close()
        if running.thread.is_alive():
            log.error("the HTTP thread has not ended within %g s", STOPPED_WITHIN_S)


class PatientLoop(asyncio.SelectorEventLoop):
    """Gives a TLS handshake as long as the head of a request, not a minute as asyncio does:
    what has not shown itself by then holds no socket any more."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        """As asyncio's."""
        if kwargs.get("ssl") is not None:
            kwargs["ssl_handshake_timeout"] = HANDSHAKE_S
        return await super().create_server(*args, **kwargs)


def _run(made_of: Ingredients, listeners: Mapping[str, socket.socket], order: Order) -> None:
    """The thread's life."""

    async def main() -> None:
        # Here, because these take as long to import as all the rest of the daemon.
        from ramd.api.thread import open_doors, serve

        await serve(open_doors(made_of, listeners), order)

    try:
        with asyncio.Runner(loop_factory=PatientLoop) as runner:
            runner.run(main())
    except BaseException:  # boundary: a thread's end; nobody is above it to raise to
        log.critical("the HTTP thread ended by an error", exc_info=True)
    finally:
        order.detach()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The names of the keys that say where a socket listens, for messages."""

    bind: str
    port: str


HTTP = _Keys(bind="http_bind_address", port="http_port")
METRICS = _Keys(bind="prometheus_bind_address", port="prometheus_port")


def _listen_for_metrics(place: MetricsPlace | None) -> socket.socket | None:
    """None also if the port is taken: a cluster does not stand still for want of a second port for
    what `http_port` serves as well; that it is so is logged."""
    if place is None:
        return None
    try:
        return _listen(place.bind, place.port, METRICS)
    except Refused as taken:
        events.emit(events.MetricsPortTaken(why=taken.message))
        return None


def _listen(bind: str, port: int, keys: _Keys) -> socket.socket:
    """A listening socket, bound here so that the error belongs to the caller of start()."""
    try:
        found = socket.getaddrinfo(
            bind or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(
            f"{keys.bind} = {bind}: {error.strerror or error}", field=keys.bind
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
        raise _bind_error(bind, port, keys, error) from error
    return listener


def _bind_error(bind: str, port: int, keys: _Keys, error: OSError) -> RamdError:
    if error.errno == errno.EADDRINUSE:
        owner = _owner_of(port)
        return Refused(
            f"{keys.port} {port} on {bind} is in use{f' by {owner}' if owner else ''}",
            code="port_in_use",
            hint=f"stop that program or choose another {keys.port}",
            field=keys.port,
        )
    field = keys.port if error.errno == errno.EACCES else keys.bind
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
