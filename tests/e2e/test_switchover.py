"""`cluster failover` on a healthy cluster: a clean stop first, so nothing acknowledged is lost."""

from __future__ import annotations

import pytest

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    epoch_of,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster
from tools.writers import Writers, create_table, present


def fail_over(cluster: LocalCluster, node: int, body: object) -> tuple[int, dict[str, object]]:
    """The answer of a node's daemon."""
    return cluster.api(node, "POST", "/cluster/failover", body, timeout_s=90)


def test_no_acknowledged_row_is_lost_and_the_target_leads(cluster: LocalCluster) -> None:
    dsns = {node: cluster.dsn(node) for node in NODES}
    create_table(dsns)
    old, target, epoch = primary_of(cluster), replicas_of(cluster)[-1], epoch_of(cluster)
    with Writers(dsns) as writers:
        wait_for(lambda: writers.acked() > 50, SOON_S, "writers write")
        status, answer = fail_over(cluster, replicas_of(cluster)[0], {"target_node": target})
        assert status == 200, answer
        data = answer["data"]
        assert isinstance(data, dict)
        assert (data["old_primary"], data["new_primary"]) == (old, target)
        assert data["epoch"] == epoch + 1
        flowing = writers.acked() + 50
        wait_for(lambda: writers.acked() > flowing, SOON_S, "writes go on")
    cluster.wait_healthy(HEAL_S)
    acknowledged = {ack.row for ack in writers.recorded.acks}
    node, rows = present(dsns)
    assert node == target == primary_of(cluster)
    assert acknowledged <= rows
    one_lineage(cluster)
    assert not list(cluster.root.glob("node*.aside-*")), "plainly followed, nothing set aside"
    assert not list(cluster.root.glob("node*.ramd/divergent/*"))


def test_without_a_target_the_best_replica_leads(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    status, answer = fail_over(cluster, old, {})
    assert status == 200, answer
    assert wait_new_epoch(cluster, epoch) != old


@pytest.mark.parametrize(
    ("target", "code", "word"),
    [
        (7, 404, "not_found"),
        ("nobody", 404, "not_found"),
        ("primary", 409, "conflict"),
        ("", 400, "invalid_field"),
        (True, 400, "invalid_field"),
    ],
)
def test_a_wrong_target_changes_nothing(
    cluster: LocalCluster, target: object, code: int, word: str
) -> None:
    cluster.wait_healthy(HEAL_S)
    before = (epoch_of(cluster), primary_of(cluster))
    status, answer = fail_over(cluster, 1, {"target_node": target})
    assert (status, answer["error"]) == (code, word), answer
    assert (epoch_of(cluster), primary_of(cluster)) == before


def test_a_dead_replica_is_no_target(cluster: LocalCluster) -> None:
    cluster.wait_healthy(HEAL_S)
    primary, dead = primary_of(cluster), replicas_of(cluster)[0]
    epoch, serving = epoch_of(cluster), cluster.processes.postmaster_pid(primary_of(cluster))
    cluster.kill_node(dead)

    def gone() -> bool:
        """It was missed, and if it was the coordinator, there is another one."""
        status = cluster.status()
        if status is None or not status["has_quorum"]:
            return False
        return not status["nodes"][dead - 1]["healthy"]

    wait_for(gone, SOON_S, "the cluster knows")
    status, answer = fail_over(cluster, primary, {"target_node": dead})
    assert (status, answer["error"]) == (409, "no_candidate"), answer
    assert (epoch_of(cluster), primary_of(cluster)) == (epoch, primary)
    assert cluster.processes.postmaster_pid(primary) == serving


def test_without_a_quorum_it_is_refused(cluster: LocalCluster) -> None:
    """Two of three hosts are gone; the third says so."""
    survivor = primary_of(cluster)
    for node in NODES:
        if node != survivor:
            cluster.kill_node(node)
    wait_for(lambda: fail_over(cluster, survivor, {})[1].get("error") == "no_quorum", SOON_S, "no")
    for node in NODES:
        if node != survivor:
            cluster.spawn(node)
    wait_for(lambda: cluster.processes.postmaster_pid(survivor) is not None, HEAL_S, "its server")
    cluster.wait_healthy(HEAL_S)
    same_everywhere(cluster, write(cluster, range(9001, 9011)))
