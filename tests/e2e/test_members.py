"""Members come and go while the cluster runs: one cluster, one chapter after the other.

A node joins by its token; one is removed and learns it; one whose disk was lost comes back; a dead
one is replaced, and learns of it when it wakes up. What must not be is refused by name.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.test_formation import listed, says
from tests.support.cluster_stories import (
    HEAL_S,
    SOON_S,
    Clusters,
    ask,
    envelope,
    event,
    make_table,
    primary_of,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api

ROOM = 6
FOUR, FIVE = 4, 5


@pytest.fixture(scope="module")
def members(clusters: Clusters) -> LocalCluster:
    """Three nodes formed from their files, which go on listing these three for ever."""
    cluster = listed(clusters, room=ROOM)
    for node in (1, 2, 3):
        cluster.spawn(node)
    for node in (1, 2, 3):
        await_api(cluster, node)
    cluster.wait_healthy(HEAL_S)
    make_table(cluster)
    return cluster


# --- what people do ----------------------------------------------------------------------------


def invite(cluster: LocalCluster, node: int, **more: object) -> dict[str, Any]:
    """The answer to adding a node at its own place."""
    own = cluster.places.settings(node)
    body = {
        "node_id": node,
        "hostname": own["hostname"],
        "port": own["postgresql_port"],
        "raft_port": own["raft_port"],
        "http_port": own["http_port"],
    }
    status, answer = cluster.api(1, "POST", "/cluster/add-node", body | more)
    assert status == 201, answer
    data: dict[str, Any] = answer["data"]
    return data


def write_join_conf(
    cluster: LocalCluster, node: int, data: dict[str, Any], token: str = ""
) -> None:
    """What the answer said, in the node's own file."""
    secret, file = cluster.root / f"secret{node}", cluster.root / f"token{node}"
    shutil.copy(cluster.root / "secret1", secret)
    file.write_text(f"{token or data['join_token']}\n")
    for path in (secret, file):
        path.chmod(0o600)
    said = dict(line.split(" = ", 1) for line in data["conf"])
    more = {"cluster_secret_file": secret, "join": said["join"], "join_token_file": file}
    cluster.places.write_conf(node, {"auth_method": said["auth_method"]} | more)


