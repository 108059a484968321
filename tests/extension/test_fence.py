"""What a server without a lease refuses, and what it flushed and must not acknowledge.

The window after the flush is entered on purpose: a synchronous replica that does not exist holds a
commit; meanwhile the lease is taken away, then the commit is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from tests.extension.held import UNHELD, Held, hold_commits
from tests.support.extension_lab import LabServer
from tests.support.raw_client import Message, RawClient
from tests.support.wait import wait_for

READ_ONLY = "25006"
AFTER_FLUSH = "dropped: the lease ended before it could be given"
"""In the log: it was the look after the flush that saw it, not the last one at the socket."""
WAIT_CANCELLED = "dropped: the wait for synchronous replicas was cancelled"
KEPT = "SELECT count(*) FROM kept"
PREPARED = "SELECT count(*) FROM pg_prepared_xacts"
AT_SOCKET = "dropped: the lease ended just before it was sent"


@pytest.fixture
def held(server: LabServer) -> Iterator[Held]:
    """A leased server whose next commits wait for a replica that does not exist."""
    with server.connect() as session:
        session.execute("DROP TABLE IF EXISTS kept CASCADE")
        session.execute("CREATE TABLE kept (n int)")
        session.execute("CREATE SEQUENCE IF NOT EXISTS numbers")
        session.execute(
            "CREATE OR REPLACE PROCEDURE three_times() LANGUAGE plpgsql AS $$ BEGIN"
            " FOR n IN 1..3 LOOP INSERT INTO kept VALUES (n); COMMIT; END LOOP; END $$"
        )
    with hold_commits(server) as made:
        yield made


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How a client writes, and what must be there although nobody was told so."""

    name: str
    send: Callable[[RawClient], None]
    seen: str = "SELECT count(*) FROM kept"
    kept: int = 1
    shown: str = ""
    """Kinds of messages that come before the commit begins."""


def simple(sql: str) -> Callable[[RawClient], None]:
    return lambda client: client.query(sql)


def pipelined(*statements: str) -> Callable[[RawClient], None]:
    return lambda client: client.pipeline(*statements)


def copied(client: RawClient) -> None:
    client.query("COPY kept FROM STDIN")
    client.send("d", b"1\n2\n")
    client.send("c")


CASES = (
    Case(name="autocommit", send=simple("INSERT INTO kept VALUES (1)")),
    Case(
        name="several statements in one",
        send=simple("INSERT INTO kept VALUES (1); INSERT INTO kept VALUES (2)"),
        kept=2,
    ),
    Case(name="a block", send=simple("BEGIN; INSERT INTO kept VALUES (1); COMMIT")),
    Case(
        name="a block with more behind it",
        send=simple("BEGIN; INSERT INTO kept VALUES (1); COMMIT; SELECT repeat('x', 100000)"),
    ),
    Case(name="extended", send=pipelined("INSERT INTO kept VALUES (1)")),
    Case(
        name="commit in a pipeline",
        send=pipelined("BEGIN", "INSERT INTO kept VALUES (1)", "COMMIT"),
    ),
    Case(
        name="returning 100 kB",
        send=simple("INSERT INTO kept VALUES (1) RETURNING repeat('x', 100000)"),
        shown="TD",
    ),
    Case(name="copy", send=copied, kept=2, shown="G"),
    Case(name="procedure that commits", send=simple("CALL three_times()")),
    Case(
        name="nextval",
        send=simple("SELECT nextval('numbers')"),
        seen="SELECT count(*) FROM numbers WHERE is_called",
    ),
    Case(
        name="prepare",
        send=simple("BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION 'held'"),
        seen="SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'held'",
    ),
    Case(
        name="with a notification",
        send=simple("BEGIN; INSERT INTO kept VALUES (1); NOTIFY kept; COMMIT"),
    ),
    Case(name="table", send=simple("CREATE TABLE made AS SELECT 1; DROP TABLE made"), kept=0),
)


