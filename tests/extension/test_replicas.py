"""Beside real replicas and subscribers: a confirmed commit is always acknowledged, and what a
background worker writes is refused like a client's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.extension.held import reload
from tests.support.extension_lab import Flavour, Lab, LabServer
from tests.support.wait import wait_for

SOON_S = 30.0
WRITERS = 4
ROUNDS = 40
COPIED = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
LEVELS = ("remote_write", "on", "remote_apply", "local", "off")


@pytest.fixture
def confirmed(lab: Lab, flavour: Flavour) -> Iterator[LabServer]:
    """A leased primary whose commits are confirmed by a replica."""
    primary = lab.server(flavour, synchronous_standby_names="").start(leased=True)
    replica = lab.replica(primary)
    try:
        replica.settings["wal_receiver_status_interval"] = "1"
        replica.start()
        primary.ask("CREATE TABLE written (n int)")
        primary.ask("CREATE UNLOGGED TABLE passing (n int)")
        reload(primary, "synchronous_standby_names", "*")
        yield primary
    finally:
        reload(primary, "synchronous_standby_names", "")
        replica.stop()
        primary.stop()


def write_in_every_way(server: LabServer, writer: int) -> int:
    """Rows acknowledged; raises if a session is ended."""
    rows = 0
    with server.connect() as session:
        session.execute("CREATE TEMP TABLE mine (n int)")
        for number in range(ROUNDS):
            level = LEVELS[number % len(LEVELS)]
            session.execute(f"SET synchronous_commit = {level}".encode())
            session.execute("INSERT INTO written VALUES (1)")
            # Of a length of its own, so that records begin and end anywhere in a page.
            name = f"w{writer}n{number}{'x' * (writer * ROUNDS + number)}"
            session.execute("BEGIN; INSERT INTO written VALUES (2)")
            session.execute(f"PREPARE TRANSACTION '{name}'".encode())
            end = "COMMIT" if number % 3 else "ROLLBACK"
            session.execute(f"{end} PREPARED '{name}'".encode())
            for sql in (
                "INSERT INTO passing VALUES (1)",
                "INSERT INTO mine VALUES (1)",
                "NOTIFY written",
            ):
                session.execute(sql.encode())
            rows += 1 + (end == "COMMIT")
    return rows


def test_what_a_replica_confirmed_is_acknowledged(confirmed: LabServer) -> None:
    """Every level, several at once, with prepared transactions: not one session is ended."""
    with ThreadPoolExecutor(WRITERS) as pool:
        rows = sum(pool.map(lambda n: write_in_every_way(confirmed, n), range(WRITERS)))
    assert confirmed.ask("SELECT count(*) FROM written") == rows
    assert confirmed.word("DROPPED_SYNC") == 0
    assert confirmed.word("DROPPED_ACKS") == 0


def test_what_a_subscription_applies_is_refused(lab: Lab, flavour: Flavour) -> None:
    """Its worker has no client, and no statement of its own: it is stopped at the commit, and goes
    on where it was when the lease is back."""
    source = lab.server(flavour).start(leased=True)
    target = lab.server(
        flavour, **{"wal_retrieve_retry_interval": "100ms", "pgraft.fence_grace_ms": "600000"}
    ).start(leased=True)
    count = "SELECT count(*) FROM told"
    try:
        for server in (source, target):
            server.ask("CREATE TABLE told (n int PRIMARY KEY)")
        source.ask("CREATE PUBLICATION told FOR TABLE told")
        target.ask(
            f"CREATE SUBSCRIPTION told CONNECTION 'host={source.site.socket_dir}"
            f" port={source.site.options.port} user=postgres dbname=postgres' PUBLICATION told"
        )
        source.ask("INSERT INTO told VALUES (1)")
        wait_for(lambda: target.ask(count) == 1, SOON_S, "applied")
        # PostgreSQL cannot repeat a first copy that fails while it is being finished.
        wait_for(lambda: target.ask(COPIED), SOON_S, "the first copy is done")
        target.fence()
        before = target.word("REFUSED_COMMITS") + target.word("REFUSED_STATEMENTS")
        source.ask("INSERT INTO told VALUES (2)")
        wait_for(
            lambda: target.word("REFUSED_COMMITS") + target.word("REFUSED_STATEMENTS") > before,
            SOON_S,
            "refused",
        )
        assert target.ask(count) == 1
        target.lease()
        wait_for(lambda: target.ask(count) == 2, SOON_S, "applied when it may")
        target.ask("ALTER SUBSCRIPTION told DISABLE")
    finally:
        target.stop()
        source.stop()


def test_subscribers_of_a_fenced_primary_are_turned_away(lab: Lab, flavour: Flavour) -> None:
    """They would be told of what nobody was told, and may not survive. At once: not after the
    grace time, which is for sessions. A physical replica stays."""
    source = lab.server(flavour, **{"pgraft.fence_grace_ms": "600000"}).start(leased=True)
    target = lab.server(flavour).start(leased=True)
    replica = lab.replica(source)
    senders = (
        "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s"
        " ON s.active_pid = r.pid WHERE r.state = 'streaming' AND s.slot_type = 'logical'"
    )
    try:
        replica.start()
        for server in (source, target):
            server.ask("CREATE TABLE told (n int PRIMARY KEY)")
        source.ask("CREATE PUBLICATION told FOR TABLE told")
        target.ask(
            f"CREATE SUBSCRIPTION told CONNECTION 'host={source.site.socket_dir}"
            f" port={source.site.options.port} user=postgres dbname=postgres' PUBLICATION told"
        )
        wait_for(lambda: source.ask(senders) == 1, SOON_S, "it streams to the subscriber")
        wait_for(lambda: replica.pulse().receiving, SOON_S, "and to the replica")
        ended = source.word("ENDED_SESSIONS")
        with source.connect() as session:
            source.fence()
            wait_for(lambda: source.word("ENDED_SESSIONS") > ended, SOON_S, "it is ended")
            assert session.execute("SELECT 1").fetchone() == (1,)
        assert replica.pulse().receiving
    finally:
        for server in (target, replica, source):
            server.stop()
