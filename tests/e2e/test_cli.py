"""The real command line: every fault is told in one message, and nothing on disk is changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster_stories import listing

PROGRAMS = ("postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata", "pg_waldump")


def ramd(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One run of the daemon's program that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "ramd", *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def conf(tmp_path: Path, **keys: object) -> Path:
    """A valid file but for `keys`."""
    lines = {
        "node_id": 1,
        "cluster_name": "demo",
        "hostname": "127.0.0.1",
        "postgresql_data_dir": tmp_path / "node1",
    }
    file = tmp_path / "ramd.conf"
    file.write_text("".join(f"{key} = {value}\n" for key, value in {**lines, **keys}.items()))
    return file


def old_programs(tmp_path: Path) -> Path:
    """A directory of programs that say they are PostgreSQL 14."""
    directory = tmp_path / "old"
    directory.mkdir()
    for name in PROGRAMS:
        program = directory / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 14.11'\n")
        program.chmod(0o755)
    return directory


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"postgresql_port": "many"}, ("postgresql_port", "many")),
        ({"postgresql_port": 70000}, ("postgresql_port", "70000")),
        ({"cluster_nmae": "x"}, ("cluster_nmae", "cluster_name")),
        ({"postgresql_bin_dir": "/nowhere/bin"}, ("postgresql_bin_dir", "/nowhere/bin")),
        ({"http_bind_address": "0.0.0.0"}, ("http_bind_address", "token")),
        ({"require_ssl": "true"}, ("require_ssl", "not available")),
        ({"ssl_enabled": "true"}, ("ssl_enabled", "needs ssl_cert_file")),
        ({"node_2_hostname": "127.0.0.1", "node_2_raft_port": 7401}, ("node_id", "not in")),
        ({"cluster_secret_file": "/nowhere/secret"}, ("cluster_secret_file", "/nowhere/secret")),
    ],
)
def test_a_fault_of_the_file_is_named_and_nothing_is_changed(
    tmp_path: Path, keys: dict[str, object], words: tuple[str, ...]
) -> None:
    file = conf(tmp_path, **keys)
    before = listing(tmp_path)
    for arguments in (["--config", file], ["--config", file, "--validate"]):
        ended = ramd(*arguments)
        assert ended.returncode == 2, ended
        for word in words:
            assert word in ended.stderr
        assert str(file) in ended.stderr
        assert "Traceback" not in ended.stderr
    assert listing(tmp_path) == before


def test_a_server_older_than_15_is_named(tmp_path: Path) -> None:
    directory = old_programs(tmp_path)
    file = conf(tmp_path, postgresql_bin_dir=directory)
    before = listing(tmp_path)
    for arguments in (["--config", file, "--validate"], ["--config", file]):
        ended = ramd(*arguments)
        assert ended.returncode == 2, ended
        assert "PostgreSQL 14" in ended.stderr
        assert str(directory) in ended.stderr
        assert "15" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert listing(tmp_path) == before


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    file = conf(tmp_path, postgresql_port="many", http_port="x", cluster_nmae="y")
    ended = ramd("--config", file, "--validate")
    assert ended.returncode == 2
    for number, key in ((5, "postgresql_port"), (6, "http_port"), (7, "cluster_nmae")):
        assert f"{file}:{number}: {key}" in ended.stderr


def test_a_valid_file_is_said_to_be_valid(tmp_path: Path) -> None:
    file = conf(tmp_path)
    before = listing(tmp_path)
    ended = ramd("--config", file, "--validate")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "valid" in ended.stdout
    assert listing(tmp_path) == before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    ended = ramd("--config", tmp_path / "none.conf")
    assert ended.returncode == 2
    assert str(tmp_path / "none.conf") in ended.stderr


def test_help_and_version_need_no_file() -> None:
    assert "--config" in ramd("--help").stdout
    assert ramd("--version").stdout.startswith("ramd ")
