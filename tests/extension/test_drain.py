"""A switchover inside the server: open xids are ended, the rest of WAL reaches the disk."""

from __future__ import annotations

import time

import psycopg
import pytest

from pgraft.page.layout import PLACES
from tests.support.extension_lab import Flavour, Lab, LabServer
from tests.support.wait import wait_for

SOON_S = 20.0


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def drain(server: LabServer, after_ms: int) -> int:
    """The fence falls for good; returns when (BOOTTIME ns)."""
    at_ns = boot_ns()
    server.page.words[PLACES["DRAIN_AT"]] = at_ns + after_ms * 1_000_000
    server.fence()
    return at_ns


def settled(server: LabServer, since_ns: int) -> bool:
    """Nobody can commit any more, and all WAL is on disk."""
    seen = server.pulse()
    quiet = seen.at_ns > since_ns and seen.open_xids == 0
    return quiet and seen.flushed_lsn >= seen.insert_lsn


@pytest.fixture
def alone(lab: Lab, flavour: Flavour) -> LabServer:
    more = {
        "pgraft.fence_grace_ms": "600000",
        "max_prepared_transactions": "5",
        "wal_writer_delay": "10s",
    }
    return lab.server(flavour, **more).start(leased=True)


def test_open_transaction_is_ended_and_a_prepared_one_stays(alone: LabServer) -> None:
    server = alone
    try:
        server.ask("CREATE TABLE kept (n int)")
        with server.connect() as session:
            session.execute("BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION 'travels'")
        reader, idle = server.connect(), server.connect()
        reader.execute("BEGIN; SELECT count(*) FROM kept")
        idle.execute("BEGIN; INSERT INTO kept VALUES (2)")
        wait_for(lambda: server.pulse().open_xids == 1, SOON_S, "the prepared one is no session")
        since_ns = drain(server, 100)
        wait_for(lambda: settled(server, since_ns), SOON_S, "drained")
        assert server.word("ENDED_SESSIONS") == 1
        with pytest.raises(psycopg.OperationalError):
            idle.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        assert reader.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == [("travels",)]
        reader.close()
    finally:
        server.stop()


def test_wal_that_nobody_waits_for_is_flushed_at_once(alone: LabServer) -> None:
    """An acknowledged asynchronous commit must not stay in memory."""
    server = alone
    try:
        server.ask("CREATE TABLE soon (n int)")
        with server.connect() as session:
            session.execute("SET synchronous_commit = off")
            session.execute("INSERT INTO soon SELECT generate_series(1, 100)")
            wait_for(lambda: not server.pulse().fenced, SOON_S, "open")
            since_ns = drain(server, 0)
            wait_for(lambda: settled(server, since_ns), SOON_S, "on disk")
    finally:
        server.stop()