def ends(cluster: LocalCluster, node: int) -> str:
    """What a daemon says that refuses to start."""
    ran = subprocess.run(
        [sys.executable, "-m", "ramd", "--config", str(cluster.places.conf(node))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode != 0
    return ran.stderr


def voters(cluster: LocalCluster) -> set[int]:
    """Who votes, as the cluster shows it; empty while nobody answers."""
    status = cluster.status()
    nodes = status["nodes"] if status else []
    return {int(node["id"]) for node in nodes if node["vote"] == "voter"}


def wait_voters(cluster: LocalCluster, wanted: set[int]) -> None:
    def settled() -> bool:
        status = cluster.status()
        known = {int(node["id"]) for node in status["nodes"]} if status else set()
        return voters(cluster) == known == wanted

    try:
        wait_for(settled, HEAL_S, f"the members are {wanted}, and all vote")
    except AssertionError as error:
        raise AssertionError(f"{error}; last seen: {json.dumps(cluster.status())}") from error
    cluster.wait_healthy(HEAL_S)


def coordinator(cluster: LocalCluster) -> int:
    """Who coordinates, once somebody does."""

    def known() -> int:
        status = cluster.status()
        return int(status["leader_node_id"] or 0) if status else 0  # Raft's word

    return int(wait_for(known, SOON_S, "somebody coordinates") or 0)


def slots(cluster: LocalCluster) -> set[str]:
    sql = "SELECT slot_name FROM pg_replication_slots"
    return {str(name) for (name,) in ask(cluster, primary_of(cluster), sql)}


def removed(cluster: LocalCluster, node: int) -> str:
    """What /health of a removed node says; '' while it does not know."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        data = cluster.api(node, "GET", "/health")[1]["data"]
        return str(data["removed"]) if data["stage"] == "removed" else ""
    return ""


def wait_removed(cluster: LocalCluster, node: int) -> str:
    said = wait_for(lambda: removed(cluster, node), SOON_S, f"node {node} knows it was removed")
    assert said is not None
    assert cluster.processes.postmaster_pid(node) is None
    assert (cluster.places.data_dir(node) / "PG_VERSION").exists()
    assert event(cluster, node, "node_removed") or event(cluster, node, "stays_removed")
    return said


# --- the chapters --------------------------------------------------------------------------------


def test_1_bad_orders_are_refused_by_name(members: LocalCluster) -> None:
    def refused(path: str, body: dict[str, object]) -> str:
        status, code, message = envelope(members.api(2, "POST", path, body))
        assert status in (400, 404, 409), (code, message)
        return message

    assert "the id is used" in refused("/cluster/add-node", {"node_id": 3})
    port = members.ports.raft + 1
    assert f"port {port}" in refused("/cluster/add-node", {"node_id": 4, "raft_port": port})
    assert "loopback only" in refused("/cluster/add-node", {"hostname": "192.0.2.4"})
    assert "is the primary" in refused("/cluster/remove-node", {"node_id": primary_of(members)})
    assert "no node" in refused("/cluster/remove-node", {"node_id": 9})
    assert "votes already" in refused("/cluster/add-voter", {"node_id": 2})
    assert voters(members) == {1, 2, 3}


def test_2_a_wrong_token_or_cluster_lets_nobody_in(members: LocalCluster) -> None:
    data = invite(members, FOUR)
    head, body, proof = data["join_token"].split(".")
    swapped = proof[1:] + proof[0]
    write_join_conf(members, FOUR, data, token=f"{head}.{body}.{swapped}")
    assert "was not made with this cluster's secret" in ends(members, FOUR)
    first = data["join_token"]
    data = invite(members, FOUR)
    write_join_conf(members, FOUR, data, token=first)
    assert "the token was withdrawn, or a newer one was made" in ends(members, FOUR)
    write_join_conf(members, FOUR, data)
    conf = members.places.conf(FOUR)
    conf.write_text(conf.read_text().replace("cluster_name = demo", "cluster_name = other"))
    assert "cluster 'other' meets cluster 'demo'" in ends(members, FOUR)
    assert voters(members) == {1, 2, 3}
    assert not members.places.data_dir(FOUR).exists()
    shutil.rmtree(members.places.state_dir(FOUR))


def test_3_a_node_joins_streams_and_votes_whoever_restarts_meanwhile(members: LocalCluster) -> None:
    acknowledged = write(members, range(1, 11))
    write_join_conf(members, FOUR, invite(members, FOUR))
    members.spawn(FOUR)
    wait_for(lambda: members.places.state_dir(FOUR).exists(), SOON_S, "node 4 has begun")
    for node in (FOUR, coordinator(members)):
        members.processes.kill_daemon(node)
        members.spawn(node)
    wait_voters(members, {1, 2, 3, FOUR})
    same_everywhere(members, acknowledged, (1, 2, 3, FOUR))
    assert f"ramd_node_{FOUR}" in slots(members)


def test_4_after_joining_it_needs_neither_token_nor_seeds(members: LocalCluster) -> None:
    (members.root / f"token{FOUR}").unlink()
    members.processes.stop_daemon(FOUR)
    pid = members.processes.postmaster_pid(FOUR)
    members.spawn(FOUR)
    await_api(members, FOUR)
    wait_voters(members, {1, 2, 3, FOUR})
    assert members.processes.postmaster_pid(FOUR) == pid


def test_5_a_removed_replica_stops_and_says_how_it_comes_back(members: LocalCluster) -> None:
    status, answer = members.api(1, "POST", "/cluster/remove-node", {"name": "node2"}, 60)
    assert status == 200, answer
    said = wait_removed(members, 2)
    assert "ramctrl nodes add --node-id 2" in said
    assert str(members.places.state_dir(2)) in said
    wait_voters(members, {1, 3, FOUR})
    wait_for(lambda: "ramd_node_2" not in slots(members), SOON_S, "its slot is gone")
    members.processes.stop_daemon(2)
    members.spawn(2)
    await_api(members, 2)
    assert wait_removed(members, 2) == said
    members.processes.stop_daemon(2)


def test_6_a_node_whose_state_was_lost_comes_back_as_a_new_member(members: LocalCluster) -> None:
    acknowledged = write(members, range(11, 21))
    state_dir = members.places.state_dir(2)
    state_dir.rename(state_dir.with_name("node2.ramd.lost"))
    said = ends(members, 2)
    assert "ramctrl nodes remove 2" in said
    assert "ramctrl nodes add --node-id 2" in said
    write_join_conf(members, 2, invite(members, 2))
    members.spawn(2)
    wait_voters(members, {1, 2, 3, FOUR})
    same_everywhere(members, acknowledged, (1, 2, 3, FOUR))
    kept = list(members.root.glob("node2.aside-*"))
    assert len(kept) == 1
    assert (kept[0] / "PG_VERSION").exists()


def test_7_a_wiped_disk_is_told_the_commands_and_never_votes(members: LocalCluster) -> None:
    members.kill_node(3)
    shutil.rmtree(members.places.state_dir(3))
    shutil.rmtree(members.places.data_dir(3))
    members.spawn(3)
    await_api(members, 3)
    said = says(members, 3, "formed group", "ramctrl nodes remove 3")
    assert "ramctrl nodes add --node-id 3" in said
    members.processes.stop_daemon(3)
    status, answer = members.api(1, "POST", "/cluster/remove-node", {"node_id": 3}, 60)
    assert status == 200, answer
    wait_voters(members, {1, 2, FOUR})


def test_8_a_dead_member_is_replaced_in_one_change(members: LocalCluster) -> None:
    acknowledged = write(members, range(21, 31))
    members.processes.kill_daemon(FOUR)  # its server goes on streaming, with nobody beside it
    write_join_conf(members, FIVE, invite(members, FIVE, replace="node4"))
    members.spawn(FIVE)
    wait_voters(members, {1, 2, FIVE})
    same_everywhere(members, acknowledged, (1, 2, FIVE))
    wait_for(lambda: f"ramd_node_{FOUR}" not in slots(members), SOON_S, "its slot is gone")
    assert members.processes.postmaster_pid(FOUR) is not None
    members.spawn(FOUR)
    await_api(members, FOUR)
    assert "ramctrl nodes add --node-id 4" in wait_removed(members, FOUR)
