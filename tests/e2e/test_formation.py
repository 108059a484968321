"""Forming from configuration, as on several hosts: every node has a file that lists them all."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys

import pytest

from tests.support.cluster_stories import (
    HEAL_S,
    NODES,
    NODES_MAX,
    SOON_S,
    Clusters,
    listing,
    make_table,
    one_lineage,
    primary_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api


def listed(
    clusters: Clusters,
    nodes: tuple[int, ...] = NODES,
    room: int = NODES_MAX,
    **own: dict[int, object],
) -> LocalCluster:
    """Files of all nodes with the same list and the same secret; `own`: key → value by node.
    `room`: how many nodes there are ports for."""
    cluster = clusters.make(own_confs=True, nodes=room)
    places = cluster.places
    secret = secrets.token_hex(32)
    entries: dict[str, object] = {}
    for node in nodes:
        said = places.settings(node)
        entries |= {
            f"node_{node}_hostname": said["hostname"],
            f"node_{node}_port": said["postgresql_port"],
            f"node_{node}_raft_port": said["raft_port"],
            f"node_{node}_http_port": said["http_port"],
        }
    for node in nodes:
        file = cluster.root / f"secret{node}"
        file.write_text(secret + "\n")
        file.chmod(0o600)
        more = entries | {"cluster_secret_file": file}
        places.write_conf(node, more | {k: v[node] for k, v in own.items() if node in v})
    return cluster


def forming(cluster: LocalCluster, node: int) -> str:
    """What a node's daemon waits for, in its own words; '' once it has formed."""
    with contextlib.suppress(OSError):
        return str(cluster.api(node, "GET", "/health")[1]["data"]["forming"])
    return "no answer"


def says(cluster: LocalCluster, node: int, *words: str) -> str:
    """What a node's daemon says, once every one of the words is in it."""

    def said() -> str:
        text = forming(cluster, node)
        return text if all(word in text for word in words) else ""

    try:
        return wait_for(said, SOON_S, f"node {node} says {words}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it says: {forming(cluster, node)}") from error


@pytest.fixture(scope="module")
def hosts(clusters: Clusters) -> LocalCluster:
    """Three daemons started in another order than their numbers, the last one later."""
    cluster = listed(clusters, nofailover={3: "true"})
    for node in (3, 1):
        cluster.spawn(node)
    for node in (3, 1):
        await_api(cluster, node)
    says(cluster, 1, "node 2")
    cluster.spawn(2)
    cluster.wait_healthy(HEAL_S)
    make_table(cluster)
    return cluster


def test_daemons_started_in_any_order_form_the_cluster_they_list(hosts: LocalCluster) -> None:
    assert primary_of(hosts) == 1
    same_everywhere(hosts, write(hosts, range(1, 11)))
    assert one_lineage(hosts) == 1
    status, answer = hosts.api(2, "POST", "/cluster/create", {"num_nodes": 3})
    assert (status, answer["error"]) == (409, "cluster_exists")


def test_a_node_tagged_nofailover_is_no_target(hosts: LocalCluster) -> None:
    def tagged() -> bool:
        status = hosts.status()
        return status is not None and bool(status["nodes"][2]["nofailover"])

    wait_for(tagged, SOON_S, "the group knows what node 3's own file says")
    body = {"target_node": 3}
    status, answer = hosts.api(1, "POST", "/cluster/failover", body, timeout_s=60)
    assert (status, answer["error"]) == (409, "no_candidate"), answer
    assert "nofailover" in answer["message"]
    assert primary_of(hosts) == 1


def test_a_second_daemon_with_the_same_state_directory_is_refused(hosts: LocalCluster) -> None:
    conf = hosts.places.state_dir(2) / "postgresql.ramd.conf"
    # It is written once more when a synchronous set has begun.
    wait_for(lambda: "ramd_node_nobody" in conf.read_text(), HEAL_S, "replicas block by themselves")
    before = listing(hosts.places.state_dir(2), ignore=("log", "lease", "raft", "local.json"))
    started = subprocess.run(
        [sys.executable, "-m", "ramd", "--config", str(hosts.places.conf(2))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode != 0
    assert f"process {hosts.processes.daemon_pid(2)}" in started.stderr
    assert len(started.stderr.strip().splitlines()) <= 2
    after = listing(hosts.places.state_dir(2), ignore=("log", "lease", "raft", "local.json"))
    assert after == before


def test_a_blank_node_that_meets_a_formed_group_is_told_how_it_is_added(
    hosts: LocalCluster,
) -> None:
    """Its state is lost; with its data too it would have to be added as a new member."""
    hosts.kill_node(3)
    state_dir, data_dir = hosts.places.state_dir(3), hosts.places.data_dir(3)
    state_dir.rename(hosts.root / "kept.ramd")
    data_dir.rename(hosts.root / "kept")
    hosts.spawn(3)
    said = says(hosts, 3, "refused")
    assert "add" in said
    assert not data_dir.exists()
    assert primary_of(hosts) == 1


def test_blank_state_beside_a_members_data_never_founds_a_group(hosts: LocalCluster) -> None:
    hosts.kill_node(3)
    state_dir, data_dir = hosts.places.state_dir(3), hosts.places.data_dir(3)
    state_dir.rename(hosts.root / "blank.ramd")
    (hosts.root / "kept").rename(data_dir)
    before = listing(data_dir, ignore=("pg_stat",))
    hosts.spawn(3)
    status = wait_for(lambda: hosts.processes.exit_status(3), SOON_S, "the daemon ends")
    assert status != 0
    assert str(state_dir) in hosts.last_words(3)
    assert listing(data_dir, ignore=("pg_stat",)) == before


def test_with_its_state_back_it_is_the_member_it_was(hosts: LocalCluster) -> None:
    state_dir = hosts.places.state_dir(3)
    if state_dir.exists():
        state_dir.rename(hosts.root / "blank2.ramd")
    (hosts.root / "kept.ramd").rename(state_dir)
    hosts.spawn(3)
    wait_for(lambda: hosts.processes.postmaster_pid(3) is not None, HEAL_S, "its server")
    hosts.wait_healthy(HEAL_S)
    same_everywhere(hosts, write(hosts, range(11, 21)))


def test_a_changed_list_is_only_compared_once_the_group_exists(hosts: LocalCluster) -> None:
    conf = hosts.places.conf(2)
    text = conf.read_text()
    port = hosts.ports.raft + 2
    assert f"node_3_raft_port = {port}" in text
    conf.write_text(text.replace(f"node_3_raft_port = {port}", f"node_3_raft_port = {port + 1}"))
    hosts.processes.stop_daemon(2)
    hosts.start(2)
    wait_new_epoch(hosts, 0)
    assert "node 3 is listed" in hosts.places.log(2).read_text()
    same_everywhere(hosts, write(hosts, range(21, 31)))
