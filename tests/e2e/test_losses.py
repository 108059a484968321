"""Whole nodes are lost, one after the other, two at once and all together: who leads then, and what
the record says about it."""

from __future__ import annotations

import contextlib
import http.client
from typing import Any

import pytest

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    SOON_S,
    Clusters,
    ask,
    decided,
    epoch_of,
    event,
    node_of,
    nothing_leaves,
    one_lineage,
    primary_of,
    replicas_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api

GRACE_MS = 12_000
"""So long that a slow machine can start a node within it, and no longer than a story can wait."""


@pytest.fixture(scope="module")
def cluster(clusters: Clusters) -> LocalCluster:
    """Three nodes that wait for the last primary after a cold start, but not for long."""
    return clusters.three_nodes(startup_grace_ms=GRACE_MS)


def until_commits_wait(cluster: LocalCluster) -> None:
    """Healthy, and every replica confirms commits: whoever is lost now, nothing else is."""
    cluster.wait_healthy(HEAL_S)

    def all_confirm() -> bool:
        names = ask(cluster, primary_of(cluster), "SHOW synchronous_standby_names")[0][0]
        return all(f"ramd_node_{node}_" in names for node in replicas_of(cluster))

    wait_for(all_confirm, HEAL_S, "both replicas confirm commits")


def test_each_node_in_turn_is_lost_as_primary_and_comes_back(cluster: LocalCluster) -> None:
    acknowledged: set[int] = set()
    ended: list[int] = []
    timelines = [one_lineage(cluster)]
    for turn in range(len(NODES)):
        until_commits_wait(cluster)
        left = set(NODES) - set(ended)
        if primary_of(cluster) not in left:  # everybody shall have been it once
            body = {"target_node": min(left)}
            assert cluster.api(1, "POST", "/cluster/failover", body, timeout_s=HEAL_S)[0] == 200
            until_commits_wait(cluster)
        old, epoch = primary_of(cluster), epoch_of(cluster)
        acknowledged |= write(cluster, range(100 * turn, 100 * turn + 10))
        cluster.kill_node(old)
        acknowledged |= write(cluster, range(100 * turn + 10, 100 * turn + 20), within_s=HEAL_S)
        cluster.spawn(old)
        assert wait_new_epoch(cluster, epoch) != old
        assert epoch_of(cluster) > epoch
        same_everywhere(cluster, acknowledged)
        timelines.append(one_lineage(cluster))
        grant = decided(cluster, 1, "promote_best")[0]
        assert (grant["epoch"], grant["action"]) == (epoch + 1, "GrantTo")
        assert f"node {primary_of(cluster)}" in grant["reason"]
        ended.append(old)
    assert sorted(ended) == list(NODES)
    assert timelines == sorted(set(timelines)), "each takeover began a timeline of its own"


def test_primary_and_a_replica_lost_together_are_waited_for(cluster: LocalCluster) -> None:
    """One of three has no majority: it holds, says so, and serves reads. With the next one back
    they find a primary by themselves."""
    until_commits_wait(cluster)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    rows = write(cluster, range(1001, 1011))
    other, last = replicas_of(cluster)
    cluster.kill_node(old)
    cluster.kill_node(other)

    def holds() -> bool:
        status = own_status(cluster, last)
        return bool(status) and not status["has_quorum"]

    wait_for(holds, SOON_S, "the last one knows that it is alone")
    status = own_status(cluster, last)
    assert (status["cluster_status"], status["epoch"]) == ("critical", epoch)
    assert status["reason"] == "no quorum: no majority of the members is in touch"
    wait_for(
        lambda: "no coordinator is heard" in node_of(cluster, last)["activity"],
        SOON_S,
        "the node says why it does nothing",
    )
    assert ask(cluster, last, "SELECT pg_is_in_recovery()") == [(True,)]
    cluster.spawn(other)
    rows |= write(cluster, range(1011, 1021), within_s=HEAL_S)
    assert primary_of(cluster) != old
    assert epoch_of(cluster) > epoch
    assert decided(cluster, last, "promote_best")[0]["epoch"] == epoch + 1
    cluster.spawn(old)
    wait_new_epoch(cluster, epoch)
    same_everywhere(cluster, rows)
    one_lineage(cluster)


