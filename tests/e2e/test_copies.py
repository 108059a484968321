"""Who counts as a copy of the data, and what a changed set waits for, on real servers.

One cluster for all stories; each says beforehand how commits are to wait.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramd.postgres.account import owner_account
from ramd.postgres.binaries import find_postgres
from tests.support.cluster_stories import (
    HEAL_S,
    SOON_S,
    TABLE,
    Clusters,
    ask,
    client,
    decided,
    epoch_of,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_server_back,
    write,
)
from tests.support.sync_stories import (
    WAITING,
    names,
    settled,
    stopped_server,
    until_settled,
    waited_for,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.local_processes import send

PATIENT_MS = 60_000
"""Longer than any story: nobody gives a replica up."""


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    return clusters.three_nodes(pgraft_extension="required")


def waits(cluster: LocalCluster, count: int, *, enforced: bool, ms: int = PATIENT_MS) -> None:
    """Commits wait for `count` replicas from now on."""
    body = {
        "num_sync_standbys": count,
        "enforce_sync_standbys": enforced,
        "sync_replication_timeout_ms": ms,
    }
    answer = cluster.api(primary_of(cluster), "POST", "/replication/sync", body, timeout_s=30)
    assert answer[0] == 200, answer
    until_settled(cluster)
    assert names(cluster).startswith(f"ANY {count} ")


def member_name(cluster: LocalCluster, node: int) -> str:
    """As the primary's server knows this node's copy."""
    words = names(cluster).strip("ANY 0123456789()").split(",")
    return next(w.strip(' ")(') for w in words if f"ramd_node_{node}_" in w)


@contextmanager
def one_row(cluster: LocalCluster, row: int) -> Iterator[threading.Event]:
    """A client writes it; the event says that it was acknowledged. Waits for that at the end."""
    acknowledged = threading.Event()

    def insert() -> None:
        with client(cluster, primary_of(cluster)) as session:
            session.execute(f"INSERT INTO {TABLE} VALUES (%s)", (row,))
            acknowledged.set()

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        yield acknowledged
    finally:
        thread.join(HEAL_S)
    assert acknowledged.is_set()


def waiting(cluster: LocalCluster) -> bool:
    return ask(cluster, primary_of(cluster), WAITING) == [(1,)]


def receivewal(cluster: LocalCluster, name: str, directory: Path) -> str:
    """What a WAL archiver that bears a member's name is told, and that it ended with an error."""
    dsn = f"{cluster.dsn(primary_of(cluster))} application_name={name}"
    program = find_postgres(None).bin_dir / "pg_receivewal"
    ended = subprocess.run(
        [program, "--synchronous", "--no-loop", "-D", directory, "-d", dsn],
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )
    assert ended.returncode != 0
    return ended.stderr


def test_an_archiver_with_a_members_name_is_no_copy(cluster: LocalCluster, tmp_path: Path) -> None:
    """ANY 2 of two, one is gone: neither its name nor that of the other one helps."""
    waits(cluster, 2, enforced=True)
    there, gone = replicas_of(cluster)
    impostors = [member_name(cluster, node) for node in (there, gone)]
    cluster.kill_node(gone)
    with one_row(cluster, 1) as acknowledged:
        wait_for(lambda: waiting(cluster), SOON_S, "the commit waits")
        for name in impostors:
            told = receivewal(cluster, name, tmp_path)
            assert f'"{name}" may stream only through its own replication slot' in told
        assert waiting(cluster)
        assert not acknowledged.is_set()
        cluster.spawn(gone)
    until_settled(cluster)


def test_a_stopped_walsender_keeps_a_change_from_being_proven(cluster: LocalCluster) -> None:
    """1 to 2 while a process of the server still goes by 1: said, and finished when it can be."""
    waits(cluster, 1, enforced=False)
    primary, stopped = primary_of(cluster), member_name(cluster, replicas_of(cluster)[1])
    find = f"SELECT pid FROM pg_stat_replication WHERE application_name = '{stopped}'"
    pid = int(ask(cluster, primary, find)[0][0])
    two = {"num_sync_standbys": 2}

    def unproven() -> bool:
        sync = (cluster.status() or {}).get("sync") or {}
        return "a process of the server still goes by set" in str(sync.get("obstacle"))

    with ThreadPoolExecutor(1) as pool:
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = pool.submit(cluster.api, primary, "POST", "/replication/sync", two, 60)
            wait_for(unproven, SOON_S, "what the proof waits for is told")
            assert not settled(cluster)
            with one_row(cluster, 2) as acknowledged:
                wait_for(lambda: waiting(cluster), SOON_S, "a commit waits for both")
                assert not acknowledged.is_set()
                send(pid, signal.SIGCONT)
        finally:
            send(pid, signal.SIGCONT)
        assert asked.result()[0] == 200
    until_settled(cluster)
    assert names(cluster).startswith("ANY 2 ")
    assert "any 2 of" in decided(cluster, primary, "sync_changed")[0]["reason"]


