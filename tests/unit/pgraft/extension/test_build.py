"""Building the library: found again, whole or not at all, and clear about what is missing."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from pgraft.extension import build as builds
from pgraft.extension.build import BuildError, build, find, fingerprint
from pgraft.extension.install import Places, install, uninstall

VERSION = "18.6"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A library of one line, so that compiling is quick."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "pgraft.c").write_text(
        '#include "postgres.h"\nint pgraft_answer(void) { return 42; }\n'
    )
    (folder / "pgraft.control").write_text("default_version = '1.0'\n")
    (folder / "pgraft--1.0.sql").write_text("SELECT 1;\n")
    return folder


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "postgres.h").write_text("/* all of it */\n")
    return folder


def make(tmp_path: Path, sources: Path, headers: Path) -> builds.Build:
    return build(
        tmp_path / "no-pg_config",
        tmp_path / "root",
        headers=headers,
        server_version=VERSION,
        source_dir=sources,
    )


def test_build_has_everything_and_is_readable(tmp_path: Path, sources: Path, headers: Path) -> None:
    made = make(tmp_path, sources, headers)
    assert made.major == 18
    assert made.library.read_bytes().startswith(b"\x7fELF")
    assert stat.S_IMODE(made.library.stat().st_mode) == 0o755
    names = {path.name for path in (made.share / "extension").iterdir()}
    assert names == {"pgraft.control", "pgraft--1.0.sql"}
    assert [path.name for path in (tmp_path / "root").iterdir()] == [made.dir.name]


def test_second_build_is_the_first(tmp_path: Path, sources: Path, headers: Path) -> None:
    first = make(tmp_path, sources, headers)
    before = first.library.stat().st_ino
    assert make(tmp_path, sources, headers) == first
    assert first.library.stat().st_ino == before


def test_changed_sources_have_a_build_of_their_own(
    tmp_path: Path, sources: Path, headers: Path
) -> None:
    first, print_before = make(tmp_path, sources, headers), fingerprint(sources)
    (sources / "pgraft--1.0.sql").write_text("SELECT 2;\n")
    assert fingerprint(sources) != print_before
    assert make(tmp_path, sources, headers).dir != first.dir


def test_two_builders_at_once_end_with_one(tmp_path: Path, sources: Path, headers: Path) -> None:
    made: list[builds.Build] = []
    threads = [
        threading.Thread(target=lambda: made.append(make(tmp_path, sources, headers)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 4
    assert len(set(made)) == 1
    assert [path.name for path in (tmp_path / "root").iterdir()] == [made[0].dir.name]


def test_no_compiler_names_the_package(
    tmp_path: Path, sources: Path, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(BuildError, match="no C compiler") as caught:
        make(tmp_path, sources, headers)
    assert "gcc" in caught.value.hint


def test_no_headers_names_the_package(tmp_path: Path, sources: Path) -> None:
    with pytest.raises(BuildError, match="headers of PostgreSQL 14") as caught:
        build(
            tmp_path / "no-pg_config",
            tmp_path / "root",
            server_version="14.1",
            source_dir=sources,
        )
    assert "postgresql-server-dev-14" in caught.value.hint


def test_what_does_not_compile_leaves_nothing(tmp_path: Path, sources: Path, headers: Path) -> None:
    (sources / "pgraft.c").write_text("this is no C\n")
    with pytest.raises(BuildError, match="does not compile"):
        make(tmp_path, sources, headers)
    assert list((tmp_path / "root").iterdir()) == []


def test_nothing_is_found_before_it_is_built(tmp_path: Path) -> None:
    assert find([tmp_path], VERSION) is None


def test_real_sources_compile_for_the_embedded_server() -> None:
    found = builds.sources()
    assert (found / "pgraft.c").exists()
    assert (found / "page_layout.h").exists()


def test_copies_are_put_and_taken_away(tmp_path: Path, sources: Path, headers: Path) -> None:
    made = make(tmp_path, sources, headers)
    places = Places(library_dir=tmp_path / "lib", extension_dir=tmp_path / "share")
    for folder in (places.library_dir, places.extension_dir):
        folder.mkdir()
    before = install(made, places)
    inode = (places.library_dir / "pgraft.so").stat().st_ino
    install(made, places)
    assert (places.library_dir / "pgraft.so").stat().st_ino != inode, "never written over"
    assert sorted(uninstall(places)) == sorted(before)
    assert uninstall(places) == ()


def test_copies_need_the_directories(tmp_path: Path, sources: Path, headers: Path) -> None:
    made = make(tmp_path, sources, headers)
    places = Places(library_dir=tmp_path / "absent", extension_dir=tmp_path / "absent")
    with pytest.raises(BuildError, match="cannot be written") as caught:
        install(made, places)
    assert "fence works all the same" in caught.value.hint
