"""What the worker tells the daemon, and what it does when a lease has ended."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from pgraft.page.layout import PLACES
from pgraft.page.reader import flush_stuck_ns
from pgraft.page.reader import pulse as read_pulse
from tests.support.extension_lab import Flavour, Lab, LabServer
from tests.support.wait import wait_for

SOON_S = 30.0


def lives(session: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def test_pulses_go_on_and_are_about_this_server(server: LabServer) -> None:
    first = server.pulse()
    wait_for(lambda: server.pulse().ticks > first.ticks + 5, SOON_S, "it goes on")
    assert not first.in_recovery
    assert first.timeline == 1
    assert first.enforce
    assert 0 < first.flushed_lsn <= server.pulse().insert_lsn


def test_sessions_and_open_transactions_are_counted(server: LabServer) -> None:
    server.ask("CREATE TABLE IF NOT EXISTS counted (n int)")
    with server.connect() as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO counted VALUES (1)")
        wait_for(lambda: server.pulse().open_xids == 1, SOON_S, "counted")
        assert server.pulse().sessions >= 1
    wait_for(lambda: (p := server.pulse()).open_xids == p.sessions == 0, SOON_S, "and gone")


def test_fence_is_told_with_its_position(server: LabServer) -> None:
    server.fence()
    fenced = wait_for(lambda: server.pulse() if server.pulse().fenced else None, SOON_S, "fenced")
    assert fenced is not None
    assert fenced.fence_lsn >= fenced.flushed_lsn > 0
    server.lease()
    wait_for(lambda: not server.pulse().fenced, SOON_S, "open again")


def test_sessions_are_ended_after_the_grace_time_and_new_ones_may_read(
    lab: Lab, flavour: Flavour
) -> None:
    server = lab.server(flavour, **{"pgraft.fence_grace_ms": "300"}).start(leased=True)
    try:
        server.ask("CREATE TABLE seen (n int)")
        wait_for(lambda: not server.pulse().fenced, SOON_S, "the worker has seen the lease")
        with server.connect() as session:
            server.fence()
            wait_for(lambda: not lives(session), SOON_S, "the session is ended")
        assert server.word("ENDED_SESSIONS") >= 1
        with server.connect() as late:
            ticks = server.pulse().ticks
            wait_for(lambda: server.pulse().ticks > ticks + 150, SOON_S, "a good while")
            assert late.execute("SELECT count(*) FROM seen").fetchone() == (0,)
    finally:
        server.stop()


def test_before_the_first_lease_nobody_is_ended(lab: Lab, flavour: Flavour) -> None:
    server = lab.server(flavour, **{"pgraft.fence_grace_ms": "0"}).start()
    try:
        with server.connect() as session:
            ticks = server.pulse().ticks
            wait_for(lambda: server.pulse().ticks > ticks + 100, SOON_S, "a good while")
            assert lives(session)
        assert server.word("ENDED_SESSIONS") == 0
    finally:
        server.stop()


def test_worker_killed_half_way_is_followed_by_one_that_mends(server: LabServer) -> None:
    """An odd sequence number would turn the meaning of odd and even around."""
    worker = server.pulse().worker_pid
    os.kill(worker, signal.SIGSTOP)
    server.page.words[PLACES["PULSE_SEQ"]] |= 1
    assert read_pulse(server.page) is None, "bounded, not hanging"
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGCONT)
    found = wait_for(
        lambda: (p := read_pulse(server.page)) and p.worker_pid != worker and p, SOON_S, "mended"
    )
    assert found
    assert server.word("PULSE_SEQ") % 2 == 0 or read_pulse(server.page) is not None


def test_flush_probe_goes_on_while_a_commit_waits_for_replicas(server: LabServer) -> None:
    """A hung disk is told from a synchronous wait: here WAL reaches the disk."""
    begun = server.word("FLUSH_BEGUN")
    server.ask("CREATE TABLE IF NOT EXISTS flushed (n int)")

    def writes() -> bool:
        with server.connect() as session:
            session.execute("SET synchronous_commit = off")
            session.execute("INSERT INTO flushed VALUES (1)")
        return server.word("FLUSH_BEGUN") > begun

    wait_for(writes, SOON_S, "it flushes by itself")
    now = server.word("FLUSH_ENDED")
    assert now
    assert flush_stuck_ns(server.page, server.word("FLUSH_BEGUN") - 1) == 0


@pytest.mark.slow
def test_disk_of_an_idle_server_is_looked_at_too(lab: Lab, flavour: Flavour) -> None:
    """It writes a record of its own, which counts as no activity, and which recovery reads."""
    server = lab.server(flavour).start(leased=True)
    try:
        server.ask("CREATE TABLE idle (n int); INSERT INTO idle VALUES (1)")
        wait_for(lambda: server.word("FLUSH_ENDED"), SOON_S, "a first flush")
        ended, position = server.word("FLUSH_ENDED"), server.pulse().insert_lsn
        wait_for(lambda: server.word("FLUSH_ENDED") > ended, 3 * SOON_S, "it flushes by itself")
        wait_for(lambda: server.pulse().flushed_lsn > position, SOON_S, "something of its own")
        server.stop(signal.SIGQUIT)
        server.start()
        assert server.ask("SELECT count(*) FROM idle") == 1
    finally:
        server.stop()


def test_flush_probe_that_hangs_is_seen_and_the_worker_goes_on(server: LabServer) -> None:
    probe = process(server, "pgraft flush probe")
    os.kill(probe, signal.SIGSTOP)
    try:
        server.page.words[PLACES["FLUSH_BEGUN"]] = server.word("FLUSH_ENDED") + 1
        ticks = server.pulse().ticks
        wait_for(lambda: server.pulse().ticks > ticks + 5, SOON_S, "the worker goes on")
        assert flush_stuck_ns(server.page, server.word("FLUSH_BEGUN") + 5) == 5
    finally:
        os.kill(probe, signal.SIGCONT)


def process(server: LabServer, title: str) -> int:
    """The process of the server with this title; a worker without a database is in no view."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            command = entry.with_name("cmdline").read_bytes()
            if parent == server.pid and title.encode() in command:
                return int(entry.parent.name)
    raise AssertionError(f"no process {title}")


