"""A server from its making to its end, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import time

import psycopg
import pytest

from ramd.domain.errors import PostgresError, Refused
from ramd.domain.observation import DataKind, ServerRole
from ramd.domain.server import ControlState, StopMode
from ramd.postgres.instance import Instance
from ramd.postgres.orphans import look_at
from tests.postgres.conftest import START_MS, Nodes, accepting
from tests.support.postgres import (
    DEBIAN_BIN,
    SMALL,
    ask,
    connect,
    frozen,
    postmaster_pid,
    processes_below,
)
from tests.support.wait import wait_for_async

both_versions = pytest.mark.parametrize(
    "bin_dir",
    [
        pytest.param(None, id="embedded"),
        pytest.param(
            DEBIAN_BIN,
            id="debian15",
            marks=pytest.mark.skipif(not DEBIAN_BIN.is_dir(), reason="PostgreSQL 15 not installed"),
        ),
    ],
)


def lives(server: Instance) -> bool:
    """A property that changes between two looks, in words that mypy does not take for constant."""
    return server.running


@both_versions
async def test_initdb_start_stop(nodes: Nodes) -> None:
    server = await nodes.open(1, initdb_options=("--no-sync",))
    assert (await server.data.inspect()).kind is DataKind.ABSENT
    await server.data.initdb()
    found = await server.data.inspect()
    assert (found.kind, found.control_state) == (DataKind.CLUSTER, ControlState.SHUT_DOWN)
    await server.start(replica=False, upstream=None, timeout_ms=START_MS)
    assert lives(server)
    await accepting(server)
    facts = await server.probe(timeout_ms=2000)
    assert facts.role is ServerRole.PRIMARY
    assert facts.system_id == found.system_id
    assert facts.position is not None
    assert facts.position.timeline == 1
    assert facts.started_unix_ms > 0
    await server.stop(StopMode.FAST, timeout_ms=START_MS)
    assert not lives(server)
    assert processes_below(nodes.cluster.folder) == []
    assert (await server.data.inspect()).control_state is ControlState.SHUT_DOWN


async def test_a_running_server_is_adopted_by_the_next_daemon(nodes: Nodes) -> None:
    async with nodes.cluster.instance(1, from_template=True) as first:
        await first.start(replica=False, upstream=None, timeout_ms=START_MS)
        await accepting(first)
    second = await nodes.open(1)
    assert not lives(second)
    assert await second.adopt()
    assert lives(second)
    assert (await second.probe(timeout_ms=2000)).accepting
    await second.stop(StopMode.FAST, timeout_ms=START_MS)
    assert not lives(second)
    await second.wait_exit()


async def test_nothing_is_adopted_where_nothing_runs(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    assert not await server.adopt()
    stale = server.data.path / "postmaster.pid"
    stale.write_text("1\n")
    assert not await server.adopt()
    stale.write_text(f"{os.getpid()}\n")
    assert not await server.adopt()


async def test_a_dead_adopted_server_that_nobody_reaped_can_be_started_again(nodes: Nodes) -> None:
    async with nodes.cluster.instance(1, from_template=True) as first:
        await first.start(replica=False, upstream=None, timeout_ms=START_MS)
        await accepting(first)
    server = await nodes.open(1)
    assert await server.adopt()
    pid = postmaster_pid(server)
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(server.wait_exit(), 30)
    assert not lives(server)
    zombie = look_at(pid, nodes.site(1).account)
    assert zombie is not None  # our child, never waited for: the number stays taken
    assert zombie.dead
    await server.data.kill_remains(timeout_ms=START_MS)
    await server.start(replica=True, upstream=None, timeout_ms=START_MS)
    await accepting(server)


async def test_a_backend_that_outlives_its_postmaster_is_killed(nodes: Nodes) -> None:
    server = await nodes.primary()
    site = nodes.site(1)
    with connect(site) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = "SELECT count(*) FROM generate_series(1, 1000000000)"
        answer = pool.submit(lambda: client.execute(busy))
        await wait_for_async(
            lambda: (
                ask(site, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%1000000000%'")
                > 1
            ),
            30.0,
            "the long statement runs",
        )
        backend = client.info.backend_pid
        os.kill(postmaster_pid(server), signal.SIGKILL)
        await asyncio.wait_for(server.wait_exit(), 30)
        assert backend in processes_below(nodes.cluster.folder)
        await server.data.kill_remains(timeout_ms=START_MS)
        assert processes_below(nodes.cluster.folder) == []
        with pytest.raises(psycopg.OperationalError):
            answer.result(timeout=30)
    assert (await server.data.inspect()).control_state is ControlState.IN_PRODUCTION
    await server.start(replica=True, upstream=None, timeout_ms=START_MS)
    await accepting(server)


async def test_kill_remains_is_refused_while_the_server_runs(nodes: Nodes) -> None:
    server = await nodes.primary()
    with pytest.raises(Refused):
        await server.data.kill_remains(timeout_ms=1000)
    with pytest.raises(Refused):
        await server.data.set_aside("a mistake")
    with pytest.raises(Refused):
        await server.start(replica=True, upstream=None, timeout_ms=START_MS)


async def test_a_shell_of_the_operator_in_the_data_directory_lives(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    shell = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, cwd=server.data.path)
    try:
        await server.data.kill_remains(timeout_ms=1000)
        assert shell.poll() is None
    finally:
        shell.communicate()


async def test_a_frozen_server_is_a_timeout_and_thaws(nodes: Nodes) -> None:
    server = await nodes.primary()
    with frozen(nodes.cluster.folder):
        for _ in range(3):  # the first finds the open connection dead, the next cannot connect
            began = time.monotonic()
            facts = await server.probe(timeout_ms=300)
            assert time.monotonic() - began < 3.0
            assert (facts.accepting, facts.refused) == (False, "timeout")
        assert lives(server)
    await accepting(server)


async def test_a_cancelled_probe_of_a_frozen_server_ends_at_once(nodes: Nodes) -> None:
    server = await nodes.primary()
    with frozen(nodes.cluster.folder):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.probe(timeout_ms=60_000), 0.2)
        assert time.monotonic() - began < 5.0
    await accepting(server)


async def test_stop_ends_a_frozen_server(nodes: Nodes) -> None:
    server = await nodes.primary()
    with frozen(nodes.cluster.folder):
        await server.stop(StopMode.IMMEDIATE, timeout_ms=200)
    assert not lives(server)
    assert processes_below(nodes.cluster.folder) == []


async def test_a_server_without_free_connections_is_accepting(nodes: Nodes) -> None:
    server = await nodes.primary(extra={**SMALL, "max_connections": "5"})
    site = nodes.site(1)
    with contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(connect(site))
        with pytest.raises(psycopg.OperationalError):
            connect(site)
        assert (await server.probe(timeout_ms=2000)).accepting
        other = await nodes.open(1)
        assert await other.adopt()
        assert (await other.probe(timeout_ms=2000)).role is ServerRole.PRIMARY


async def test_a_start_that_fails_says_what_the_server_said(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    with (
        socket.create_server(("127.0.0.1", nodes.site(1).options.port)),
        pytest.raises(PostgresError, match="could not bind IPv4"),
    ):
        await server.start(replica=False, upstream=None, timeout_ms=START_MS)
    assert not lives(server)
    assert processes_below(nodes.cluster.folder) == []
    await server.start(replica=False, upstream=None, timeout_ms=START_MS)


async def test_the_server_keeps_the_operators_settings(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True, extra={"work_mem": "5MB"})
    conf = server.data.path / "postgresql.conf"
    conf.write_text(
        conf.read_text() + "wal_keep_size = '3GB' # ours\nport = 1\nwal_level=logical\n"
    )
    auto = server.data.path / "postgresql.auto.conf"
    auto.write_text("port = '2'\nmax_wal_senders = '7'\n")
    await server.start(replica=False, upstream=None, timeout_ms=START_MS)
    await accepting(server)
    site = nodes.site(1)
    wanted = {
        "wal_keep_size": "3GB",
        "port": str(site.options.port),
        "max_wal_senders": "7",
        "work_mem": "5MB",
        "wal_level": "logical",
    }
    assert {name: ask(site, f"SHOW {name}") for name in wanted} == wanted
    await server.stop(StopMode.FAST, timeout_ms=START_MS)
    await server.start(replica=False, upstream=None, timeout_ms=START_MS)
    assert conf.read_text().count("postgresql.ramd.conf") == 1
