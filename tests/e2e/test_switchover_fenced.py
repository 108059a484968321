"""Switchover of a server that checks the lease itself: what travels, what ends, its undoing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    ask,
    client,
    epoch_of,
    primary_of,
    replicas_of,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.writers import Writers, create_table, present

PREPARED = "--no-sync --set max_prepared_transactions=5"


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    return clusters.three_nodes(
        pgraft_extension="required", initdb_options=PREPARED, fence_grace_ms=60_000
    )


def move(cluster: LocalCluster, target: int) -> tuple[int, dict[str, Any]]:
    return cluster.api(target, "POST", "/cluster/failover", {"target_node": target}, timeout_s=90)


@contextmanager
def receiver_stopped(cluster: LocalCluster, node: int) -> Iterator[None]:
    """The node lives, and takes no WAL."""
    rows = ask(cluster, node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'")
    pid = int(rows[0][0])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_prepared_travels_open_transactions_end_and_nothing_is_rewound(
    cluster: LocalCluster,
) -> None:
    old, target = primary_of(cluster), replicas_of(cluster)[0]
    before = epoch_of(cluster)
    with client(cluster, old) as preparing:
        preparing.execute("BEGIN")
        preparing.execute("INSERT INTO story VALUES (100)")
        preparing.execute("PREPARE TRANSACTION 'travels'")
    with psycopg.connect(cluster.dsn(old), autocommit=True) as idle:
        idle.execute("BEGIN")
        idle.execute("INSERT INTO story VALUES (101)")
        status, answer = move(cluster, target)
        assert status == 200, answer
        with pytest.raises(psycopg.OperationalError):
            idle.execute("COMMIT")
    data = answer["data"]
    assert isinstance(data, dict)
    names = [phase["name"] for phase in data["phases"]]
    assert names[:3] == ["drain", "flush", "receive"]
    assert names[-1] == "total"
    cluster.wait_healthy(HEAL_S)
    assert (primary_of(cluster), epoch_of(cluster)) == (target, before + 1)
    ask(cluster, target, "COMMIT PREPARED 'travels'")
    assert {100} <= same_everywhere(cluster, {100})
    assert ask(cluster, target, "SELECT count(*) FROM story WHERE row = 101") == [(0,)]
    assert not list(cluster.root.glob("node*.aside-*")), "plainly followed"
    assert not list(cluster.root.glob("node*.ramd/divergent/*")), "nothing was rewound"


def test_target_that_takes_no_wal_undoes_it_and_the_server_goes_on(cluster: LocalCluster) -> None:
    """Attacks C11: the old primary goes on under the next epoch, by the group's own grant."""
    cluster.wait_healthy(HEAL_S)
    dsns = {node: cluster.dsn(node) for node in NODES}
    create_table(dsns)
    old, target, epoch = primary_of(cluster), replicas_of(cluster)[0], epoch_of(cluster)
    serving = cluster.processes.postmaster_pid(old)
    with Writers(dsns) as writers:
        wait_for(lambda: writers.acked() > 50, SOON_S, "writers write")
        with receiver_stopped(cluster, target):
            behind = writers.acked() + 20
            wait_for(lambda: writers.acked() > behind, SOON_S, "it has not got everything")
            status, answer = move(cluster, target)
            assert (status, answer["error"]) == (409, "no_candidate"), answer
            assert "undone" in str(answer["message"])
            flowing = writers.acked() + 50
            wait_for(lambda: writers.acked() > flowing, SOON_S, "writes go on")
    assert (primary_of(cluster), epoch_of(cluster)) == (old, epoch + 1)
    assert cluster.processes.postmaster_pid(old) == serving, "without a restart"
    cluster.wait_healthy(HEAL_S)
    acknowledged = {ack.row for ack in writers.recorded.acks}
    node, rows = present(dsns)
    assert node == old
    assert acknowledged <= rows
    status, answer = cluster.api(old, "GET", "/cluster/decisions?rule=switchover_undone")
    assert status == 200, answer
    found = answer["data"]["decisions"]
    assert found[0]["epoch"] == epoch + 1
    assert "did not confirm" in found[0]["reason"]


def test_target_that_dies_on_the_way_undoes_it(cluster: LocalCluster) -> None:
    """Its host is lost in the middle; the next switchover, to the other one, succeeds."""
    cluster.wait_healthy(HEAL_S)
    old, (target, other) = primary_of(cluster), replicas_of(cluster)
    with receiver_stopped(cluster, target):
        write(cluster, range(200, 210))
        asked = cluster.api(old, "POST", "/cluster/failover", {"target_node": target}, timeout_s=90)
        cluster.kill_node(target)
    assert asked[0] == 409, asked
    assert primary_of(cluster) == old
    write(cluster, range(210, 220))
    wait_for(lambda: move(cluster, other)[0] == 200, HEAL_S, "to the other one")
    cluster.spawn(target)
    cluster.wait_healthy(HEAL_S)
    assert primary_of(cluster) == other
    same_everywhere(cluster, set(range(200, 220)))


def test_every_obstacle_is_named_and_nothing_is_touched(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    old, target, epoch = primary_of(cluster), replicas_of(cluster)[0], epoch_of(cluster)
    status, answer = move(cluster, old)
    assert (status, answer["error"]) == (409, "conflict")
    assert [one["node_id"] for one in answer["obstacles"]] == [old]
    assert str(target) in answer["obstacles"][0]["accepted"]
    status, answer = cluster.api(target, "POST", "/cluster/demote", {"node_id": target})
    assert (status, answer["error"]) == (409, "conflict")
    assert epoch_of(cluster) == epoch


def test_explain_says_what_would_happen_and_demote_does_it(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    old = primary_of(cluster)

    def explained() -> dict[str, Any]:
        status, answer = cluster.api(old, "GET", "/cluster/explain")
        assert status == 200, answer
        found: dict[str, Any] = answer["data"]
        return found

    # Until the set of this primary is proven, the one before it rules as well.
    wait_for(lambda: explained()["if_host_lost"]["node_id"] is not None, HEAL_S, "a successor")
    data = explained()
    assert data["now"]["rule"] == "primary_serving"
    assert data["if_host_lost"]["node_id"] in data["switchover_targets"]
    assert data["if_server_crashed"]["node_id"] in data["switchover_targets"]
    assert old not in data["switchover_targets"]
    status, answer = cluster.api(old, "POST", "/cluster/demote", {"node_id": old}, timeout_s=90)
    assert status == 200, answer
    assert answer["data"]["new_primary"] != old
    cluster.wait_healthy(HEAL_S)
    status, answer = cluster.api(old, "POST", "/cluster/promote", {"node_id": old}, timeout_s=90)
    assert (status, answer["data"]["node_promoted"]) == (200, old)
