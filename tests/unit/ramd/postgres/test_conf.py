"""The text of the server's configuration files."""

from __future__ import annotations

from pathlib import Path

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.errors import ConfigError
from ramd.domain.server import Upstream
from ramd.postgres.conf import (
    OWNED,
    peer_conninfo,
    read_upstream,
    render,
    with_include,
    without_owned,
    write_all,
)
from ramd.postgres.hba import render_hba
from ramd.postgres.quote import conf_value, conninfo, hba_name, literal
from ramd.postgres.settings import parse_settings
from tests.support.site import site_at

UPSTREAM = Upstream(node_id=2, host="db two", port=5433)


def test_a_sealed_server_has_no_source_at_all(tmp_path: Path) -> None:
    settings = parse_settings(render(site_at(tmp_path), None, {}))
    sources = ("primary_conninfo", "primary_slot_name", "restore_command")
    assert [settings[name] for name in sources] == ["", "", ""]


def test_what_is_written_is_what_is_owned_or_a_default(tmp_path: Path) -> None:
    written = set(parse_settings(render(site_at(tmp_path), UPSTREAM, {})))
    defaults = set(parse_settings(render(site_at(tmp_path), UPSTREAM, dict.fromkeys(written, ""))))
    assert defaults - {"wal_level"} <= OWNED


def test_the_operators_values_win_where_they_can(tmp_path: Path) -> None:
    operators = {"wal_level": "logical", "wal_keep_size": "1GB", "port": "1"}
    operators["update_process_title"] = "off"  # else nobody sees what a starting replica lacks
    settings = parse_settings(render(site_at(tmp_path), None, operators))
    assert "wal_keep_size" not in settings
    assert "wal_level" not in settings
    assert settings["port"] == "5432"
    assert settings["update_process_title"] == "on"
    minimal = parse_settings(render(site_at(tmp_path), None, {"wal_level": "minimal"}))
    assert minimal["wal_level"] == "replica"


def test_extra_settings_may_not_take_what_ramd_owns(tmp_path: Path) -> None:
    assert "work_mem = '7MB'" in render(site_at(tmp_path, extra={"work_mem": "7MB"}), None, {})
    with pytest.raises(ConfigError, match="port, restore_command cannot be set"):
        render(site_at(tmp_path, extra={"PORT": "1", "restore_command": "cp"}), None, {})


def test_the_upstream_can_be_read_back(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    assert read_upstream(site) is None
    site.conf_file.parent.mkdir()
    for upstream in (UPSTREAM, None):
        site.conf_file.write_text(render(site, upstream, {}))
        assert read_upstream(site) == upstream


def test_only_the_receiver_has_the_nodes_name(tmp_path: Path) -> None:
    site = site_at(tmp_path, replication_password="p")
    tool = psycopg.conninfo.conninfo_to_dict(peer_conninfo(site, UPSTREAM, database="a b"))
    assert (tool["application_name"], tool["dbname"], tool["host"]) == ("ramd", "a b", "db two")
    assert tool["passfile"] == str(site.passfile)
    assert "application_name=ramd_node_1" in render(site, UPSTREAM, {})


def test_the_include_line_is_ours_alone_and_last(tmp_path: Path) -> None:
    once = with_include("a = 1\ninclude 'theirs'\n", tmp_path / "x")
    moved = with_include(once, tmp_path / "y")
    assert moved.splitlines()[:2] == ["a = 1", "include 'theirs'"]
    assert len(moved.splitlines()) == 3
    assert str(tmp_path / "y") in moved
    assert str(tmp_path / "x") not in moved


def test_alter_system_keeps_what_is_not_ours() -> None:
    text = "# Do not edit\nwork_mem = '5MB'\nPrimary_Conninfo = 'host=a'\nport=1\nportly.x = '2'\n"
    assert without_owned(text) == "# Do not edit\nwork_mem = '5MB'\nportly.x = '2'\n"


def test_hba_lets_the_replication_user_in_and_nobody_else(tmp_path: Path) -> None:
    local = render_hba(site_at(tmp_path).options, "local all all peer\n")
    assert 'local all,replication "postgres" trust' in local
    assert 'host replication,"postgres" "replicator" 127.0.0.0/8 trust' in local
    assert local.endswith("\nlocal all all peer\n")
    assert " all trust" not in local
    remote = render_hba(site_at(tmp_path, replication_password="p").options, "")
    assert 'host replication,"postgres" "replicator" all scram-sha-256' in remote
    assert "127.0.0.0/8" not in remote


def test_a_name_that_hba_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="double quote"):
        hba_name('a"b')


def test_everything_is_written_and_nothing_twice(tmp_path: Path) -> None:
    site = site_at(tmp_path, replication_password="a:b\\c")
    site.data_dir.mkdir()
    (site.data_dir / "postgresql.conf").write_text("a = 1\n")
    write_all(site, UPSTREAM)
    assert site.passfile.read_text() == "*:*:*:replicator:a\\:b\\\\c\n"
    assert site.passfile.stat().st_mode & 0o777 == 0o600
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    write_all(site, UPSTREAM)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == stamps


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    site = site_at(tmp_path)
    site.data_dir.mkdir()
    (site.data_dir / "postgresql.conf").write_text("a = 1\n")
    outside = tmp_path / "outside"
    outside.write_text("precious\n")
    for name in ("postgresql.auto.conf", ".postgresql.conf.new"):
        (site.data_dir / name).symlink_to(outside)
    write_all(site, None)
    assert outside.read_text() == "precious\n"


words = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.sampled_from(["host", "user", "dbname", "application_name"]), words))
def test_connection_strings_survive_any_value(fields: dict[str, str]) -> None:
    parsed = psycopg.conninfo.conninfo_to_dict(conninfo(fields))
    assert parsed == {key: value for key, value in fields.items() if value}


@given(words)
def test_quoted_values_stay_one_value(value: str) -> None:
    assert "\n" not in conf_value(value)
    inside = conf_value(value.replace("\n", ""))[1:-1]
    assert inside.replace("\\\\", "").replace("''", "").count("'") == 0
    assert inside.replace("\\\\", "\\").replace("''", "'") == value.replace("\n", "")
    assert literal(value).startswith("E'" if "\\" in value else "'")
