"""The floor under every failover: how long PostgreSQL alone takes to promote a bare replica.

From the signal after the promote file to the first commit on a connection that was open before, on
a server no daemon watches. Start reading at `promote_floor`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg

from ramd.domain.server import StopMode, Upstream
from ramd.postgres.instance import Instance
from ramd.postgres.options import ServerOptions
from ramd.postgres.site import Site, open_site
from tools.local_cluster import free_ports

START_MS = 30_000
STOP_MS = 10_000
DEADLINE_S = 30.0
ASK_AGAIN_S = 0.001


def promote_floor(runs: int) -> list[float]:
    """Milliseconds of `runs` promotions, each of a fresh replica of the one before."""
    root = Path(tempfile.mkdtemp(prefix="ramd-floor-"))
    root.chmod(0o711)
    try:
        return asyncio.run(_measure(root, runs))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _measure(root: Path, runs: int) -> list[float]:
    first_port = free_ports().postgresql
    # Two servers live at a time; the ports take turns.
    sites = [_site(root, number, first_port + number % 3) for number in range(runs + 1)]
    found: list[float] = []
    async with AsyncExitStack() as stack:
        primary = await _open(stack, sites[0])
        await primary.data.initdb()
        await primary.start(replica=False, upstream=None, timeout_ms=START_MS)
        await _answers(primary)
        await primary.ensure_roles()
        with _connect(sites[0]) as connection:
            connection.execute("CREATE TABLE floor(at timestamptz DEFAULT clock_timestamp())")
        for old, new in itertools.pairwise(sites):
            replica = await _open(stack, new)
            upstream = Upstream(
                node_id=old.options.node_id, host="127.0.0.1", port=old.options.port
            )
            await primary.ensure_slots((new.options.node_id,), primary=True)
            await replica.data.clone(upstream)
            await replica.start(replica=True, upstream=upstream, timeout_ms=START_MS)
            await _streams(replica, upstream)
            connection = _connect(new)
            pid = int((new.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
            await primary.stop(StopMode.IMMEDIATE, timeout_ms=STOP_MS)
            found.append(await asyncio.to_thread(_promote, connection, new.data_dir, pid))
            primary = replica
    return found


async def _open(stack: AsyncExitStack, site: Site) -> Instance:
    """A server that is stopped at the end, whatever happens."""
    site.prepare()
    server = Instance(site)
    await stack.enter_async_context(server)
    stack.push_async_callback(server.stop, StopMode.IMMEDIATE, timeout_ms=STOP_MS)
    return server


def _promote(
    connection: psycopg.Connection[tuple[object, ...]], data_dir: Path, postmaster: int
) -> float:
    """Milliseconds from the signal to the first commit on a connection that was open before."""
    (data_dir / "promote").touch()
    begun_s = time.monotonic()
    os.kill(postmaster, signal.SIGUSR1)
    with connection:
        while time.monotonic() - begun_s < DEADLINE_S:
            try:
                connection.execute("INSERT INTO floor DEFAULT VALUES")
            except psycopg.errors.ReadOnlySqlTransaction:
                time.sleep(ASK_AGAIN_S)
            else:
                return (time.monotonic() - begun_s) * 1000
    raise TimeoutError(f"the replica was not promoted within {DEADLINE_S:g} s")


async def _answers(server: Instance) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not (await server.probe(timeout_ms=1000)).accepting:
            await asyncio.sleep(0.05)


async def _streams(server: Instance, upstream: Upstream) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (await server.probe(timeout_ms=1000)).upstream != upstream.node_id:
            await asyncio.sleep(0.05)


def _connect(site: Site) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1",
        port=site.options.port,
        user=site.options.superuser,
        dbname=site.options.database,
        connect_timeout=5,
        autocommit=True,
    )


def _site(root: Path, number: int, port: int) -> Site:
    folder = root / f"s{number}"
    options = ServerOptions(
        node_id=number % 9 + 1,
        data_dir=folder / "data",
        state_dir=folder / "state",
        log_dir=folder / "log",
        port=port,
        initdb_options=("--no-sync",),
    )
    return open_site(options)
