"""The server refuses by itself: daemons frozen, killed, cut off, while clients go on writing.

Each story runs on a cluster whose servers have the extension; how late the last acknowledgement may
be is measured by `bench.fence`, here only that none is given beside another primary's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.support.by_hand import READ_ONLY, refuses, started_by_hand
from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    ask,
    epoch_of,
    one_lineage,
    primary_of,
    replicas_of,
    rows_on,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.local_processes import alive

CLIENTS = 8


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    """Three nodes whose servers check the lease themselves."""
    return clusters.three_nodes(pgraft_extension="required", fence_grace_ms=1000)


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Clients:
    """Sessions that write one row after the other to one server until each has been refused."""

    acks: list[tuple[int, int]] = field(default_factory=list)
    """(when, row)."""
    refused: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self.threads)


@contextmanager
def clients(cluster: LocalCluster, node: int, first_row: int) -> Iterator[Clients]:
    """Eight writers on `node`; they end by themselves when they are refused."""
    found = Clients()

    def one(number: int) -> None:
        row = first_row + number
        try:
            with psycopg.connect(cluster.dsn(node), autocommit=True) as connection:
                while True:
                    connection.execute("INSERT INTO story VALUES (%s)", (row,))
                    found.acks.append((boot_ns(), row))
                    row += CLIENTS
        except psycopg.Error as error:
            found.refused.append(error.sqlstate or "closed")

    found.threads += [threading.Thread(target=one, args=(n,)) for n in range(CLIENTS)]
    for thread in found.threads:
        thread.start()
    try:
        wait_for(lambda: len(found.acks) > 50, SOON_S, "the clients write")
        yield found
    finally:
        for thread in found.threads:
            thread.join(HEAL_S)


def first_row_elsewhere(cluster: LocalCluster, old: int) -> int:
    """When another node acknowledged a row, BOOTTIME ns."""

    def taken() -> int:
        for node in NODES:
            if node != old:
                with contextlib.suppress(psycopg.Error):
                    ask(cluster, node, "INSERT INTO story VALUES (-1)")
                    return boot_ns()
        return 0

    return wait_for(taken, HEAL_S, "another primary takes a write")


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_nothing_is_acknowledged_beside_the_next_primary(
    cluster: LocalCluster, how: signal.Signals
) -> None:
    cluster.wait_healthy(HEAL_S)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    ask(cluster, old, "DELETE FROM story")
    serving = cluster.processes.postmaster_pid(old)
    daemon = cluster.processes.daemon_pid(old)
    assert serving is not None
    assert daemon is not None
    with clients(cluster, old, first_row=0) as found:
        os.kill(daemon, how)
        try:
            taken_ns = first_row_elsewhere(cluster, old)
            wait_for(lambda: found.done, SOON_S, "every client of the old primary was refused")
            assert alive(serving), "the server lives, fenced"
            assert ask(cluster, old, "SELECT count(*) >= 0 FROM story") == [(True,)]
        finally:
            os.kill(daemon, signal.SIGCONT) if how is signal.SIGSTOP else cluster.spawn(old)
    assert set(found.refused) <= {READ_ONLY, "closed", "57P01"}
    assert [row for at_ns, row in found.acks if at_ns > taken_ns] == []
    assert wait_new_epoch(cluster, epoch) != old
    one_lineage(cluster)


def test_lease_lost_and_back_is_no_restart(cluster: LocalCluster) -> None:
    """The majority is away for longer than a lease: reads only; when it is back, writes again."""
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(primary)
    rows = write(cluster, range(1_000_001, 1_000_011))
    others = [cluster.processes.daemon_pid(node) for node in replicas_of(cluster)]
    pids = [pid for pid in others if pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with psycopg.connect(cluster.dsn(primary), autocommit=True) as early:
            wait_for(lambda: refuses(cluster, primary), SOON_S, "the primary refuses writes")
            assert rows <= (rows_on(cluster, primary) or set())
            wait_for(lambda: ended(early), SOON_S, "sessions from before the fence are ended")
        status = ask(cluster, primary, "SELECT pg_is_in_recovery()")
        assert status == [(False,)]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    rows |= write(cluster, [1_000_011])
    cluster.wait_healthy(HEAL_S)
    assert cluster.processes.postmaster_pid(primary) == serving
    assert (primary_of(cluster), epoch_of(cluster)) == (primary, epoch)
    wait_for(lambda: rows <= (rows_on(cluster, replicas_of(cluster)[0]) or set()), SOON_S, "rows")


def ended(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def test_page_removed_under_a_running_server(cluster: LocalCluster) -> None:
    """Whoever cleans up in memory costs no failover, also not when the daemon begins anew."""
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(primary)
    pages = list(cluster.places.page_dir().glob("*.page"))
    assert len(pages) == len(NODES)
    for page in pages:
        page.unlink()
        page.write_bytes(b"")  # and its name is taken by a file that nobody holds
        page.chmod(0o600)
    write(cluster, [2_000_001], within_s=SOON_S)
    cluster.processes.stop_daemon(primary)
    cluster.start(primary)
    cluster.wait_healthy(HEAL_S)
    write(cluster, [2_000_002])
    if (primary_of(cluster), epoch_of(cluster)) == (primary, epoch):
        # Else the daemon was not back within its lease: slow, and no matter of the page.
        assert cluster.processes.postmaster_pid(primary) == serving
    cluster.kill_server(primary_of(cluster))
    write(cluster, [2_000_003])
    cluster.wait_healthy(HEAL_S)
    assert list(cluster.places.page_dir().glob("*.page")), "made again at the next start"


def test_crash_of_one_backend_is_no_failover(cluster: LocalCluster) -> None:
    """The server begins anew by itself: what was published for its last start counts no more,
    and its daemon publishes for the new one."""
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(primary)
    with psycopg.connect(cluster.dsn(primary), autocommit=True) as connection:
        pid = connection.info.backend_pid
        os.kill(pid, signal.SIGKILL)
    write(cluster, [3_000_001])
    cluster.wait_healthy(HEAL_S)
    assert (primary_of(cluster), epoch_of(cluster)) == (primary, epoch)
    assert cluster.processes.postmaster_pid(primary) == serving


def test_enforcement_off_is_seen(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    primary = primary_of(cluster)
    ask(cluster, primary, "ALTER SYSTEM SET pgraft.enforce = off")
    ask(cluster, primary, "SELECT pg_reload_conf()")
    try:
        wait_for(lambda: fence_of(cluster, primary) == "off", SOON_S, "status says it")
        wait_for(lambda: (cluster.status() or {})["cluster_status"] != "healthy", SOON_S, "so")
    finally:
        ask(cluster, primary, "ALTER SYSTEM RESET pgraft.enforce")
        ask(cluster, primary, "SELECT pg_reload_conf()")
    wait_for(lambda: fence_of(cluster, primary) == "extension", SOON_S, "and that it is on again")


def fence_of(cluster: LocalCluster, node: int) -> object:
    answer = cluster.api(node, "GET", f"/nodes/{node}")[1]
    return answer["data"].get("fence")


def test_functions_tell_about_the_group_on_every_node(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    ask(cluster, primary, "CREATE EXTENSION IF NOT EXISTS pgraft")
    wait_for(lambda: all(healthy(cluster, node) for node in NODES), SOON_S, "all are healthy")
    for node in NODES:
        row = ask(
            cluster,
            node,
            "SELECT node_id, epoch, primary_id, role, fenced, enforce, quorum FROM pgraft_status()",
        )
        role = "primary" if node == primary else "replica"
        assert row == [(node, epoch, primary, role, False, True, True)]
        ids = ask(cluster, node, "SELECT node_id FROM pgraft_get_nodes() ORDER BY 1")
        assert [number for (number,) in ids] == list(NODES)
    leaders = [ask(cluster, node, "SELECT pgraft_is_leader()")[0][0] for node in NODES]
    assert leaders.count(True) == 1


def healthy(cluster: LocalCluster, node: int) -> bool:
    with contextlib.suppress(psycopg.Error):
        return ask(cluster, node, "SELECT pgraft_is_healthy()") == [(True,)]
    return False


def test_server_started_by_hand_serves_reads_only(clusters: Clusters) -> None:
    """Nobody has looked at this start of it, so it has no lease, whatever stands in the page."""
    cluster = clusters.make(settings={"pgraft_extension": "required"})
    cluster.start()
    cluster.create(1)
    cluster.wait_healthy(HEAL_S)
    ask(cluster, 1, "CREATE TABLE story(row bigint PRIMARY KEY)")
    daemon = cluster.processes.daemon_pid(1)
    postmaster = cluster.processes.postmaster_pid(1)
    assert daemon is not None
    assert postmaster is not None
    cluster.processes.kill_daemon(1)
    os.kill(postmaster, signal.SIGINT)
    wait_for(lambda: not alive(postmaster), SOON_S, "the server has stopped")
    with started_by_hand(cluster, 1, end=signal.SIGINT):
        wait_for(lambda: rows_on(cluster, 1) == set(), SOON_S, "it answers reads")
        assert refuses(cluster, 1)
    cluster.start()
    cluster.wait_healthy(HEAL_S)
    write(cluster, [1])
    same_everywhere(cluster, {1}, nodes=(1,))
