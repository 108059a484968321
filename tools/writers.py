"""A client that records every acknowledged commit: one writer per host, seen from outside.

Each writer commits one row every 5 ms on its own host while that host is a primary, and asks again
every 10 ms while it is not. Nothing of the cluster manager is used. What is measured: the longest
time between two acknowledged commits on any host, and which of the rows the final primary has.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import threading
import time
from dataclasses import dataclass, field

import psycopg

INTERVAL_S = 0.005
RETRY_S = 0.010
CONNECT_TIMEOUT_S = 0.5
STATEMENT_TIMEOUT_S = 2.0
TABLE = "ramd_writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """One acknowledged commit: when (monotonic s), by which node, which row."""

    at_s: float
    node: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The longest gap between two acknowledged commits, and the nodes on its two sides."""

    seconds: float
    before: int
    after: int
    ended_at_s: float


@dataclass(slots=True)
class Recorded:
    """What the writers saw, shared with the caller's thread; lists are only appended to."""

    acks: list[Ack] = field(default_factory=list)
    rows: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one writer works: seconds between commits, between tries, and until it gives up."""

    interval_s: float = INTERVAL_S
    retry_s: float = RETRY_S
    statement_timeout_s: float | None = STATEMENT_TIMEOUT_S


PROMPT = Pace()
PATIENT = Pace(interval_s=0.02, retry_s=0.05, statement_timeout_s=None)
"""Waits for its answer however long its host is frozen, so it sees what a thawed one says."""


class Writers:
    """Background writers on every host, one of each pace. Context manager; `create_table` first."""

    def __init__(self, dsns: dict[int, str], paces: tuple[Pace, ...] = (PROMPT,)) -> None:
        self.dsns = dsns
        self._paces = paces
        self.recorded = Recorded()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="writers", daemon=True)

    def __enter__(self) -> Writers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def acked(self) -> int:
        return len(self.recorded.acks)

    def last_ack_s(self) -> float:
        acks = self.recorded.acks
        return acks[-1].at_s if acks else 0.0

    def outage(self, since_s: float, until_s: float | None = None) -> Outage:
        """The longest gap that ends after `since_s`; an unfinished one counts up to now."""
        end = time.monotonic() if until_s is None else until_s
        acks = sorted(self.recorded.acks, key=lambda ack: ack.at_s)
        worst = Outage(seconds=0, before=0, after=0, ended_at_s=since_s)
        for one, two in itertools.pairwise(acks):
            if since_s < two.at_s <= end and two.at_s - one.at_s > worst.seconds:
                worst = Outage(
                    seconds=two.at_s - one.at_s,
                    before=one.node,
                    after=two.node,
                    ended_at_s=two.at_s,
                )
        if acks and end - acks[-1].at_s > worst.seconds:
            last = acks[-1]
            worst = Outage(seconds=end - last.at_s, before=last.node, after=0, ended_at_s=end)
        return worst

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        tasks = [
            asyncio.create_task(self._write(node, dsn, pace))
            for node, dsn in self.dsns.items()
            for pace in self._paces
        ]
        await asyncio.to_thread(self._stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, node: int, dsn: str, pace: Pace) -> None:
        connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        try:
            while True:
                try:
                    if connection is None:
                        connection = await connect(dsn)
                    row = next(self.recorded.rows)
                    insert = f"INSERT INTO {TABLE}(row, node) VALUES ({row}, {node})"
                    await run(connection, insert, pace.statement_timeout_s)
                    self.recorded.acks.append(Ack(at_s=time.monotonic(), node=node, row=row))
                    await asyncio.sleep(pace.interval_s)
                except psycopg.errors.ReadOnlySqlTransaction:
                    await asyncio.sleep(pace.retry_s)
                except (psycopg.Error, OSError, TimeoutError):
                    hang_up(connection)
                    connection = None
                    await asyncio.sleep(pace.retry_s)
        finally:
            hang_up(connection)


async def connect(dsn: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """An autocommit connection within the connect timeout. Raises TimeoutError, psycopg.Error."""
    opening = psycopg.AsyncConnection.connect(dsn, autocommit=True)
    return await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)


async def run(
    connection: psycopg.AsyncConnection[tuple[object, ...]],
    statement: str,
    timeout_s: float | None = STATEMENT_TIMEOUT_S,
) -> psycopg.AsyncCursor[tuple[object, ...]]:
    """Execute within `timeout_s`; None: however long it takes. A cancelled psycopg call would wait
    for a server that may be frozen, so on timeout the socket is shut and the call fails by
    itself."""
    task = asyncio.ensure_future(connection.execute(statement.encode()))
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if not done:
            shut(connection)
        return await task
    except asyncio.CancelledError:
        shut(connection)
        await asyncio.gather(task, return_exceptions=True)
        raise


def shut(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    with contextlib.suppress(OSError, psycopg.Error):
        twin = socket.socket(fileno=os.dup(connection.pgconn.socket))
        twin.shutdown(socket.SHUT_RDWR)
        twin.close()


def hang_up(connection: psycopg.AsyncConnection[tuple[object, ...]] | None) -> None:
    if connection is not None:
        with contextlib.suppress(psycopg.Error):
            connection.pgconn.finish()


def create_table(dsns: dict[int, str], deadline_s: float = 30) -> int:
    """An empty table on whichever host is primary; returns its node. Raises TimeoutError."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        for node, dsn in dsns.items():
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(f"{dsn} connect_timeout=2", autocommit=True) as connection,
            ):
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {TABLE}"
                    "(row bigint, node int, at timestamptz DEFAULT clock_timestamp())"
                )
                connection.execute(f"TRUNCATE {TABLE}")
                return node
        time.sleep(0.1)
    raise TimeoutError(f"no primary took a write within {deadline_s:g} s")


def present(dsns: dict[int, str], deadline_s: float = 30) -> tuple[int, set[int]]:
    """(node, rows) of the primary with the highest timeline. Raises TimeoutError."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        found: list[tuple[int, int, set[int]]] = []
        for node, dsn in dsns.items():
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(f"{dsn} connect_timeout=2", autocommit=True) as connection,
            ):
                if (answer := _rows_of_primary(connection)) is not None:
                    found.append((answer[0], node, answer[1]))
        if found:
            _, node, rows = max(found, key=lambda item: item[0])
            return node, rows
        time.sleep(0.1)
    raise TimeoutError(f"no primary answered within {deadline_s:g} s")


def _rows_of_primary(connection: psycopg.Connection) -> tuple[int, set[int]] | None:
    recovery = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if recovery is None or recovery[0]:
        return None
    name = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchone()
    assert name is not None
    rows = connection.execute(f"SELECT row FROM {TABLE}").fetchall()
    return int(name[0][:8], 16), {row for (row,) in rows}
