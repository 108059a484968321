"""Two of three hosts are lost for good: a person has the third go on alone, and the old ones, when
they come back, are refused, say why, and join anew."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.test_formation import listed
from tests.e2e.test_members import wait_removed, wait_voters
from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    Clusters,
    ask,
    epoch_of,
    make_table,
    primary_of,
    replicas_of,
    rows_on,
    same_everywhere,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api

RECOVER_S = 120.0


@pytest.fixture
def cluster(clusters: Clusters) -> LocalCluster:
    """A healthy cluster of its own, as over three hosts: what is done to it cannot be undone."""
    made = listed(clusters)
    for node in NODES:
        made.spawn(node)
    for node in NODES:
        await_api(made, node)
    made.wait_healthy(HEAL_S)
    make_table(made)
    return made


def join_anew(cluster: LocalCluster, node: int, survivor: int) -> None:
    """What an operator does with an old member: everything off, its state aside, invited again."""
    cluster.kill_node(node)
    state_dir = cluster.places.state_dir(node)
    state_dir.rename(state_dir.with_name(f"{state_dir.name}.old"))
    own = cluster.places.settings(node)
    body = {
        "node_id": node,
        "hostname": own["hostname"],
        "port": own["postgresql_port"],
        "raft_port": own["raft_port"],
        "http_port": own["http_port"],
    }
    status, answer = cluster.api(survivor, "POST", "/cluster/add-node", body)
    assert status == 201, answer
    data = answer["data"]
    token = cluster.root / f"token{node}"
    token.touch(mode=0o600)
    token.write_text(f"{data['join_token']}\n")
    said = dict(line.split(" = ", 1) for line in data["conf"])
    cluster.places.write_conf(
        node,
        {
            "auth_method": said["auth_method"],
            "cluster_secret_file": cluster.root / f"secret{node}",
            "join": said["join"],
            "join_token_file": token,
        },
    )
    cluster.spawn(node)


def ramctrl(cluster: LocalCluster, node: int, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line against a node's daemon."""
    port = str(cluster.ports.http + node - 1)
    command = [sys.executable, "-m", "ramctrl", *words, "--port", port]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=RECOVER_S)


def group_of(cluster: LocalCluster, node: int) -> dict[str, object]:
    """What a node's daemon knows of its group; {} while it does not answer."""
    try:
        code, answer = cluster.api(node, "GET", "/quorum/status")
    except OSError:
        return {}
    return dict(answer["data"]) if code == 200 else {}


def refused(cluster: LocalCluster, node: int, code: str) -> bool:
    """A node has refused a daemon, or was refused, with this code."""
    counted = group_of(cluster, node).get("connections_refused", {})
    return isinstance(counted, dict) and counted.get(code, 0) > 0


def told_that_they_are_out(cluster: LocalCluster, survivor: int, lost: tuple[int, ...]) -> None:
    """The survivor has counted that it refused them, and they say what brings them back."""
    wait_for(lambda: refused(cluster, survivor, "removed"), HEAL_S, "it has refused them")
    wait_for(
        lambda: all("ramctrl nodes add" in cluster.last_words(node) for node in lost),
        HEAL_S,
        "what brings them back is said",
    )


def lose(cluster: LocalCluster, *nodes: int) -> None:
    for node in nodes:
        cluster.kill_node(node)


def without_coordinator(cluster: LocalCluster, node: int) -> bool:
    return group_of(cluster, node).get("leader_node_id", 0) is None


def recovered(cluster: LocalCluster, survivor: int, *off: int) -> dict[str, object]:
    """Recover on `survivor`, whose other members are confirmed to be off."""
    # Connections to hosts that died a moment ago still count as answering: the plan is refused.
    wait_for(
        lambda: ramctrl(cluster, survivor, "quorum", "recover").returncode == 0,
        HEAL_S,
        "the majority is missed",
    )
    names = ",".join(f"node{node}" for node in off)
    confirmed = ("--cluster-name", "demo", "--confirmed-off", names)
    ran = ramctrl(cluster, survivor, "--json", "quorum", "recover", "--yes", *confirmed)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return dict(json.loads(ran.stdout)["data"])


