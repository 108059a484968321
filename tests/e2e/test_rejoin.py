"""How a node comes back: what is left of it, by which rung of the ladder, and what is recorded.

One cluster, whose commits wait for nobody, so that a former primary can hold what nobody else has.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ramd.postgres.account import choose_account
from ramd.postgres.binaries import find_postgres
from ramd.postgres.wal import SEGMENT
from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    ask,
    commits_wait_for_nobody,
    decided,
    epoch_of,
    event_lines,
    listing,
    node_of,
    nothing_leaves,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_new_epoch,
    wait_server_back,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.local_processes import belonging_to, send


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    """Three nodes; a primary acknowledges what no replica has."""
    made = clusters.three_nodes()
    commits_wait_for_nobody(made)
    return made


# --- what the stories do to a node -----------------------------------------------------------


def taken_away(cluster: LocalCluster, node: int) -> Path:
    """The data directory of a dead node is gone from its place; returns where it is now."""
    data = cluster.places.data_dir(node)
    return data.rename(data.with_name(f"{data.name}.lost-{time.monotonic_ns()}"))


def asides(cluster: LocalCluster, node: int) -> list[dict[str, str]]:
    """What the node's own list says was kept aside: path and reason."""
    listed = cluster.places.state_dir(node) / "aside.json"
    entries: list[dict[str, str]] = json.loads(listed.read_text()) if listed.exists() else []
    assert all(Path(entry["path"], "PG_VERSION").exists() for entry in entries)
    return entries


def diverge(cluster: LocalCluster, first: int) -> None:
    """The primary acknowledges rows that nobody else gets; its checkpoint lies behind them, and in
    another file of the WAL than the fork."""
    primary = primary_of(cluster)
    ask(cluster, primary, f"INSERT INTO story SELECT generate_series({first}, {first + 20_000})")
    for _ in range(2):
        ask(cluster, primary, "SELECT pg_switch_wal()")
        ask(cluster, primary, "CHECKPOINT")


def frozen(cluster: LocalCluster, node: int, program: str, *, made: str = "") -> int:
    """The process of a program that works on a node's directory, stopped in its midst, once it has
    made a directory whose name ends so. Looked for without a pause: it does not last long."""
    data, deadline = cluster.places.data_dir(node), time.monotonic() + SOON_S
    place, there = str(data).encode(), Path(f"{data}{made}")
    while time.monotonic() < deadline:
        for pid in list(belonging_to(cluster.root)):
            argv = command_line(pid)
            mine = argv[0].endswith(program.encode()) and any(place in a for a in argv[1:])
            if mine and there.is_dir():
                os.kill(pid, signal.SIGSTOP)
                return pid
    raise AssertionError(f"no {program} was seen on node {node} within {SOON_S:g} s")


def command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def whole_again(cluster: LocalCluster, rows: set[int]) -> None:
    """Everybody streams, and shows every one of these rows."""
    cluster.wait_healthy(HEAL_S)
    same_everywhere(cluster, rows)
    one_lineage(cluster)


# --- the stories -----------------------------------------------------------------------------