def test_enforced_it_waits_and_not_enforced_it_goes_on_alone(cluster: LocalCluster) -> None:
    """Both replicas hang. What a person then allows is decided, recorded, and ends by itself."""
    waits(cluster, 1, enforced=True, ms=500)
    primary, replicas = primary_of(cluster), replicas_of(cluster)
    relaxed = len(decided(cluster, primary, "sync_relaxed"))

    def named() -> bool:
        """By then the time to wait would have been over long since."""
        reason = str((cluster.status() or {}).get("reason"))
        return all(f"node{node}" in reason for node in replicas)

    with stopped_server(cluster, *replicas), one_row(cluster, 3) as acknowledged:
        wait_for(lambda: waiting(cluster), SOON_S, "the commit waits")
        wait_for(named, SOON_S, "who is missing is told")
        assert names(cluster).startswith("ANY 1 ")
        assert len(decided(cluster, primary, "sync_relaxed")) == relaxed
        assert not acknowledged.is_set()
        allowed = {"enforce_sync_standbys": False}
        answer = cluster.api(primary, "POST", "/replication/sync", allowed, timeout_s=30)
        assert answer[0] == 200, answer
        assert acknowledged.wait(SOON_S), "the primary goes on alone"
        found = decided(cluster, primary, "sync_relaxed")
        assert len(found) == relaxed + 1
        assert found[0]["actor"] == f"primary, node {primary}"
        status = cluster.status()
        assert status is not None
        assert status["sync"]["waits_for"] == "nobody (the primary alone)"
    until_settled(cluster)
    assert decided(cluster, primary, "sync_changed")[0]["at"] >= found[0]["at"]
    same_everywhere(cluster, {3})


def test_a_replica_put_back_from_a_copy_is_not_the_one_that_confirmed(
    cluster: LocalCluster,
) -> None:
    """Attacks C7: a row that only one replica confirmed; its host and the primary's are lost, and
    it comes back with an older directory. Nobody has the row, so nobody is promoted for it."""
    waits(cluster, 1, enforced=False)
    primary, (confirms, lags), epoch = primary_of(cluster), replicas_of(cluster), epoch_of(cluster)
    data = cluster.places.data_dir(confirms)
    older = data.with_name(f"{data.name}.older")
    old = cluster.processes.postmaster_pid(confirms)
    cluster.kill_node(confirms)
    copy_directory(data, older)
    cluster.spawn(confirms)
    wait_server_back(cluster, confirms, old)
    until_settled(cluster)
    with stopped_server(cluster, lags):
        wait_for(lambda: waited_for(cluster) == {confirms}, HEAL_S, "one is waited for")
        rows = write(cluster, range(10, 20))
        cluster.kill_node(primary)
        cluster.kill_node(confirms)
        data.rename(data.with_name(f"{data.name}.lost"))
        older.rename(data)
    cluster.spawn(confirms)

    def nobody() -> bool:
        found = decided(cluster, lags, "nobody_eligible")
        return bool(found) and "may lack acknowledged commits" in str(found[0])

    wait_for(nobody, HEAL_S, "why nobody is promoted is recorded")
    assert epoch_of(cluster) == epoch
    cluster.spawn(primary)
    wait_for(lambda: epoch_of(cluster) > epoch, HEAL_S, "the primary itself is back")
    until_settled(cluster)
    assert primary_of(cluster) == primary
    same_everywhere(cluster, rows)


def copy_directory(source: Path, target: Path) -> None:
    """As a backup by files does, of a server that is down."""
    shutil.copytree(source, target, symlinks=True)
    account = owner_account(source)
    for path in (target, *target.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    target.chmod(0o700)
