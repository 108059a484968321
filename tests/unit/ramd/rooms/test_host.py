"""The host of a runtime: what goes wrong at the end of a cluster is not lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
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
from ramd.domain.errors import ConfigError, Refused
from ramd.domain.model import ClusterState, Invitation, Removal
from ramd.domain.service import Stage
from ramd.execute.local import LocalStore, Unproven
from ramd.host import Daemon, Host
from ramd.link import RAFT_DIR
from ramd.members import removed, token
from ramd.membership import founding_members, save_members
from ramd.postgres.conf import MARK
from ramd.runtime import End, Runtime
from tests.support.fake_consensus import cluster, member


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
            view=lambda: None,
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


# --- joining and being removed ---------------------------------------------------------------


def joining_four(folder: Path) -> Config:
    """The file of a node 4 that is to join."""
    for name in ("secret", "token"):
        (folder / name).write_text("sixteen-letters-or-more-and-even-more")
        (folder / name).chmod(0o600)
    text = f"""
node_id = 4
cluster_name = demo
postgresql_data_dir = {folder / "data"}
cluster_secret_file = {folder / "secret"}
join = localhost:7401
join_token_file = {folder / "token"}
"""
    return load_text(text, {})


def hosting(config: Config) -> Host:
    return Host(Daemon(config=config, version="0", started_ns=0, stop=lambda _why: None))


async def enter_in_vain(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def given_up(_around: Surroundings, **_: object) -> Runtime:
        raise Refused("given up while forming")

    monkeypatch.setattr(Runtime, "open", given_up)
    with pytest.raises(Refused, match="forming"):
        await hosting(config).enter((), secret_file(config))


@pytest.mark.parametrize("marked", [False, True])
async def test_who_joins_trusts_no_directory_that_its_state_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    config = joining_four(tmp_path)
    config.state_dir.mkdir()
    config.postgresql_data_dir.mkdir()
    (config.postgresql_data_dir / "postgresql.conf").write_text(MARK if marked else "port = 1")
    await enter_in_vain(config, monkeypatch)
    found = LocalStore.load(config.state_dir).record.unproven
    assert found is (Unproven.FOUND if marked else Unproven.NO)
    assert founding_members(config) == (config.own_member(),)


def test_a_file_that_says_whom_to_join_expects_a_cluster(tmp_path: Path) -> None:
    assert hosting(joining_four(tmp_path)).expects_cluster()
    alone = load_text(f"postgresql_data_dir = {tmp_path}/data\n", {})
    assert not hosting(alone).expects_cluster()


async def test_a_removed_node_ends_its_part_and_stays_out(tmp_path: Path) -> None:
    config = joining_four(tmp_path)
    config.state_dir.mkdir()
    host = hosting(config)
    host.runtime = cast(
        Any,
        SimpleNamespace(
            ended=End.REMOVED,
            state=ClusterState(cluster_name="demo"),
            heard=(),
            status=SimpleNamespace(me=4, removed="its own log says so"),
            link=SimpleNamespace(lease=lambda: (0, 0)),
            view=lambda: None,
        ),
    )
    host._beaten()
    ending = host._ending
    assert ending is not None
    await ending
    facts = host.picture.daemon
    assert facts.stage is Stage.REMOVED
    assert "was removed from cluster demo" in facts.forming_text
    assert "ramctrl nodes add --node-id 4" in facts.forming_text
    again = hosting(config)
    assert not again.expects_cluster()
    assert again.picture.daemon.forming_text == facts.forming_text
    with pytest.raises(Refused):
        await again.enter((), secret_file(config))
    (config.state_dir / removed.FILE_NAME).write_text("{}")
    assert "was removed from cluster demo" in advice_of(config)
    config.state_dir.rename(tmp_path / "aside")
    assert hosting(config).expects_cluster()


def advice_of(config: Config) -> str:
    host = hosting(config)
    assert not host.expects_cluster()
    return host.picture.daemon.forming_text


# --- the token of the file ---------------------------------------------------------------------


def token_of(config: Config) -> str:
    around = Surroundings(
        config=config,
        members=(),
        secret_file=secret_file(config),
        version="0",
        clock=lambda: 0,
        unix_ms=lambda: 0,
    )
    joining = group_options(around, 1, 0).joining
    assert joining is not None
    assert (joining.seeds, joining.address) == (("localhost:7401",), "localhost:7400")
    return joining.token()


def test_a_token_is_judged_before_anybody_is_asked(tmp_path: Path) -> None:
    config = joining_four(tmp_path)
    with pytest.raises(ConfigError, match="no join token of this version"):
        token_of(config)
    for node_id in (4, 5):
        invitation = Invitation(member=member(node_id), nonce="n", expires_unix_ms=9)
        text = token.make(b"sixteen-letters-or-more", "c1", invitation)
        (tmp_path / "token").write_text(text + "\n")
        if node_id == 4:
            assert token_of(config) == text
        else:
            with pytest.raises(ConfigError, match="is the token of node 5"):
                token_of(config)
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        token_of(config)


def test_a_coordinator_judges_tokens_by_its_own_secret(tmp_path: Path) -> None:
    config = joining_four(tmp_path)
    around = Surroundings(
        config=config,
        members=(),
        secret_file=secret_file(config),
        version="0",
        clock=lambda: 0,
        unix_ms=lambda: 8,
    )
    judge = group_options(around, 1, 0).judge
    assert judge is not None
    invitation = Invitation(member=member(5), nonce="n", expires_unix_ms=9)
    state = replace(cluster(), invitations=(invitation,))
    text = token.make(b"sixteen-letters-or-more-and-even-more", "c1", invitation)
    assert judge(state, 5, "host5:7405", text) == ""
    assert judge(state, 5, "host5:7406", text).startswith("token_address: ")