def not_acknowledged(messages: list[Message], shown: str) -> None:
    """Nothing came but `shown`: no ReadyForQuery, and no command tag of what was last."""
    kinds = "".join(message.kind for message in messages)
    assert kinds in (shown, shown[:1]), [(message.kind, message.body[:80]) for message in messages]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_flushed_and_not_acknowledged(held: Held, case: Case) -> None:
    """The lease ends between flush and acknowledgement: the connection closes without a word."""
    before = held.server.word("DROPPED_ACKS")
    told = held.server.log().count(AFTER_FLUSH)
    with RawClient(held.server.site) as client:
        case.send(client)
        held.until_waiting()
        held.server.fence()
        held.let_go()
        not_acknowledged(client.until_ready(), case.shown)
    assert held.server.word("DROPPED_ACKS") == before + 1
    assert held.server.log().count(AFTER_FLUSH) == told + 1
    assert held.server.ask(case.seen) == case.kept
    held.clear_prepared()


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_end_of_a_prepared_transaction_not_acknowledged(held: Held, how: str) -> None:
    held.prepare("ready")
    with RawClient(held.server.site) as client:
        client.query(f"{how} PREPARED 'ready'")
        held.until_waiting()
        held.server.fence()
        held.let_go()
        not_acknowledged(client.until_ready(), "")
    assert held.server.ask("SELECT count(*) FROM pg_prepared_xacts") == 0
    assert held.server.ask("SELECT count(*) FROM kept") == (how == "COMMIT")


def test_a_notification_alone_is_not_acknowledged(held: Held) -> None:
    """It has no xid yet when the lease is looked at before the commit: it takes one behind the
    lock that another notifier holds until its own commit is let go."""
    before = held.server.word("DROPPED_ACKS")
    with RawClient(held.server.site) as first, RawClient(held.server.site) as second:
        first.query("BEGIN; INSERT INTO kept VALUES (1); NOTIFY kept; COMMIT")
        held.until_waiting()
        second.query("NOTIFY kept")
        held.until_waiting("object")
        held.server.fence()
        held.let_go()
        not_acknowledged(first.until_ready(), "")
        not_acknowledged(second.until_ready(), "")
    assert held.server.word("DROPPED_ACKS") == before + 2


def test_what_was_committed_in_time_is_not_acknowledged_late(server: LabServer) -> None:
    """The session stands still between its commit and the answer, here behind a lock. Nothing is
    looked at in between, so the last look is the one at the socket."""
    with server.connect() as holder:
        holder.execute("DROP TABLE IF EXISTS late; CREATE TABLE late (n int)")
        holder.execute(
            "CREATE OR REPLACE PROCEDURE late() LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO late VALUES (1); COMMIT; PERFORM pg_advisory_lock(7); END $$"
        )
        holder.execute("SELECT pg_advisory_lock(7)")
        told = server.log().count(AT_SOCKET)
        with RawClient(server.site) as client:
            client.query("CALL late()")
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
            wait_for(lambda: server.ask(waits), 30, "it has committed and stands still")
            server.fence()
            holder.execute("SELECT pg_advisory_unlock(7)")
            not_acknowledged(client.until_ready(), "")
    assert server.log().count(AT_SOCKET) == told + 1
    assert server.ask("SELECT count(*) FROM late") == 1


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize(
    ("sql", "seen", "there"),
    [
        ("INSERT INTO kept VALUES (1)", KEPT, 1),
        ("BEGIN; INSERT INTO kept VALUES (1); PREPARE TRANSACTION 'held'", PREPARED, 1),
        ("COMMIT PREPARED 'ready'", KEPT, 1),
        ("ROLLBACK PREPARED 'ready'", PREPARED, 0),
    ],
)
def test_a_cancelled_wait_is_not_acknowledged(
    held: Held, sql: str, seen: str, there: int, how: str
) -> None:
    """Also while the lease is valid: it is done here, maybe nowhere else, and nobody is told that
    it is done. Why the connection closed stands in the log."""
    if "'ready'" in sql:
        held.prepare("ready")
    before, told = held.server.word("DROPPED_SYNC"), held.server.log().count(WAIT_CANCELLED)
    with RawClient(held.server.site) as client:
        client.query(sql)
        held.end_wait(held.until_waiting(), how)
        messages = client.until_ready()
    # PostgreSQL's warning may come, and what was answered before it; no acknowledgement may.
    assert {message.kind for message in messages} <= {"C", "N"}
    assert [m.text for m in messages if m.kind == "C"] == (
        ["BEGIN", "INSERT 0 1"] if sql.startswith("BEGIN") else []
    )
    assert held.server.word("DROPPED_SYNC") == before + 1
    assert held.server.log().count(WAIT_CANCELLED) == told + 1
    held.let_go()
    assert held.server.ask(seen) == there
    held.clear_prepared()


