"""A crashed primary whose WAL lost a file in its midst is told by the files alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.lsn import Lsn
from ramd.domain.observation import Position
from ramd.domain.server import ControlState
from ramd.postgres import control as control_module
from ramd.postgres import data as data_module
from ramd.postgres.control import Control, ControlFile, parse_control
from ramd.postgres.data import DataDir
from ramd.postgres.site import Site
from ramd.postgres.wal import PAGE_HEAD, missing_file, segment_name, wal_names
from tests.support.site import site_at
from tests.unit.ramd.postgres.test_words import CONTROL

SIZE = 1 << 20
CRASHED = replace(
    parse_control(CONTROL),
    state=ControlState.IN_PRODUCTION,
    segment_bytes=SIZE,
    redo_lsn=Lsn(5 * SIZE + 40),
    checkpoint_lsn=Lsn(5 * SIZE + 80),
    checkpoint_timeline=2,
    recovery_lsn=Lsn(0),
    recovery_timeline=0,
)


def lay(wal_dir: Path, number: int, *, used_as: int | None = None, timeline: int = 2) -> str:
    """A file of WAL; `used_as`: its pages are still those of the file of that number."""
    wal_dir.mkdir(parents=True, exist_ok=True)
    at = (number if used_as is None else used_as) * SIZE
    name = segment_name(timeline, Lsn(number * SIZE), SIZE)
    (wal_dir / name).write_bytes(PAGE_HEAD.pack(0xD118, 2, timeline, at) + bytes(8192))
    return name


def missing(wal_dir: Path) -> str:
    return missing_file(wal_dir, wal_names(wal_dir), CRASHED)


def test_a_file_that_is_not_there_though_a_later_one_was_written(tmp_path: Path) -> None:
    files = [lay(tmp_path, number) for number in range(3, 10)]
    assert missing(tmp_path) == ""
    (tmp_path / files[0]).unlink()  # before the checkpoint
    assert missing(tmp_path) == ""
    (tmp_path / files[-1]).unlink()  # the last one: nobody can tell
    assert missing(tmp_path) == ""
    (tmp_path / files[4]).unlink()
    assert missing(tmp_path) == files[4]
    (tmp_path / files[2]).unlink()  # that of the checkpoint itself
    assert missing(tmp_path) == files[2]


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(lambda at: lay(at, 9, used_as=2), id="used again"),
        pytest.param(lambda at: (at / lay(at, 9)).write_bytes(bytes(SIZE)), id="made ahead"),
        pytest.param(lambda at: (at / lay(at, 9)).write_bytes(b""), id="empty"),
        pytest.param(lambda at: lay(at, 9, timeline=1), id="of an older timeline"),
        pytest.param(lambda at: lay(at, 9, timeline=3), id="of a timeline to come"),
        pytest.param(lambda at: (at / lay(at, 9)).rename(at / "9.partial"), id="another name"),
    ],
)
def test_what_only_waits_to_be_used_is_no_sign_of_it(tmp_path: Path, later: object) -> None:
    for number in (5, 6):
        lay(tmp_path, number)
    assert callable(later)
    later(tmp_path)
    assert missing(tmp_path) == ""


def test_what_vanished_since_it_was_listed_says_nothing(tmp_path: Path) -> None:
    for number in (5, 6):
        lay(tmp_path, number)
    names = wal_names(tmp_path) | {segment_name(2, Lsn(9 * SIZE), SIZE)}
    assert missing_file(tmp_path, names, CRASHED) == ""
    assert wal_names(tmp_path / "none") == frozenset()


@pytest.mark.parametrize(
    ("control", "label", "running"),
    [
        (replace(CRASHED, state=ControlState.SHUT_DOWN), False, False),
        (replace(CRASHED, recovery_lsn=Lsn(5 * SIZE), recovery_timeline=2), False, False),
        (CRASHED, True, False),
        (CRASHED, False, True),
        (CRASHED, False, False),
    ],
    ids=["shut down", "a replica, or just promoted", "a copy", "running", "crashed"],
)
async def test_of_whom_it_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    control: Control,
    label: bool,
    running: bool,
) -> None:
    site = site_at(tmp_path)
    (site.data_dir / "global").mkdir(parents=True)
    (site.data_dir / "global" / "pg_control").write_bytes(b"x")
    (site.data_dir / "PG_VERSION").write_text("18\n")
    if label:
        (site.data_dir / "backup_label").write_text("")
    for number in (5, 7):
        lay(site.wal_dir, number)

    async def said(_site: Site) -> Control:
        return control

    monkeypatch.setattr(control_module, "read_control", said)
    asked: list[Control] = []

    async def end(_site: Site, control: Control, *, timeout_ms: int) -> Position:
        asked.append(control)
        return Position(timeline=2, lsn=Lsn(timeout_ms))

    monkeypatch.setattr(data_module, "end_of_wal", end)
    data = DataDir(site, lambda: running, ControlFile(site))
    crashed = not label and not running and control is CRASHED
    expected = segment_name(2, Lsn(6 * SIZE), SIZE) if crashed else ""
    assert (await data.inspect()).wal_missing == expected
    assert (await data.end_of_wal(timeout_ms=5) is None) == crashed
    assert asked == ([] if crashed else [control])
