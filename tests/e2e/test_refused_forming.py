"""Nodes that do not belong together do not form a cluster, and say whose fault it is."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from ramd.postgres.make import initdb
from ramd.postgres.site import open_site
from tests.e2e.test_formation import listed, says
from tests.support.cluster_stories import SOON_S, Clusters, listing
from tests.support.postgres import plain_options
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster, await_api

PAIR = (1, 2)


def start_all(cluster: LocalCluster) -> None:
    for node in PAIR:
        cluster.spawn(node)
    for node in PAIR:
        await_api(cluster, node)


def no_data(cluster: LocalCluster) -> bool:
    return not any(cluster.places.data_dir(node).exists() for node in PAIR)


def test_another_secret_is_refused_by_name(clusters: Clusters) -> None:
    cluster = listed(clusters, PAIR)
    (cluster.root / "secret2").write_text("another-secret-long-enough\n")
    start_all(cluster)
    for node in PAIR:
        said = says(cluster, node, "secret")
        assert "secret" in said
        assert f"node {3 - node}" in said
    assert no_data(cluster)


def test_another_list_is_refused_by_name(clusters: Clusters) -> None:
    cluster = listed(clusters, PAIR)
    conf = cluster.places.conf(2)
    wrong = f"node_1_port = {cluster.ports.raft + 3}"
    right = f"node_1_raft_port = {cluster.ports.raft}"
    assert right in conf.read_text()
    conf.write_text(conf.read_text().replace(right, wrong.replace("_port", "_raft_port")))
    start_all(cluster)
    said = says(cluster, 1, "node 2", "list")
    assert str(cluster.ports.raft + 3) in said
    assert no_data(cluster)


def test_another_cluster_name_is_refused_by_name(clusters: Clusters) -> None:
    cluster = listed(clusters, PAIR, cluster_name={2: "other"})
    start_all(cluster)
    says(cluster, 1, "node 2", "other", "demo")
    assert no_data(cluster)


def old_server(data_dir: Path) -> None:
    """A fresh data directory that nobody has adopted yet."""
    site = open_site(plain_options(data_dir.parent / "old", 1, 1), bin_dir=None)
    asyncio.run(initdb(site))
    site.data_dir.rename(data_dir)
    shutil.rmtree(data_dir.parent / "old")


def test_two_data_directories_are_one_too_many(clusters: Clusters) -> None:
    cluster = listed(clusters, PAIR)
    for node in PAIR:
        old_server(cluster.places.data_dir(node))
    before = [listing(cluster.places.data_dir(node)) for node in PAIR]
    start_all(cluster)

    def reason() -> str:
        status = cluster.status()
        return str(status["reason"]) if status else ""

    wait_for(lambda: "only one may keep its own" in reason(), SOON_S, "both are named")
    assert "node 1, 2" in reason()
    status = cluster.status()
    assert status is not None
    assert status["primary_node_id"] is None
    assert [listing(cluster.places.data_dir(node)) for node in PAIR] == before


def test_another_node_with_a_members_number_is_refused(clusters: Clusters) -> None:
    """The same node_id with a state directory of its own: a stranger, whatever it says."""
    cluster = listed(clusters, PAIR)
    start_all(cluster)
    cluster.wait_healthy(SOON_S * 3)
    stranger = clusters.make(own_confs=True)
    text = cluster.places.conf(2).read_text()
    for key in ("http_port", "raft_port", "node_2_http_port", "node_2_raft_port"):
        theirs, mine = (getattr(c.ports, key.split("_")[-2]) + 1 for c in (cluster, stranger))
        assert f"\n{key} = {theirs}\n" in text
        text = text.replace(f"\n{key} = {theirs}\n", f"\n{key} = {mine}\n")
    text = text.replace(str(cluster.places.data_dir(2)), str(stranger.places.data_dir(2)))
    text = text.replace(str(cluster.places.log(2).parent), str(stranger.places.log(2).parent))
    stranger.places.log(2).parent.mkdir(parents=True)
    stranger.places.conf(2).write_text(text)
    stranger.spawn(2)
    await_api(stranger, 2)
    says(stranger, 2, "refused")
    assert not stranger.places.data_dir(2).exists()
    cluster.wait_healthy(SOON_S)
