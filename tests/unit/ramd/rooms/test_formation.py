"""A cluster on one host: planned and checked before anything is touched, undone exactly."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from ramd.config.load import load, load_text
from ramd.config.model import Config
from ramd.domain.errors import ConfigError, Refused
from ramd.domain.service import CreateRequest
from ramd.formation import (
    CREATED_MARK,
    Made,
    NodePlan,
    check,
    check_certificate,
    check_own,
    node_settings,
    plan_nodes,
    secret_file,
)
from ramd.postgres.account import choose_account
from tests.support.ports import free_port_block
from tests.support.tls_files import Authority


def configured(root: Path, **more: object) -> Config:
    ports = free_port_block(12)
    values: dict[str, object] = {
        "node_id": 1,
        "postgresql_data_dir": root / "node1",
        "hostname": "127.0.0.1",
        "postgresql_port": ports[0],
        "raft_port": ports[3],
        "http_port": ports[6],
        "prometheus_port": ports[9],
        **more,
    }
    text = "".join(f"{key} = {value}\n" for key, value in values.items())
    return load_text(text, {})


def test_a_certificate_for_node_1_alone_makes_no_cluster_of_three(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")

    def checked_with(*names: str) -> None:
        files = authority.issue("cert", *names)
        config = configured(
            tmp_path,
            ssl_enabled=True,
            ssl_cert_file=files.cert,
            ssl_key_file=files.key,
            ssl_ca_file=files.ca,
        )
        check_certificate(config, plan_nodes(config, CreateRequest(num_nodes=3)))

    with pytest.raises(Refused, match="is not good for node2, node3"):
        checked_with("node1", "localhost")
    checked_with("localhost")
    checked_with("node1", "node2", "node3")


def test_a_secret_that_the_file_names_is_everybodys(tmp_path: Path) -> None:
    given = tmp_path / "secret"
    given.write_text("of-this-cluster-alone\n")
    given.chmod(0o600)
    config = configured(tmp_path, cluster_secret_file=given)
    plans = plan_nodes(config, CreateRequest(num_nodes=2))
    assert Made().write(plans, config) == given
    assert secret_file(plans[1]).read_text() == given.read_text()
    assert not secret_file(plans[0]).exists()


def test_a_secret_that_others_can_read_makes_no_cluster(tmp_path: Path) -> None:
    given = tmp_path / "secret"
    given.write_text("of-this-cluster-alone\n")
    given.chmod(0o600)
    config = configured(tmp_path, cluster_secret_file=given)
    given.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        Made().write(plan_nodes(config, CreateRequest(num_nodes=2)), config)


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def checked(config: Config, plans: tuple[NodePlan, ...]) -> None:
    check(plans, choose_account(config.postgresql_data_dir), frozenset({config.http_port}))


def test_each_port_counts_up_from_node_1(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plans = plan_nodes(config, CreateRequest(num_nodes=3))
    assert [p.member.postgresql_port for p in plans] == [
        config.postgresql_port + n for n in range(3)
    ]
    assert plans[2].member.raft_port == config.raft_port + 2
    assert [p.data_dir.name for p in plans] == ["node1", "node2", "node3"]
    assert plans[1].state_dir == tmp_path / "node2.ramd"


def test_a_data_directory_of_another_name_gets_its_siblings_in_one_folder(tmp_path: Path) -> None:
    config = configured(tmp_path, postgresql_data_dir=tmp_path / "main")
    plans = plan_nodes(config, CreateRequest(num_nodes=2))
    assert plans[0].data_dir == tmp_path / "main"
    assert plans[1].data_dir == tmp_path / "main.cluster" / "node2"


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (CreateRequest(num_nodes=0), "invalid_field", "1 to 9"),
        (CreateRequest(num_nodes=10), "invalid_field", "1 to 9"),
        (CreateRequest(num_nodes=3, replica_ports=(7001,)), "invalid_field", "1 ports for 2"),
        (CreateRequest(num_nodes=2, data_dir="/elsewhere"), "conflict", "/elsewhere/node1"),
        (CreateRequest(num_nodes=2, data_dir="relative"), "invalid_field", "absolute"),
        (CreateRequest(num_nodes=2, replica_ports=(70000,)), "invalid_field", "70000"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    tmp_path: Path, request_: CreateRequest, code: str, words: str
) -> None:
    with pytest.raises(Refused, match=words) as refused:
        plan_nodes(configured(tmp_path), request_)
    assert refused.value.code == code


def test_ports_that_meet_are_refused_by_name(tmp_path: Path) -> None:
    config = configured(tmp_path)
    wanted = CreateRequest(num_nodes=2, replica_ports=(config.raft_port,))
    with pytest.raises(Refused, match=str(config.raft_port)):
        plan_nodes(config, wanted)


def test_only_node_1_creates(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="node 2"):
        plan_nodes(configured(tmp_path, node_id=2), CreateRequest(num_nodes=3))


def test_a_port_in_use_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plans = plan_nodes(config, CreateRequest(num_nodes=3))
    before = listing(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", plans[2].member.raft_port))
        taken.listen()
        with pytest.raises(Refused, match=f"{plans[2].member.raft_port}.*in use") as refused:
            checked(config, plans)
    assert refused.value.code == "port_in_use"
    assert listing(tmp_path) == before


def test_a_foreign_directory_is_refused_and_not_touched(tmp_path: Path) -> None:
    config = configured(tmp_path)
    plans = plan_nodes(config, CreateRequest(num_nodes=3))
    (tmp_path / "node3").mkdir()
    (tmp_path / "node3" / "letters").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(Refused, match="letters") as refused:
        checked(config, plans)
    assert refused.value.code == "foreign_directory"
    assert listing(tmp_path) == before


def test_the_files_of_the_other_nodes_list_everybody_and_load(tmp_path: Path) -> None:
    config = configured(tmp_path, initdb_options="--no-sync")
    plans = plan_nodes(config, CreateRequest(num_nodes=3))
    made = Made()
    config.state_dir.mkdir()
    made.write(plans, config)
    for plan in plans[1:]:
        other = load(plan.conf_file, {})
        assert other.node_id == plan.member.node_id
        assert [m.raft_port for m in other.members()] == [p.member.raft_port for p in plans]
        assert other.initdb_options == ("--no-sync",)
        assert (plan.state_dir / CREATED_MARK).exists()
    secrets = {secret_file(plan).read_text() for plan in plans}
    assert len(secrets) == 1
    assert secret_file(plans[1]).stat().st_mode & 0o077 == 0


def test_undo_removes_what_was_made_and_nothing_else(tmp_path: Path) -> None:
    config = configured(tmp_path)
    config.state_dir.mkdir()
    (config.state_dir / "ramd.pid").write_text("1\n")
    (tmp_path / "node1").mkdir()
    (tmp_path / "node1" / "PG_VERSION").write_text("18\n")
    (tmp_path / "node2.clone-tmp").mkdir()
    (tmp_path / "node2.clone-tmp" / "photo.jpg").write_text("not made by create")
    before = listing(tmp_path)
    plans = plan_nodes(config, CreateRequest(num_nodes=3))
    made = Made()
    made.write(plans, config)
    (tmp_path / "node2").mkdir()
    (tmp_path / "node2" / "base").write_text("half a clone")
    (tmp_path / "node3.clone-tmp").mkdir()
    (tmp_path / "node3.clone-tmp" / "base").write_text("half a clone")
    assert listing(tmp_path) != before
    made.undo()
    assert listing(tmp_path) == before


def test_a_daemon_that_ends_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path)
    config.state_dir.mkdir()
    plans = plan_nodes(config, CreateRequest(num_nodes=2))
    made = Made()
    made.write(plans, config)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    made.launch(plans[1])
    made.daemons[0].wait(timeout=10)
    fallen = made.fallen()
    made.undo()
    assert fallen == (0, 1)


def test_node_1s_own_directory_is_empty_or_a_servers(tmp_path: Path) -> None:
    own = tmp_path / "node1"
    check_own(own)
    own.mkdir()
    check_own(own)
    (own / "PG_VERSION").write_text("18\n")
    with pytest.raises(Refused, match="PG_VERSION") as half:
        check_own(own)
    assert half.value.code == "foreign_directory"
    (own / "global").mkdir()
    (own / "global" / "pg_control").write_bytes(b"\0")
    check_own(own)


def test_started_daemons_log_each_line_once(tmp_path: Path) -> None:
    """Their standard error goes to their log file too."""
    config = configured(tmp_path)
    plans = plan_nodes(config, CreateRequest(num_nodes=2))
    settings = node_settings(plans[1], plans, config)
    assert settings["log_to_console"] is False
    assert settings["log_file"] == plans[1].log_file