def test_all_daemons_killed_at_once_cost_no_failover_and_no_restart(
    cluster: LocalCluster,
) -> None:
    """The lease may end meanwhile: then the server refuses writes, and takes them again."""
    until_commits_wait(cluster)
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    servers = [cluster.processes.postmaster_pid(node) for node in NODES]
    changed = changes(cluster)
    rows = write(cluster, range(1101, 1111))
    for node in NODES:
        cluster.processes.kill_daemon(node)
    for node in NODES:
        cluster.spawn(node)
    for node in NODES:
        await_api(cluster, node)
    rows |= write(cluster, range(1111, 1121), within_s=HEAL_S)
    cluster.wait_healthy(HEAL_S)
    assert (epoch_of(cluster), primary_of(cluster)) == (epoch, primary)
    assert [cluster.processes.postmaster_pid(node) for node in NODES] == servers
    assert changes(cluster) == changed
    assert event(cluster, primary, "server_adopted")
    same_everywhere(cluster, rows)


def changes(cluster: LocalCluster) -> list[str]:
    """Every grant and every seal in the record."""
    found = cluster.api(1, "GET", "/cluster/decisions?limit=100&changes=true")
    acts = (f"{r['action']} {r['epoch']} {r['at']}" for r in found[1]["data"]["decisions"])
    return [act for act in acts if act.startswith(("GrantTo", "Seal"))]


def own_status(cluster: LocalCluster, node: int) -> dict[str, Any]:
    """The cluster as one node's own daemon sees it, {} while it does not answer."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        code, answer = cluster.api(node, "GET", "/cluster/status")
        if code == 200:
            data: dict[str, Any] = answer["data"]
            return data
    return {}


def all_lost(cluster: LocalCluster) -> tuple[int, list[int], int]:
    """Everything dies at once, while the primary is ahead by WAL that acknowledged nothing: (the
    last primary, the others, its epoch)."""
    until_commits_wait(cluster)
    found = primary_of(cluster), replicas_of(cluster), epoch_of(cluster)
    with nothing_leaves(cluster, found[0]):
        ask(cluster, found[0], "CHECKPOINT")
        for node in NODES:
            cluster.kill_node(node)
    return found


def waits_for(cluster: LocalCluster, old: int, asked: int) -> bool:
    """It is recorded, and shown by node `asked`, that the last primary is waited for."""
    wanted = f"cold start: waiting to hear of node {old}, the last primary"
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
        return any(r["reason"] == wanted for r in decided(cluster, asked, "cold_start_grace")[:1])
    return False


def test_cold_start_with_the_last_primary_first_gives_it_back(cluster: LocalCluster) -> None:
    rows = write(cluster, range(2001, 2011))
    old, others, epoch = all_lost(cluster)
    cluster.spawn(old)
    await_api(cluster, old)
    assert not own_status(cluster, old).get("has_quorum")
    for node in others:
        cluster.spawn(node)
    assert_restarted_in_place(cluster, old, epoch)
    same_everywhere(cluster, rows)


def assert_restarted_in_place(cluster: LocalCluster, old: int, epoch: int) -> None:
    """The last primary is it again, because it had the most, and that is recorded."""
    assert wait_new_epoch(cluster, epoch) == old
    grant = decided(cluster, old, "restart_in_place")[0]
    assert grant["epoch"] == epoch + 1
    assert grant["reason"].startswith(
        f"restart of node {old} in place: cold start: it holds the most WAL"
    )


def test_cold_start_with_the_last_primary_last_waits_for_it(cluster: LocalCluster) -> None:
    rows = write(cluster, range(3001, 3011))
    old, others, epoch = all_lost(cluster)
    for node in others:
        cluster.spawn(node)
    wait_for(lambda: waits_for(cluster, old, others[0]), SOON_S, "they wait for it, and say so")
    cluster.spawn(old)
    assert_restarted_in_place(cluster, old, epoch)
    same_everywhere(cluster, rows)


def test_cold_start_without_the_last_primary_ends_the_wait(cluster: LocalCluster) -> None:
    rows = write(cluster, range(4001, 4011))
    old, others, epoch = all_lost(cluster)
    for node in others:
        cluster.spawn(node)
    wait_for(lambda: waits_for(cluster, old, others[0]), SOON_S, "they wait for it, and say so")
    rows |= write(cluster, range(4011, 4021), within_s=HEAL_S)
    new = primary_of(cluster)
    assert new in others
    grant = decided(cluster, new, "promote_best")[0]
    waited = decided(cluster, new, "cold_start_grace")[0]
    assert grant["epoch"] == epoch + 1
    assert waited["epoch"] == epoch
    cluster.spawn(old)
    wait_new_epoch(cluster, epoch)
    same_everywhere(cluster, rows)
    one_lineage(cluster)
