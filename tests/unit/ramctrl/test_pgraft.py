"""`ramctrl pgraft …`: builds on this host, with the exit codes and formats of every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgraft.extension import build as builds
from ramctrl.__main__ import run

VERSION = "18.6"


@pytest.fixture
def pg_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's pg_config that knows its version and where its things are; sources of one line."""
    for name in ("include", "lib", "share/extension", "sources"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "include" / "postgres.h").write_text("/* */\n")
    sources = tmp_path / "sources"
    (sources / "pgraft.c").write_text('#include "postgres.h"\nint pgraft_answer;\n')
    (sources / "pgraft.control").write_text("default_version = '1.0'\n")
    program = tmp_path / "pg_config"
    program.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f"--version) echo 'PostgreSQL {VERSION}' ;;\n"
        f"--includedir-server) echo {tmp_path}/include ;;\n"
        f"--pkglibdir) echo {tmp_path}/lib ;;\n"
        f"--sharedir) echo {tmp_path}/share ;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(builds, "sources", lambda: sources)
    monkeypatch.setattr(builds, "build_root", lambda: tmp_path / "root")
    return program


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    data: dict[str, object] = json.loads(capsys.readouterr().out)["data"]
    return data


def test_status_before_and_after_an_install(
    pg_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pgraft", "status", "--pg-config", str(pg_config), "--json"]
    assert run(words) != 0
    assert f"not built for PostgreSQL {VERSION}" in capsys.readouterr().err
    assert run(["pgraft", "install", "--pg-config", str(pg_config), "--json"]) == 0
    installed = told(capsys)
    assert Path(str(installed["library"])).exists()
    assert installed["copied"] == [], "from 18 on nothing has to lie in the server's tree"
    assert run(words) == 0
    assert told(capsys)["library"] == installed["library"]


def test_copies_when_asked_and_takes_them_away(
    pg_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pg_config.parent
    assert run(["pgraft", "install", "--pg-config", str(pg_config), "--copy", "--json"]) == 0
    copies = [folder / "share/extension/pgraft.control", folder / "lib/pgraft.so"]
    assert told(capsys)["copied"] == [str(path) for path in copies]
    assert all(path.exists() for path in copies)
    assert run(["pgraft", "uninstall", "--pg-config", str(pg_config)]) == 0
    assert "pgraft.so" in capsys.readouterr().out
    assert not any(path.exists() for path in copies)


def test_no_compiler_is_said_with_what_to_do(
    pg_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "/no/such/compiler")
    assert run(["pgraft", "install", "--pg-config", str(pg_config)]) != 0
    said = capsys.readouterr().err
    assert "no C compiler" in said
    assert "gcc" in said


def test_pg_config_has_to_be_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pgraft", "status", "--pg-config", "/no/such/pg_config"]) == 2
    assert "pg_config" in capsys.readouterr().err