def test_where_a_rewind_finds_too_little_wal_a_clone_follows(cluster: LocalCluster) -> None:
    old, epoch = primary_of(cluster), epoch_of(cluster)
    rows = write(cluster, range(1, 11))
    same_everywhere(cluster, rows)
    fork = ask(cluster, old, "SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0]
    with nothing_leaves(cluster, old):
        diverge(cluster, 100_000)
        cluster.kill_node(old)
        for path in (cluster.places.data_dir(old) / "pg_wal").iterdir():
            if SEGMENT.match(path.name) and path.name <= fork:
                path.unlink()
        rows |= write(cluster, range(11, 21), within_s=HEAL_S)
    cluster.spawn(old)
    wait_new_epoch(cluster, epoch)
    whole_again(cluster, rows)
    assert "rewind: " in event_lines(cluster, old, "rejoin_judged")[0]
    failed = event_lines(cluster, old, "rewind_failed")
    assert len(failed) == 1
    assert "pg_rewind" in failed[0]
    [kept] = asides(cluster, old)
    assert "rewind" in kept["reason"]
    assert len(event_lines(cluster, old, "clone_finished")) == 1


def test_a_wiped_primary_is_replaced_and_cloned(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    rows = write(cluster, range(101, 111))
    same_everywhere(cluster, rows)
    clones = len(event_lines(cluster, old, "clone_finished"))
    cluster.kill_node(old)
    taken_away(cluster, old)
    cluster.spawn(old)
    rows |= write(cluster, range(111, 121), within_s=HEAL_S)
    assert wait_new_epoch(cluster, epoch) != old
    whole_again(cluster, rows)
    grant = decided(cluster, old, "promote_best")[0]
    assert grant["epoch"] == epoch + 1
    assert f"from node {old}" in grant["reason"]
    assert len(event_lines(cluster, old, "clone_finished")) == clones + 1


def test_the_directory_of_another_cluster_is_refused_and_left_alone(cluster: LocalCluster) -> None:
    """And a node that fails again and again says why, and tries ever less often."""
    cluster.wait_healthy(HEAL_S)
    node = replicas_of(cluster)[0]
    data = cluster.places.data_dir(node)
    cluster.kill_node(node)
    taken_away(cluster, node)
    make_another_cluster(data)
    before = listing(data)
    begun = len(event_lines(cluster, node, "transition_failed"))
    cluster.spawn(node)

    def refused() -> bool:
        shown = node_of(cluster, node, asked=primary_of(cluster))["activity"]
        return bool(re.search("failed [4-9] times: the data directory cannot be used", shown))

    wait_for(refused, HEAL_S, "every node shows that it has failed, and why")
    activity = node_of(cluster, node, asked=primary_of(cluster))["activity"]
    assert re.search(r"its system id is \d+, the cluster's is \d+", activity)
    tries = event_lines(cluster, node, "transition_failed")[begun:]
    pauses = [int(re.findall(r"retry_ms=(\d+)", line)[0]) for line in tries]
    assert pauses[0] <= 200
    assert pauses[3] > 2 * pauses[0]
    assert listing(data) == before
    # As the hint says.
    taken_away(cluster, node)
    wait_server_back(cluster, node, None)
    whole_again(cluster, write(cluster, range(201, 211)))


def make_another_cluster(data: Path) -> None:
    """A data directory of the server's user that this cluster has never seen."""
    account = choose_account(data, None)
    initdb = find_postgres(None).tool("initdb")
    root = os.geteuid() == 0
    data.mkdir(0o700)
    os.chown(data, account.uid, account.gid)
    subprocess.run(
        [initdb, f"--pgdata={data}", "--username=postgres", "--no-sync", "--auth=trust"],
        check=True,
        capture_output=True,
        timeout=HEAL_S,
        cwd="/",
        user=account.uid if root else None,
        group=account.gid if root else None,
        extra_groups=[] if root else None,
    )


def test_a_rewind_whose_source_dies_is_never_started(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    rows = write(cluster, range(301, 311))
    same_everywhere(cluster, rows)
    kept = len(asides(cluster, old))
    with nothing_leaves(cluster, old):
        diverge(cluster, 200_000)
        cluster.kill_node(old)  # a living daemon would give its WAL to the next primary
        rows |= write(cluster, range(311, 316), within_s=HEAL_S)
    source = primary_of(cluster)
    assert source != old
    cluster.spawn(old)
    rewind = frozen(cluster, old, "pg_rewind")
    cluster.kill_server(source)
    send(rewind, signal.SIGCONT)
    rows |= write(cluster, range(316, 321), within_s=HEAL_S)
    assert wait_new_epoch(cluster, epoch + 1) not in (old, source)
    whole_again(cluster, rows)
    assert f"node {source} failed" in event_lines(cluster, old, "rewind_failed")[-1]
    assert "rewind" in asides(cluster, old)[kept]["reason"]
    assert f"node {primary_of(cluster)} " in event_lines(cluster, old, "clone_finished")[-1]


def test_a_clone_whose_source_dies_is_never_started(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    source, node, epoch = primary_of(cluster), replicas_of(cluster)[0], epoch_of(cluster)
    rows = write(cluster, range(401, 411))
    same_everywhere(cluster, rows)
    clones = len(event_lines(cluster, node, "clone_finished"))
    cluster.kill_node(node)
    taken_away(cluster, node)
    cluster.spawn(node)
    copying = frozen(cluster, node, "pg_basebackup", made=".clone-tmp/base")
    cluster.kill_server(source)
    send(copying, signal.SIGCONT)
    rows |= write(cluster, range(411, 421), within_s=HEAL_S)
    assert wait_new_epoch(cluster, epoch) not in (source, node)
    whole_again(cluster, rows)
    made = event_lines(cluster, node, "clone_finished")[clones:]
    assert len(made) == 1
    assert f"node {primary_of(cluster)} " in made[0]
    assert set(NODES) == {primary_of(cluster), *replicas_of(cluster)}