def refuses_by_halves(cluster: LocalCluster, survivor: int, lost: tuple[int, ...]) -> None:
    """The plan changes nothing, and a confirmation that lacks a voter is none."""
    # Between two coordinators a quorum counts as lost after the time of an election.
    wait_for(
        lambda: ramctrl(cluster, survivor, "quorum", "status").returncode == 2, HEAL_S, "no quorum"
    )
    plan = ramctrl(cluster, survivor, "quorum", "recover")
    assert plan.returncode == 0
    assert "nothing was done" in plan.stdout
    one = ("--cluster-name", "demo", "--confirmed-off", f"node{lost[0]}")
    half = ramctrl(cluster, survivor, "quorum", "recover", "--yes", *one)
    assert half.returncode == 2
    assert "exactly the other voters" in half.stderr


def test_a_replica_goes_on_alone_and_the_old_members_are_refused(cluster: LocalCluster) -> None:
    primary = primary_of(cluster)
    survivor = max(replicas_of(cluster))
    lost = tuple(node for node in NODES if node != survivor)
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    old_epoch = epoch_of(cluster)
    busy = ramctrl(cluster, survivor, "quorum", "recover")
    assert busy.returncode == 5
    assert "there is a quorum" in busy.stderr
    lose(cluster, *lost)
    wait_for(lambda: without_coordinator(cluster, survivor), HEAL_S, "the majority is missed")
    refuses_by_halves(cluster, survivor, lost)
    data = recovered(cluster, survivor, *lost)
    assert data["recovered"] is True
    assert data["primary_node_id"] == survivor
    assert data["last_primary_node_id"] == primary
    after = write(cluster, range(11, 21))
    assert rows_on(cluster, survivor) == before | after
    assert epoch_of(cluster) > old_epoch
    group = group_of(cluster, survivor)
    assert (group["voters"], group["has_quorum"]) == (1, True)
    assert group["cluster_id"] == group["group_id"] == data["new_cluster_id"]
    assert group["cluster_status"] == "healthy"
    slots = "SELECT slot_name FROM pg_replication_slots"
    wait_for(lambda: ask(cluster, survivor, slots) == [], HEAL_S, "no WAL is kept for the lost")
    cluster.wait_healthy(HEAL_S)

    # Both old ones come back at once: a majority of the old group. Each dials the survivor, is told
    # with a proof that it is out, stops its server, and says what brings it back.
    for node in lost:
        cluster.spawn(node)
    for node in lost:
        wait_removed(cluster, node)
    told_that_they_are_out(cluster, survivor, lost)
    assert [cluster.processes.postmaster_pid(node) for node in lost] == [None, None]
    after |= write(cluster, range(21, 31))
    assert rows_on(cluster, survivor) == before | after

    # One does what it was told, and is a member like any other.
    back = lost[0]
    join_anew(cluster, back, survivor)
    wait_voters(cluster, {survivor, back})
    rows = before | after | write(cluster, range(31, 41))
    same_everywhere(cluster, rows, (survivor, back))
    assert group_of(cluster, back)["group_id"] == data["new_cluster_id"]


def test_the_primary_goes_on_alone_and_loses_nothing(cluster: LocalCluster) -> None:
    primary, epoch = primary_of(cluster), epoch_of(cluster)
    server = cluster.processes.postmaster_pid(primary)
    before = write(cluster, range(1, 11))
    lost = tuple(node for node in NODES if node != primary)
    lose(cluster, *lost)
    data = recovered(cluster, primary, *lost)
    assert data["primary_node_id"] == primary
    rows = write(cluster, range(11, 21))
    assert rows_on(cluster, primary) == before | rows
    assert epoch_of(cluster) == epoch, "nobody had to be promoted"
    assert cluster.processes.postmaster_pid(primary) == server, "its server was not touched"
    # The new group survives a restart of its daemon, which still lists three nodes in its file.
    cluster.processes.stop_daemon(primary)
    cluster.spawn(primary)
    cluster.wait_healthy(HEAL_S)
    assert group_of(cluster, primary)["group_id"] == data["new_cluster_id"]
