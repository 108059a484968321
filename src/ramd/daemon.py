"""The composition root: one process, one control loop, one HTTP thread, until a signal.

Lives here: what exists and in which order it starts and ends. Must not live here: anything that
could be decided. Start reading at `run`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ramd import events
from ramd.api.limits import Auth, Limits
from ramd.api.serve import ApiServer, MetricsPlace
from ramd.api.tls import ServerTls
from ramd.config.load import load
from ramd.config.model import Config
from ramd.config.reload import diff, merged
from ramd.config.tls import TlsFault, TlsPaths, examine
from ramd.domain.errors import ConfigError
from ramd.formation import SECRET_FILE
from ramd.host import Daemon, Host
from ramd.logs import set_level
from ramd.service import RamdService

_LOG = logging.getLogger("ramd")


def run(config: Config, config_path: Path, ready: Callable[[], None]) -> int:
    """Be the daemon until SIGTERM or SIGINT; returns the exit status. Raises RamdError.

    `ready` is called once the API answers. The PostgreSQL server outlives the daemon.
    """
    return asyncio.run(_main(config, config_path, ready))


async def _main(config: Config, config_path: Path, ready: Callable[[], None]) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()

    def end(why: str) -> None:
        if not stop.done():
            stop.set_result(why)

    host = Host(Daemon(config=config, version=version("ramd"), started_ns=_boottime_ns(), stop=end))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, signal.Signals(number).name)
    for warning in config.warnings:
        events.emit(events.ConfigWarning(key=warning.partition(":")[0], what=warning))
    api = _api(host, config, loop)
    if api is not None:
        api.bind()
    loop.add_signal_handler(signal.SIGHUP, _Reload(config, config_path, host, api))
    events.emit(
        events.DaemonStarted(
            version=host.daemon.version, node_id=config.node_id, node_name=config.node_name
        )
    )
    try:
        return await _live(host, config, stop, _serving(api, ready))
    finally:
        if api is not None:
            await asyncio.to_thread(api.stop)


async def _serving(api: ApiServer | None, ready: Callable[[], None]) -> None:
    """Nothing waits for the API, which takes longer to import than to join the group."""
    if api is not None:
        await asyncio.to_thread(api.await_served)
    # What was imported stays for good: no collection has to walk it again.
    gc.freeze()
    gc.enable()
    ready()


async def _live(
    host: Host, config: Config, stop: asyncio.Future[str], serving: Coroutine[Any, Any, None]
) -> int:
    """Enter the cluster that is stored or listed, if any, and stay until told to stop."""
    work = {asyncio.create_task(host.run()), asyncio.create_task(serving)}
    if host.expects_cluster():
        members = config.members() if config.forms_cluster else ()
        work.add(asyncio.create_task(host.enter(members, secret_file(config))))
    try:
        while not stop.done():
            waiting: set[asyncio.Future[Any]] = {stop, *work}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in work if task.done()]:
                task.result()  # raises what ended it
                work.remove(task)
        events.emit(events.DaemonStopping(why=stop.result()))
        return 0
    finally:
        host.stopping()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await host.end()


def secret_file(config: Config) -> Path:
    """The configured secret file, else the one that a local create made."""
    return config.cluster_secret_file or config.state_dir / SECRET_FILE


def _api(host: Host, config: Config, loop: asyncio.AbstractEventLoop) -> ApiServer | None:
    if not config.http_api_enabled and not config.prometheus_enabled:
        return None
    token = config.http_auth_token if config.http_auth_enabled else None
    return ApiServer(
        RamdService(host),
        control_loop=loop,
        bind=config.http_bind_address,
        port=config.http_port if config.http_api_enabled else None,
        auth=Auth(token=token),
        limits=Limits(
            body_bytes_max=config.http_max_request_size,
            request_timeout_s=float(config.http_request_timeout),
            failover_timeout_s=config.failover_timeout_ms / 1000,
        ),
        metrics=_metrics_place(config),
        tls=_server_tls(config),
    )


def _metrics_place(config: Config) -> MetricsPlace | None:
    if not config.prometheus_enabled:
        return None
    return MetricsPlace(
        bind=config.prometheus_bind_address,
        port=config.prometheus_port,
        path=config.prometheus_path,
    )


def _server_tls(config: Config) -> ServerTls | None:
    """Raises ConfigError if the files have become unusable since they were checked."""
    if config.tls is None:
        return None
    try:
        return ServerTls(config.tls.cert, config.tls.key)
    except OSError as error:
        raise ConfigError(str(error), field="ssl_cert_file") from error


class _Reload:
    """SIGHUP: read the file again, apply what can be applied, say what needs a restart.

    Certificates are taken anew also where the file names the same ones: their content may differ.
    """

    def __init__(self, config: Config, path: Path, host: Host, api: ApiServer | None) -> None:
        self._config = config
        self._path = path
        self._host = host
        self._api = api

    def __call__(self) -> None:
        """A faulty file, of whatever kind, changes nothing."""
        try:
            new = load(self._path, os.environ)
        except ConfigError as error:
            _LOG.error("reload refused, nothing was changed: %s", error.message)
            return
        changes = diff(self._config, new)
        self._config = merged(self._config, new)
        set_level(self._config.effective_log_level)
        if self._config.tls is not None:
            self._renew(self._config.tls)
        _LOG.info(
            "reloaded %s: applied: %s; need a restart: %s; settled by the group: %s",
            self._path,
            ", ".join(changes.applied) or "nothing",
            ", ".join(changes.needs_restart) or "nothing",
            ", ".join(changes.cluster_wide) or "nothing",
        )

    def _renew(self, files: TlsPaths) -> None:
        try:
            found = examine(files)
            self._host.renew_tls(files, found)
        except (TlsFault, ConfigError) as fault:
            events.emit(events.CertificateRefused(why=str(fault)))
            return
        if self._api is not None:
            self._api.renew_certificate(files.cert, files.key)
        events.emit(events.CertificateLoaded(cert_file=str(files.cert), until=found.until))


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
