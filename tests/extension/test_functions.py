"""The SQL functions: what they show, on primary and replica, and to whom."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psycopg
import pytest

from pgraft.page.layout import PLACES
from tests.extension.pictures import PICTURE
from tests.support.extension_lab import Flavour, Lab, LabServer, install
from tests.support.wait import wait_for

FUNCTIONS = (
    "pgraft_status",
    "pgraft_is_leader",
    "pgraft_get_leader",
    "pgraft_get_term",
    "pgraft_get_nodes",
    "pgraft_get_cluster_status",
    "pgraft_is_healthy",
    "pgraft_get_metrics",
    "pgraft_get_worker_state",
    "pgraft_get_version",
)


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.fixture(scope="module")
def told(shared: LabServer) -> LabServer:
    """A server whose daemon has said everything once."""
    install(shared)
    return shared


@pytest.fixture
def server(told: LabServer) -> LabServer:
    told.lease()
    told.daemon.publish(PICTURE, boot_ns())
    told.daemon.heartbeat(boot_ns(), os.getpid())
    return told


def test_status_says_how_the_node_stands(server: LabServer) -> None:
    with server.connect() as session:
        row = session.execute(
            "SELECT node_id, node_name, cluster_name, role, raft_role, term, leader_id, epoch,"
            " primary_id, timeline, fenced, enforce, quorum, lease_left_ms > 0,"
            " daemon_heartbeat_age_ms >= 0 FROM pgraft_status()"
        ).fetchone()
    expected = (1, "node1", "demo", "primary", "follower", 7, 2, 5, 1, 4, False, True, True)
    assert row == (*expected, True, True)


def test_members_are_listed(server: LabServer) -> None:
    with server.connect() as session:
        rows = session.execute("SELECT * FROM pgraft_get_nodes() ORDER BY node_id").fetchall()
    assert [row[:4] for row in rows] == [
        (1, "db1.example", 7400, False),
        (2, "db2.example", 7400, True),
        (3, "db3.example", 7400, False),
    ]
    assert [row[4:] for row in rows] == [
        ("node1", 5432, True, True),
        ("node2", 5432, False, True),
        ("node3", 5432, False, False),
    ]


def test_short_questions(server: LabServer) -> None:
    assert server.ask("SELECT pgraft_is_leader()") is False
    assert server.ask("SELECT pgraft_get_leader()") == 2
    assert server.ask("SELECT pgraft_get_term()") == 7
    assert server.ask("SELECT pgraft_is_healthy()") is True
    assert server.ask("SELECT pgraft_get_version()") == "1.0"
    assert server.ask("SELECT pgraft_get_worker_state()") == "running"
    with server.connect() as session:
        row = session.execute("SELECT * FROM pgraft_get_cluster_status()").fetchone()
    assert row == (1, 7, 2, "follower", 3, 100, 20, 3)


def test_healthy_needs_daemon_majority_and_lease(server: LabServer) -> None:
    server.fence()
    assert server.ask("SELECT pgraft_is_healthy()") is False
    server.lease()
    server.daemon.heartbeat(boot_ns() - 60 * 10**9, os.getpid())
    assert server.ask("SELECT pgraft_is_healthy()") is False


def test_daemon_stopped_half_way_hides_only_what_it_alone_knows(server: LabServer) -> None:
    """The daemon's block cannot be read: nulls, at once, and the lease still counts."""
    server.page.words[PLACES["STATE_SEQ"]] |= 1
    with server.connect() as session:
        row = session.execute(
            "SELECT node_id, term, lease_left_ms > 0, fenced FROM pgraft_status()"
        ).fetchone()
        assert row == (None, None, True, False)
        session.execute("CREATE TABLE IF NOT EXISTS still (n int)")


def test_metrics_count_what_was_refused(server: LabServer) -> None:
    refused = "SELECT value FROM pgraft_get_metrics() WHERE name = 'refused_statements'"
    before = server.ask(refused)
    server.fence()
    with pytest.raises(psycopg.Error):
        server.ask("CREATE TABLE never (n int)")
    assert server.ask(refused) == before + 1


def test_privileges(server: LabServer) -> None:
    server.ask("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    with server.connect(user="plain") as session:
        assert session.execute("SELECT node_id FROM pgraft_status()").fetchone() == (1,)
        for name in ("pgraft_get_nodes", "pgraft_get_metrics"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT * FROM {name}()".encode())
        with pytest.raises(psycopg.Error):
            session.execute("SET pgraft.enforce = off")
        with pytest.raises(psycopg.Error):
            session.execute("ALTER SYSTEM SET pgraft.enforce = off")


def test_nothing_that_would_change_the_group_exists(server: LabServer) -> None:
    with server.connect() as session:
        rows = session.execute(
            "SELECT proname FROM pg_proc WHERE proname LIKE 'pgraft%' ORDER BY 1"
        ).fetchall()
    assert [row[0] for row in rows] == sorted(FUNCTIONS)


def test_update_path_keeps_every_function(lab: Lab, flavour: Flavour, tmp_path: Path) -> None:
    """From the first version on: a next version is a script beside it, and the library serves the
    SQL of both."""
    if flavour.major < 18:
        pytest.skip("before 18 the files of the extension lie in the server's own directories")
    server = lab.server(flavour)
    before = server.settings["extension_control_path"].split(":")[0]
    share = server.site.options.state_dir / "share"
    (share / "extension").mkdir(parents=True)
    for path in Path(before, "extension").iterdir():
        (share / "extension" / path.name).write_bytes(path.read_bytes())
    script = "COMMENT ON FUNCTION pgraft_status() IS 'updated';\n"
    (share / "extension" / "pgraft--1.0--1.1.sql").write_text(script)
    for folder in (share, share / "extension"):
        folder.chmod(0o755)
    for path in (share / "extension").iterdir():
        path.chmod(0o644)
    server.settings["extension_control_path"] = f"{share}:$system"
    server.start(leased=True)
    try:
        server.ask("CREATE EXTENSION pgraft VERSION '1.0'")
        server.ask("ALTER EXTENSION pgraft UPDATE TO '1.1'")
        assert server.ask("SELECT extversion FROM pg_extension WHERE extname = 'pgraft'") == "1.1"
        wait_for(lambda: server.ask("SELECT pgraft_get_worker_state()") == "running", 30, "runs")
        for name in FUNCTIONS:
            server.ask(f"SELECT count(*) FROM {name}()")
    finally:
        server.stop()
