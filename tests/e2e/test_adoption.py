"""A server that was there before: its data directory becomes node 1's, its rows everybody's."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ramd.postgres.make import initdb
from ramd.postgres.site import Site, open_site
from tests.support.cluster_stories import (
    HEAL_S,
    SOON_S,
    Clusters,
    ask,
    listing,
    processes_of,
    same_everywhere,
    write,
)
from tests.support.postgres import plain_options
from tests.support.wait import wait_for
from tools.local_cluster import LocalCluster

ROWS = set(range(1, 51))
MAKE_TABLE = """CREATE TABLE story(row bigint PRIMARY KEY);

INSERT INTO story SELECT generate_series(1, 50);

CHECKPOINT;

"""


def old_server(data_dir: Path) -> Site:
    """A data directory with the rows in it, made by hand; no server runs on it."""
    site = open_site(plain_options(data_dir.parent / "old", 1, 1), bin_dir=None)
    asyncio.run(initdb(site))
    site.data_dir.rename(data_dir)
    shutil.rmtree(data_dir.parent / "old")
    account = site.account
    drop = account.uid if os.geteuid() == 0 else None
    subprocess.run(
        [site.binaries.tool("postgres"), "--single", "-j", "-D", str(data_dir), "postgres"],
        input=MAKE_TABLE,
        text=True,
        check=True,
        capture_output=True,
        timeout=60,
        cwd="/",
        user=drop,
        group=account.gid if drop else None,
        extra_groups=[] if drop else None,
    )
    return site


def own(data_dir: Path, name: str) -> str:
    return (data_dir / name).read_text()


@pytest.fixture(scope="module")
def adopting(clusters: Clusters) -> LocalCluster:
    """A daemon whose file names a data directory that is there already."""
    cluster = clusters.make()
    old_server(cluster.places.data_dir(1))
    cluster.start()
    return cluster


def test_a_failed_create_leaves_the_old_server_as_it_was(adopting: LocalCluster) -> None:
    data_dir = adopting.places.data_dir(1)
    foreign = adopting.places.data_dir(2)
    foreign.mkdir()
    (foreign / "photo.jpg").write_text("dear")
    before = listing(adopting.root)
    status, answer = adopting.api(1, "POST", "/cluster/create", {"num_nodes": 2})
    assert (status, answer["error"]) == (409, "foreign_directory")
    assert listing(adopting.root) == before
    assert "ramd" not in own(data_dir, "postgresql.conf")
    (foreign / "photo.jpg").unlink()
    foreign.rmdir()


def test_a_create_that_fails_after_the_adoption_gives_the_old_server_back(
    adopting: LocalCluster,
) -> None:
    """Node 2's daemon dies when node 1 has begun to adopt; the next story creates again."""
    data_dir = adopting.places.data_dir(1)
    before, alive = processes_of(adopting), listing(adopting.root)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(adopting.api, 1, "POST", "/cluster/create", {"num_nodes": 2}, 180)
        wait_for(lambda: "ramd" in own(data_dir, "postgresql.conf"), SOON_S, "the adoption began")
        adopting.processes.kill_daemon(2)
        assert answer.result()[0] == 503
    assert "ramd" not in own(data_dir, "postgresql.conf")
    assert not (data_dir / "standby.signal").exists()
    assert not (data_dir / "postmaster.pid").exists()
    wait_for(lambda: processes_of(adopting) == before, SOON_S, "only node 1's daemon is left")
    mine = f"{data_dir.relative_to(adopting.root)}/"
    others = {name for name in listing(adopting.root) if not name.startswith(mine)}
    assert others == {name for name in alive if not name.startswith(mine)}


def test_create_adopts_the_old_server_and_replicas_get_its_rows(adopting: LocalCluster) -> None:
    before = listing(adopting.places.data_dir(1) / "base")
    assert before
    answer = adopting.create(2)
    assert answer["primary_node"] == 1
    same_everywhere(adopting, ROWS | write(adopting, range(100, 110)), nodes=(1, 2))
    systems = {
        ask(adopting, node, "SELECT system_identifier FROM pg_control_system()")[0]
        for node in (1, 2)
    }
    assert len(systems) == 1
    assert not list(adopting.root.glob("*.aside-*"))


def test_data_of_another_system_is_named_and_left_alone(adopting: LocalCluster) -> None:
    """Somebody puts another server's directory where the replica's was."""
    data_dir = adopting.places.data_dir(2)
    adopting.kill_node(2)
    kept = adopting.root / "kept"
    data_dir.rename(kept)
    old_server(data_dir)
    before = listing(data_dir / "base")
    adopting.spawn(2)

    def trouble() -> str:
        status = adopting.status()
        nodes = status["nodes"] if status else []
        return next((str(n["trouble"]) for n in nodes if n["id"] == 2), "")

    wait_for(lambda: "system" in trouble(), SOON_S, "the culprit is named")
    assert listing(data_dir / "base") == before
    adopting.kill_node(2)
    data_dir.rename(adopting.root / "other")
    kept.rename(data_dir)
    adopting.spawn(2)
    wait_for(lambda: adopting.processes.postmaster_pid(2) is not None, HEAL_S, "its server")
    adopting.wait_healthy(HEAL_S)
