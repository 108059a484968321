"""The control file is given to the program once for as long as it says the same."""

from __future__ import annotations

import asyncio

import pytest

from ramd.domain.errors import PostgresError
from ramd.postgres import control as module
from ramd.postgres.control import CONTROL_BYTES, Control, ControlFile, parse_control
from ramd.postgres.site import Site
from tests.support.site import site_at
from tests.unit.ramd.postgres.test_words import CONTROL

SAID = parse_control(CONTROL)


class Program:
    """pg_controldata: how often it ran, and what happens while it runs."""

    def __init__(self, site: Site) -> None:
        self.file = site.data_dir / "global" / "pg_control"
        self.file.parent.mkdir(parents=True)
        self.runs = 0
        self.fails = False
        self.write(b"a")

    def write(self, letter: bytes, size: int = CONTROL_BYTES) -> None:
        self.file.write_bytes(letter * size)

    async def __call__(self, site: Site) -> Control:
        self.runs += 1
        await asyncio.sleep(0)
        if self.fails:
            raise PostgresError("pg_controldata failed")
        return SAID


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_at(tmp_path_factory.mktemp("site"))


@pytest.fixture
def program(site: Site, monkeypatch: pytest.MonkeyPatch) -> Program:
    found = Program(site)
    monkeypatch.setattr(module, "read_control", found)
    return found


async def test_the_same_bytes_are_read_once(site: Site, program: Program) -> None:
    file = ControlFile(site)
    assert await file.read() == await file.read() == SAID
    assert program.runs == 1
    program.write(b"b")
    await file.read()
    assert program.runs == 2


async def test_what_was_read_ahead_is_not_read_again(site: Site, program: Program) -> None:
    file = ControlFile(site)
    file.read_ahead()
    file.read_ahead()
    assert await file.read() == SAID
    assert program.runs == 1


async def test_a_change_while_it_was_read_ahead_is_seen(site: Site, program: Program) -> None:
    file = ControlFile(site)
    file.read_ahead()
    await asyncio.sleep(0)
    assert program.runs == 1
    program.write(b"b")
    await file.read()
    assert program.runs == 2


async def test_what_fails_ahead_is_said_to_whoever_asks(site: Site, program: Program) -> None:
    file = ControlFile(site)
    program.fails = True
    file.read_ahead()
    with pytest.raises(PostgresError, match="failed"):
        await file.read()
    program.fails = False
    assert await file.read() == SAID


@pytest.mark.parametrize("size", [0, CONTROL_BYTES - 1])
async def test_a_file_that_is_not_whole_is_never_known(
    site: Site, program: Program, size: int
) -> None:
    program.write(b"a", size)
    file = ControlFile(site)
    file.read_ahead()
    await file.read()
    await file.read()
    assert program.runs == 2
    program.file.unlink()
    await file.read()
    assert program.runs == 3