@pytest.mark.parametrize("level", ["local", "off"])
def test_who_need_not_wait_for_replicas_is_acknowledged_and_counted(held: Held, level: str) -> None:
    with held.server.connect() as session:
        session.execute(UNHELD)
        session.execute(f"SET synchronous_commit = {level}")
        session.execute(f"SET pgraft.min_synchronous_commit = {level}")
        weak = held.server.word("WEAK_COMMITS")
        session.execute("INSERT INTO kept VALUES (1)")
    assert held.server.ask("SELECT count(*) FROM kept") == 1
    assert held.server.word("WEAK_COMMITS") == weak + 1


def test_what_postgresql_does_not_wait_for_is_acknowledged(held: Held) -> None:
    """Nothing but a commit record: PostgreSQL does not ask replicas for it, nor do we."""
    with held.server.connect() as session:
        session.execute(UNHELD)
        session.execute("CREATE UNLOGGED TABLE IF NOT EXISTS lost (n int)")
        session.execute("CREATE TEMP TABLE mine (n int)")
        session.execute("SET synchronous_commit = on")
        session.execute("INSERT INTO lost VALUES (1)")
        session.execute("INSERT INTO mine VALUES (1)")
        session.execute("NOTIFY kept")
        session.execute("SELECT 1")


def test_a_wait_ended_by_the_operator_is_acknowledged(held: Held) -> None:
    with RawClient(held.server.site) as client:
        client.query("INSERT INTO kept VALUES (1)")
        held.until_waiting()
        held.let_go()
        assert [message.kind for message in client.until_ready()] == ["C", "Z"]


def test_enforce_off_acknowledges(held: Held) -> None:
    held.server.settings["pgraft.enforce"] = "off"
    held.server.fence()
    held.reload("pgraft.enforce", "off")
    try:
        with held.server.connect() as session:
            session.execute(UNHELD)
            session.execute("INSERT INTO kept VALUES (1)")
        wait_for(lambda: not held.server.pulse().enforce, 30, "the page says that it is off")
        assert not held.server.pulse().fenced
        assert "pgraft.enforce is off" in held.server.log()
    finally:
        held.reload("pgraft.enforce", "on")
    with held.server.connect() as session, pytest.raises(psycopg.Error) as caught:
        session.execute("INSERT INTO kept VALUES (1)")
    assert caught.value.sqlstate == READ_ONLY


def test_sql_by_a_replication_connection_is_refused(server: LabServer) -> None:
    server.ask("CREATE TABLE IF NOT EXISTS walsent (n int)")
    server.fence()
    with RawClient(server.site, replication="database") as client:
        client.query("INSERT INTO walsent VALUES (1)")
        messages = client.until_ready()
    assert messages[0].kind == "E"
    assert READ_ONLY.encode() in messages[0].body
    assert server.ask("SELECT count(*) FROM walsent") == 0


def test_a_transaction_of_before_cannot_commit(server: LabServer) -> None:
    server.ask("CREATE TABLE IF NOT EXISTS begun (n int)")
    refused = server.word("REFUSED_COMMITS")
    with server.connect() as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO begun VALUES (1)")
        server.fence()
        with pytest.raises(psycopg.Error) as caught:
            session.execute("COMMIT")
    assert caught.value.sqlstate == READ_ONLY
    assert "Reconnect" in (caught.value.diag.message_hint or "")
    assert server.ask("SELECT count(*) FROM begun") == 0
    assert server.word("REFUSED_COMMITS") == refused + 1


def test_a_lease_of_another_start_is_none(server: LabServer) -> None:
    start = server.word("SERVER_START")
    server.daemon.lease(2**62, start + 1)
    with server.connect() as session, pytest.raises(psycopg.Error) as caught:
        session.execute("CREATE TABLE never (n int)")
    assert caught.value.sqlstate == READ_ONLY


def test_a_lease_ends_by_itself(server: LabServer) -> None:
    """Nobody has to do anything: the clock is enough."""
    server.lease(length_ns=0)
    with server.connect() as session, pytest.raises(psycopg.Error) as caught:
        session.execute("CREATE TABLE never (n int)")
    assert caught.value.sqlstate == READ_ONLY


def test_temporary_tables_of_an_ended_session_leave_no_error(server: LabServer) -> None:
    """They are dropped by a transaction, which is nobody's to refuse."""
    lines = len(server.log().splitlines())
    with server.connect() as session:
        session.execute("CREATE TEMP TABLE mine (n int)")
        pid = session.info.backend_pid
        server.fence()
    wait_for(
        lambda: not server.ask(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
        30,
        "the session has ended",
    )
    told = server.log().splitlines()[lines:]
    assert not [line for line in told if "FATAL" in line or "ERROR" in line]
