"""The data directory without a server: what is recognised, what is refused, what is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ramd.domain.errors import ConfigError, PostgresError, Refused
from ramd.domain.observation import DataKind
from ramd.domain.server import StopMode
from ramd.postgres.account import choose_account
from ramd.postgres.binaries import TOOLS, find_postgres
from ramd.postgres.site import open_site
from tests.postgres.conftest import START_MS, Nodes, accepting
from tests.support.postgres import ask, plain_options

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


async def test_what_is_no_data_directory_is_foreign_and_never_touched(nodes: Nodes) -> None:
    server = await nodes.open(1)
    path = server.data.path
    path.mkdir(parents=True)
    assert (await server.data.inspect()).kind is DataKind.ABSENT
    (path / "letters.txt").write_text("mine")
    assert (await server.data.inspect()).kind is DataKind.FOREIGN
    with pytest.raises(PostgresError, match="not empty"):
        await server.data.initdb()
    with pytest.raises(Refused):
        await server.data.remove_data()
    with pytest.raises(Refused):
        await server.start(replica=True, upstream=None, timeout_ms=START_MS)
    assert [p.name for p in path.iterdir()] == ["letters.txt"]


async def test_another_major_version_is_foreign(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    (server.data.path / "PG_VERSION").write_text("14\n")
    found = await server.data.inspect()
    assert (found.kind, found.major) == (DataKind.FOREIGN, 14)
    assert "PostgreSQL 14" in found.why


async def test_initdb_in_an_empty_directory_that_fails_leaves_it_empty(nodes: Nodes) -> None:
    server = await nodes.open(1, initdb_options=("--no-such-option",))
    server.data.path.mkdir(parents=True)
    with pytest.raises(PostgresError, match="no-such-option"):
        await server.data.initdb()
    assert (await server.data.inspect()).kind is DataKind.ABSENT
    assert not list(server.data.path.parent.glob("data.*"))


async def test_a_directory_is_set_aside_and_listed(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    (server.data.path / "postmaster.pid").write_text("1\n")
    first = await server.data.set_aside("for a test")
    assert (first / "PG_VERSION").is_file()
    assert not (first / "postmaster.pid").exists()
    assert (await server.data.inspect()).kind is DataKind.ABSENT
    await server.data.initdb()
    second = await server.data.set_aside("once more")
    assert second != first
    listed = json.loads(nodes.site(1).aside_file.read_text())
    assert [(one["path"], one["reason"]) for one in listed] == [
        (str(first), "for a test"),
        (str(second), "once more"),
    ]


async def test_data_is_removed_only_when_asked(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    await server.data.remove_data()
    assert (await server.data.inspect()).kind is DataKind.ABSENT
    assert not server.data.path.exists()


async def test_a_new_cluster_is_utf8_with_checksums_whatever_the_environment(nodes: Nodes) -> None:
    server = await nodes.open(1)
    await server.data.initdb()
    await server.start(replica=False, upstream=None, timeout_ms=START_MS)
    await accepting(server)
    assert ask(nodes.site(1), "SHOW server_encoding") == "UTF8"
    assert ask(nodes.site(1), "SHOW data_checksums") == "on"


async def test_a_long_state_dir_gets_its_socket_elsewhere(nodes: Nodes) -> None:
    deep = nodes.cluster.folder / ("d" * 60) / ("e" * 60)
    server = await nodes.open(1, from_template=True, state_dir=deep)
    site = nodes.cluster.site(1, state_dir=deep)
    try:
        await server.start(replica=False, upstream=None, timeout_ms=START_MS)
        await accepting(server)
        found = site.socket_dir.stat()
        assert (found.st_mode & 0o777, found.st_uid) == (0o700, site.account.uid)
        await server.stop(StopMode.FAST, timeout_ms=START_MS)
    finally:
        site.socket_dir.rmdir()


@as_root
def test_a_closed_directory_above_is_named_before_anything_is_made(nodes: Nodes) -> None:
    closed = nodes.cluster.folder / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(ConfigError, match=f"cannot enter {closed}"):
        open_site(plain_options(closed / "n1", 1, 1))
    assert list(closed.iterdir()) == []


@as_root
def test_roots_copy_of_the_programs_is_whole_and_readable(tmp_path: Path) -> None:
    first = find_postgres(None, cache_dir=tmp_path / "cache")
    assert first.major == 18
    assert first.bin_dir.is_relative_to(tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    stamp = first.bin_dir.stat().st_mtime_ns
    assert find_postgres(None, cache_dir=tmp_path / "cache") == first
    assert first.bin_dir.stat().st_mtime_ns == stamp
    closed = [p for p in first.bin_dir.parents[2].rglob("*") if not p.stat().st_mode & 0o004]
    assert closed == []
    libraries = subprocess.run(
        ["ldd", first.tool("pg_basebackup")], capture_output=True, text=True, check=True, timeout=30
    )
    assert "not found" not in libraries.stdout


@as_root
def test_a_cache_that_others_may_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the fallback lies
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert not find_postgres(None, cache_dir=shared).bin_dir.is_relative_to(shared)


def test_programs_that_are_missing_or_too_old_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no PostgreSQL"):
        find_postgres(tmp_path)
    for tool in TOOLS:
        (tmp_path / tool).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.2'\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(ConfigError, match=r"PostgreSQL 14 .* is older than 15"):
        find_postgres(tmp_path)
    (tmp_path / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 19devel'\n")
    with pytest.raises(ConfigError, match="newer than 18"):
        find_postgres(tmp_path)
    (tmp_path / "pg_rewind").unlink()
    with pytest.raises(ConfigError, match="lacks pg_rewind"):
        find_postgres(tmp_path)


@as_root
def test_roots_server_runs_as_the_owner_of_the_data(nodes: Nodes) -> None:
    site = nodes.site(1)
    site.data_dir.mkdir(parents=True)
    (site.data_dir / "something").touch()
    with pytest.raises(ConfigError, match="belongs to root"):
        choose_account(site.data_dir)
    os.chown(site.data_dir, 65534, 65534)
    assert choose_account(site.data_dir).uid == 65534
    (site.data_dir / "something").unlink()
    assert choose_account(site.data_dir, "nobody").name == "nobody"
    with pytest.raises(ConfigError, match="no user nosuchuser"):
        choose_account(site.data_dir, "nosuchuser")
    with pytest.raises(ConfigError, match="is root"):
        choose_account(site.data_dir, "root")


ORDINARY = """
import asyncio, sys
from pathlib import Path
from ramd.domain.server import StopMode
from ramd.postgres.instance import open_instance
from tests.support.postgres import plain_options

