"""The host of a runtime: what goes wrong at the end of a cluster is not lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgraft.core.types import NodeId
from pgraft.storage import identity_file
from pgraft.storage.disk import OsDisk
from ramd.assembly import Surroundings, group_options
from ramd.config.load import load_text
from ramd.config.model import Config
from ramd.daemon import secret_file
from ramd.domain.errors import Refused
from ramd.domain.model import ClusterState, Removal
from ramd.host import Daemon, Host
from ramd.link import RAFT_DIR
from ramd.membership import founding_members, save_members
from ramd.runtime import End, Runtime


async def test_an_end_that_cannot_clear_up_ends_the_daemon(tmp_path: Path) -> None:
    text = f"node_id = 1\nnode_name = here\npostgresql_data_dir = {tmp_path / 'data'}\n"
    config = load_text(text, {})
    (config.state_dir / "local.json").mkdir(parents=True)  # cannot be unlinked
    stopped: list[str] = []
    host = Host(Daemon(config=config, version="0", started_ns=0, stop=stopped.append))
    state = ClusterState(cluster_name="demo", removal=Removal(remove_data=False))
    host.runtime = cast(
        Any,
        SimpleNamespace(
            ended=End.DESTROYED,
            state=state,
            heard=(),
            status=SimpleNamespace(me=1),
            link=SimpleNamespace(lease=lambda: (0, 0)),
        ),
    )
    host._beaten()
    with pytest.raises(OSError, match=r"local\.json"):
        async with asyncio.timeout(30):
            await host.run()


def listing_two(folder: Path, port_of_2: int, own_raft_port: int = 7400) -> Config:
    """Node 1's file of a cluster of two hosts."""
    secret = folder / "secret"
    secret.write_text("sixteen-letters-or-more")
    secret.chmod(0o600)
    text = f"""
node_id = 1
cluster_size = 2
hostname = a.example
postgresql_data_dir = {folder / "data"}
cluster_secret_file = {secret}
raft_port = {own_raft_port}
node_1_hostname = a.example
node_1_raft_port = {own_raft_port}
node_2_hostname = b.example
node_2_port = {port_of_2}
"""
    return load_text(text, {})


async def give_up_forming(config: Config) -> None:
    """Enter, as a daemon does that waits in vain for node 2, and end."""
    host = Host(Daemon(config=config, version="0", started_ns=0, stop=lambda _why: None))
    with pytest.raises(Refused, match="forming"):
        await host.enter(config.members(), secret_file(config))


async def test_the_list_counts_as_it_is_until_the_group_is_founded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong list is corrected in the file before anybody has voted."""

    async def blank_then_given_up(around: Surroundings, **_: object) -> Runtime:
        disk = OsDisk(around.config.state_dir / RAFT_DIR)
        identity_file.load_or_create(disk, NodeId(1), around.config.cluster_name, ())
        raise Refused("given up while forming")

    monkeypatch.setattr(Runtime, "open", blank_then_given_up)
    wrong, right = listing_two(tmp_path, 5555), listing_two(tmp_path, 5433)
    wrong.state_dir.mkdir()
    (wrong.state_dir / RAFT_DIR).mkdir()
    await give_up_forming(wrong)
    await give_up_forming(right)
    assert [m.postgresql_port for m in founding_members(right)][1] == 5433


def test_a_member_listens_where_the_group_was_told(tmp_path: Path) -> None:
    config = listing_two(tmp_path, 5433)
    config.state_dir.mkdir()
    save_members(config.state_dir, config.members())
    changed = listing_two(tmp_path, 5433, own_raft_port=7999)
    around = Surroundings(
        config=changed,
        members=changed.members(),
        secret_file=secret_file(changed),
        version="0",
        clock=lambda: 0,
        unix_ms=lambda: 0,
    )
    assert group_options(around, 1, 0).listen.endswith(":7400")