@pytest.fixture
def pair(lab: Lab, flavour: Flavour) -> tuple[LabServer, LabServer]:
    primary = lab.server(flavour).start(leased=True)
    replica = lab.replica(primary)
    return primary, replica


def test_role_and_fork_are_told_after_a_promotion(pair: tuple[LabServer, LabServer]) -> None:
    """A replica is never fenced; a promoted one is, until it is given a lease."""
    primary, replica = pair
    try:
        primary.ask("CREATE TABLE moved (n int)")
        replica.start()
        seen = replica.pulse()
        assert seen.in_recovery
        assert not seen.fenced
        end = primary.pulse().flushed_lsn
        wait_for(lambda: replica.pulse().replayed_lsn >= end, SOON_S, "it replays")
        wait_for(lambda: replica.pulse().receiving, SOON_S, "it receives")
        replica.ask("SELECT pg_promote(false)")
        wait_for(lambda: not replica.pulse().in_recovery, SOON_S, "promoted")
        wait_for(lambda: replica.pulse().switch_lsn, SOON_S, "its fork is known")
        after = replica.pulse()
        assert (after.timeline, after.parent_timeline) == (2, 1)
        assert after.switch_lsn >= end
        with replica.connect() as session, pytest.raises(psycopg.Error) as caught:
            session.execute("CREATE TABLE never (n int)")
        assert caught.value.sqlstate == "25006"
        replica.lease()
        replica.ask("CREATE TABLE now (n int)")
    finally:
        replica.stop()
        primary.stop()