async def main(folder, port):
    async with open_instance(plain_options(Path(folder), 1, int(port))) as server:
        await server.data.initdb()
        await server.start(replica=False, upstream=None, timeout_ms=30000)
        async with asyncio.timeout(30):
            while not (await server.probe(timeout_ms=1000)).accepting:
                await asyncio.sleep(0.02)
        await server.stop(StopMode.FAST, timeout_ms=30000)
        print((await server.data.inspect()).control_state)

asyncio.run(main(*sys.argv[1:]))
"""


@as_root
def test_an_ordinary_user_runs_its_own_server(nodes: Nodes) -> None:
    """Its programs and ours are the same here, so they must lie where everybody can read them."""
    repository = Path(__file__).parents[2]
    for path in (Path(sys.executable), Path(os.path.realpath(sys.executable)), repository):
        closed = [str(p) for p in path.parents if not p.stat().st_mode & 0o001]
        if closed:
            pytest.skip(f"{closed[0]} is closed to other users")
    folder = nodes.cluster.folder / "own"
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)
    said = subprocess.run(
        [sys.executable, "-B", "-c", ORDINARY, folder, str(nodes.site(1).options.port)],
        capture_output=True,
        text=True,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
        cwd=repository,
        timeout=120,
    )
    assert (said.stdout, said.returncode) == ("shut_down\n", 0), said.stderr


def begun(nodes: Nodes, tool: str, argument: str) -> subprocess.Popen[bytes]:
    """A program as a daemon that was killed leaves it: at work, asking for nothing."""
    program = nodes.cluster.folder / tool
    program.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/sh", program)
    return subprocess.Popen([program, "-c", "read _", argument], stdin=subprocess.PIPE)


@pytest.mark.parametrize("suffix", ["", ".initdb-tmp"])
async def test_what_a_killed_daemon_began_is_ended_before_anything_is_made(
    nodes: Nodes, suffix: str
) -> None:
    server = await nodes.open(1)
    old = begun(nodes, "pg_basebackup", f"--pgdata={server.data.path}{suffix}")
    other = begun(nodes, "pg_rewind", f"--target-pgdata={server.data.path}x")
    try:
        await server.data.initdb()
        assert old.wait(timeout=5) == -signal.SIGKILL
        assert other.poll() is None, "it works on another directory"
    finally:
        for process in (old, other):
            process.kill()
            process.communicate()


async def test_a_rewind_of_a_killed_daemon_is_ended_before_the_server_starts(nodes: Nodes) -> None:
    server = await nodes.open(1, from_template=True)
    old = begun(nodes, "pg_rewind", f"--target-pgdata={server.data.path}")
    try:
        with pytest.raises(Refused, match=str(old.pid)):
            await server.data.set_aside("it is still being changed")
        await server.start(replica=False, upstream=None, timeout_ms=START_MS)
        assert old.wait(timeout=5) == -signal.SIGKILL
        await server.stop(StopMode.FAST, timeout_ms=START_MS)
    finally:
        old.kill()
        old.communicate()


async def test_new_clusters_have_small_segments_unless_told_otherwise(nodes: Nodes) -> None:
    """A promotion copies one before the first write."""
    for node, options, size in ((1, ("--no-sync",), 4), (2, ("--no-sync", "--wal-segsize=2"), 2)):
        server = await nodes.open(node, initdb_options=options)
        await server.data.initdb()
        files = [f for f in (server.data.path / "pg_wal").iterdir() if f.is_file()]
        assert {f.stat().st_size for f in files} == {size << 20}
