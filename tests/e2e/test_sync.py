"""Synchronous replication on real clusters: what was acknowledged is never lost, and when writes
wait, go on, or go on alone."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial

import psycopg

from tests.support.cluster_stories import (
    HEAL_S,
    SOON_S,
    TABLE,
    Clusters,
    ask,
    client,
    decided,
    epoch_of,
    event_lines,
    node_of,
    primary_of,
    replicas_of,
    rows_on,
    same_everywhere,
    wait_new_epoch,
    wait_server_back,
    write,
)
from tests.support.sync_stories import (
    WAITING,
    names,
    nobody_for_the_set,
    stopped_server,
    until_settled,
    waited_for,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster


class Writer:
    """Writes one row after the other to whoever is primary, and notes what was acknowledged."""

    def __init__(self, cluster: LocalCluster, first: int) -> None:
        self.acknowledged: set[int] = set()
        self._cluster = cluster
        self._next = first
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        hosts = [self._cluster.dsn(node) for node in (1, 2, 3)]
        while not self._end.is_set():
            for dsn in hosts:
                with suppress(psycopg.Error):
                    self._write_by(dsn)

    def _write_by(self, dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=2) as session:
            while not self._end.is_set():
                self._next += 1
                session.execute(f"INSERT INTO {TABLE} VALUES (%s)", (self._next,))
                self.acknowledged.add(self._next)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def more(writer: Writer, rows: int) -> bool:
    return len(writer.acknowledged) > rows


def test_every_acknowledged_row_survives_the_loss_of_the_primarys_host(
    cluster: LocalCluster,
) -> None:
    """Again and again, while rows are written as fast as they are acknowledged."""
    acknowledged: set[int] = set()
    for round_ in range(3):
        until_settled(cluster)
        old, epoch = primary_of(cluster), epoch_of(cluster)
        with Writer(cluster, 10_000 * (round_ + 1)) as writer:
            wait_for(partial(more, writer, 50), SOON_S, "rows are written")
            cluster.kill_node(old)
            wait_for(partial(more, writer, len(writer.acknowledged) + 20), HEAL_S, "and again")
        assert epoch_of(cluster) > epoch
        acknowledged |= writer.acknowledged
        new = primary_of(cluster)
        assert new != old
        found = rows_on(cluster, new)
        assert found is not None
        assert acknowledged <= found, sorted(acknowledged - found)
        cluster.spawn(old)
        wait_new_epoch(cluster, epoch)


def test_one_replica_that_hangs_costs_no_write_and_leaves_the_set(cluster: LocalCluster) -> None:
    until_settled(cluster)
    replica, other = replicas_of(cluster)
    epoch = epoch_of(cluster)
    with stopped_server(cluster, replica):
        write(cluster, range(200_000, 200_010))
        wait_for(
            lambda: waited_for(cluster) == set(replicas_of(cluster)) - {replica},
            HEAL_S,
            "it is waited for no longer",
        )
        assert epoch_of(cluster) == epoch
        change = decided(cluster, primary_of(cluster), "sync_changed")[0]
        assert change["reason"] == f"commits wait for any 1 of node {other}: 1 replicas stream"
    until_settled(cluster)


def test_without_replicas_the_primary_goes_on_alone_and_nobody_else_is_promoted(
    clusters: Clusters,
) -> None:
    cluster = clusters.three_nodes(sync_replication_timeout_ms=3000)
    until_settled(cluster)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    replicas = replicas_of(cluster)
    with stopped_server(cluster, *replicas):
        rows = write(cluster, range(1, 5), within_s=HEAL_S)
        assert names(cluster) == ""
        status = cluster.status()
        assert status is not None
        assert status["sync"]["waits_for"] == "nobody (the primary alone)"
        cluster.kill_node(primary)
    # Both replicas are back, and lack what the primary acknowledged alone.
    wait_for(lambda: nobody_for_the_set(cluster), HEAL_S, "the reason is recorded")
    assert epoch_of(cluster) == epoch
    cluster.spawn(primary)
    wait_for(lambda: epoch_of(cluster) > epoch, HEAL_S, "the primary itself is back")
    until_settled(cluster)
    assert primary_of(cluster) == primary
    same_everywhere(cluster, rows)


def test_a_person_may_accept_the_loss(clusters: Clusters) -> None:
    cluster = clusters.three_nodes(sync_replication_timeout_ms=1000)
    until_settled(cluster)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    replicas = replicas_of(cluster)
    before = write(cluster, range(1, 5))
    with stopped_server(cluster, *replicas):
        write(cluster, range(5, 9), within_s=HEAL_S)
        cluster.kill_node(primary)
    wait_for(lambda: nobody_for_the_set(cluster), HEAL_S, "the reason is recorded")
    body = {"target_node": replicas[0], "accept_loss": True}
    code, answer = cluster.api(replicas[0], "POST", "/cluster/failover", body, timeout_s=HEAL_S)
    assert (code, answer["data"]["new_primary"]) == (200, replicas[0])
    assert epoch_of(cluster) > epoch
    cluster.spawn(primary)
    wait_new_epoch(cluster, epoch)
    until_settled(cluster)
    same_everywhere(cluster, before)


def test_settings_are_changed_while_it_runs_or_refused(cluster: LocalCluster) -> None:
    until_settled(cluster)
    primary, replicas = primary_of(cluster), replicas_of(cluster)
    asked = cluster.api(primary, "POST", "/replication/sync", {"num_sync_standbys": 3})
    assert (asked[0], asked[1]["hint"]) == (400, "1 to 2")
    asked = cluster.api(primary, "POST", "/sync-standbys/remove", {"node_name": f"node{primary}"})
    assert (asked[0], asked[1]["error"]) == (409, "conflict")
    two = cluster.api(primary, "POST", "/replication/sync", {"num_sync_standbys": 2}, timeout_s=30)
    assert (two[0], two[1]["data"]["required"]) == (200, 2)
    assert names(cluster).startswith("ANY 2 ")
    kept = {"num_sync_standbys": 1}
    assert cluster.api(replicas[0], "POST", "/replication/sync", kept, timeout_s=30)[0] == 200
    name = {"node_name": f"node{replicas[1]}"}
    gone = cluster.api(primary, "POST", "/sync-standbys/remove", name, timeout_s=30)
    assert gone[1]["data"]["synchronous_standbys"] == [f"node{replicas[0]}"]
    back = cluster.api(primary, "POST", "/sync-standbys/add", name, timeout_s=30)
    assert back[0] == 200
    until_settled(cluster)
    off = cluster.api(primary, "POST", "/replication/sync", {"mode": "off"}, timeout_s=30)
    assert (off[0], off[1]["data"]["synchronous"]) == (200, False)
    wait_for(lambda: names(cluster) == "", SOON_S, "nobody is waited for")
    assert (
        cluster.api(primary, "POST", "/replication/sync", {"mode": "auto"}, timeout_s=30)[0] == 200
    )
    until_settled(cluster)


def test_where_replicas_are_enforced_writes_wait_for_them(clusters: Clusters) -> None:
    cluster = clusters.three_nodes(
        sync_replication_timeout_ms=1000, enforce_sync_standbys="true", num_sync_standbys=2
    )
    until_settled(cluster)
    assert names(cluster).startswith("ANY 2 ")
    primary, replicas = primary_of(cluster), replicas_of(cluster)
    answered = threading.Event()

    def write_one() -> None:
        with client(cluster, primary) as session:
            session.execute(f"INSERT INTO {TABLE} VALUES (7)")
            answered.set()

    writing = threading.Thread(target=write_one)
    with stopped_server(cluster, replicas[0]):
        writing.start()
        wait_for(lambda: ask(cluster, primary, WAITING) == [(1,)], SOON_S, "the commit waits")
        assert not answered.wait(4)
        assert names(cluster).startswith("ANY 2 ")
    assert answered.wait(SOON_S)
    writing.join()


def test_a_replica_made_again_is_another_member(cluster: LocalCluster) -> None:
    until_settled(cluster)
    replica = replicas_of(cluster)[0]
    before, mark = names(cluster), f"ramd_node_{replica}_"
    old = cluster.processes.postmaster_pid(replica)
    cluster.kill_node(replica)
    data = cluster.places.data_dir(replica)
    data.rename(data.with_name(f"{data.name}.lost"))
    cluster.spawn(replica)
    wait_server_back(cluster, replica, old)
    wait_for(lambda: names(cluster) not in ("", before), HEAL_S, "another set")
    until_settled(cluster)
    assert not set(names(cluster).split()) & {word for word in before.split() if mark in word}


def test_a_replica_made_anew_by_order_leaves_the_set_first(cluster: LocalCluster) -> None:
    until_settled(cluster)
    primary, replica, epoch = primary_of(cluster), replicas_of(cluster)[0], epoch_of(cluster)
    refused = cluster.api(primary, "POST", f"/nodes/{primary}/reinit", {})
    assert (refused[0], refused[1]["error"]) == (409, "conflict")
    assert "is the primary: switch over" in refused[1]["message"]
    before, data = names(cluster), cluster.places.data_dir(replica)
    tie = data.stat().st_ino
    with Writer(cluster, 400_000) as writer:
        code, answer = cluster.api(primary, "POST", f"/nodes/{replica}/reinit", {}, timeout_s=90)
    assert (code, answer["data"]["done"]) == (200, True), answer
    assert writer.acknowledged
    ordered, ended = (decided(cluster, primary, f"reinit_{it}")[0] for it in ("ordered", "ended"))
    assert ordered["actor"].startswith("api ")
    assert ended["reason"] == f"node {replica} streams with a new copy"
    assert not node_of(cluster, replica)["reinit"]
    (aside,) = data.parent.glob(f"{data.name}.aside-*")
    assert aside.stat().st_ino == tie
    [said] = event_lines(cluster, replica, "set_aside")
    assert "a person ordered a new copy" in said
    until_settled(cluster)
    assert names(cluster) != before
    assert epoch_of(cluster) == epoch
    same_everywhere(cluster, writer.acknowledged)
