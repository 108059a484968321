"""WAL of another node: kept, given to the server; and when one's own is not handed out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Position
from ramd.postgres.conf import restore_command
from ramd.postgres.exchange import Exchange, segment_bytes
from ramd.postgres.probe import Link
from ramd.postgres.site import Site
from tests.support.site import site_at

SEGMENT = 1 << 20
FIRST = "000000010000000000000000"
SECOND = "000000010000000000000001"
STARTED = "LOG:  starting PostgreSQL 17\n"
PANIC = 'PANIC:  could not fsync file "pg_wal/1": Input/output error\n'


def exchange(where: Site, log: str = "") -> Exchange:
    async def give(given: bool) -> None:
        return

    return Exchange(site=where, link=Link(where), give=give, log=lambda: log)


@pytest.fixture
def here(tmp_path: Path) -> Site:
    found = site_at(tmp_path)
    found.wal_dir.mkdir(parents=True)
    found.options.state_dir.mkdir(parents=True, exist_ok=True)
    (found.wal_dir / FIRST).write_bytes(os.urandom(SEGMENT))
    return found


def shell(command: str, name: str, target: Path) -> int:
    text = command.replace("%f", name).replace("%p", str(target)).replace("%%", "%")
    return subprocess.run(["sh", "-c", text], check=False).returncode


async def test_bytes_come_to_the_end_of_a_segment_and_not_from_one_that_is_gone(here: Site) -> None:
    whole = (here.wal_dir / FIRST).read_bytes()
    at = Position(timeline=1, lsn=Lsn(SEGMENT - 10))
    assert await exchange(here).read(at, 100) == whole[-10:]
    with pytest.raises(PostgresError, match="gone"):
        await exchange(here).read(Position(timeline=1, lsn=Lsn(SEGMENT)), 100)


async def test_what_is_behind_the_end_is_zero(here: Site) -> None:
    taker = exchange(here)
    begin = await taker.begin(Position(timeline=1, lsn=Lsn(SEGMENT + 500)))
    assert begin == SEGMENT
    await taker.keep(Position(timeline=1, lsn=begin), b"x" * 600)
    kept = here.options.state_dir / "fetched" / SECOND
    assert kept.read_bytes() == b"x" * 600 + bytes(SEGMENT - 600)
    await taker.end()
    assert not kept.parent.exists()


def test_the_command_hands_out_what_is_there_and_fails_softly(tmp_path: Path) -> None:
    folder = tmp_path / "it's 100% odd"
    folder.mkdir()
    (folder / FIRST).write_bytes(b"wal")
    command, target = restore_command(folder), tmp_path / "RECOVERYXLOG"
    assert shell(command, FIRST, target) == 0
    assert target.read_bytes() == b"wal"
    assert shell(command, "00000002.history", target) == 1
    assert shell(command.replace("cp ", "no-such-program "), FIRST, target) == 1


@pytest.mark.parametrize(
    ("said", "doubted"),
    [
        (STARTED, False),
        (STARTED + PANIC, True),
        (STARTED + PANIC + STARTED, False),
        (STARTED + "PANIC:  could not write to file: No space left on device\n", False),
    ],
    ids=["nothing", "since", "before", "full"],
)
async def test_a_server_that_could_not_flush_is_doubted(
    here: Site, said: str, doubted: bool
) -> None:
    here.log_file.parent.mkdir(parents=True, exist_ok=True)
    here.log_file.write_text(said)
    assert bool(await exchange(here, os.path.realpath(here.log_file)).doubt()) is doubted


async def test_a_server_whose_log_is_not_known_is_doubted(here: Site) -> None:
    assert "not known" in await exchange(here, "/dev/null").doubt()
    assert "cannot be read" in await exchange(here, os.path.realpath(here.log_file)).doubt()


def test_without_a_segment_there_is_no_size(tmp_path: Path) -> None:
    with pytest.raises(PostgresError):
        segment_bytes(tmp_path)
