"""CREATE EXTENSION on servers before 18, from copies in the server's own directories.

In a copy of the server's programs: the host's are left as they are.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pgraft.extension.install import install, places_of, uninstall
from tests.support.extension_lab import Flavour, Lab, LabServer, compiled


@pytest.fixture(scope="module")
def moved(lab: Lab, flavour: Flavour) -> Flavour:
    """The same programs at another place, where PostgreSQL finds its parts by their distance."""
    if flavour.major >= 18 or flavour.bin_dir is None:
        pytest.skip("from 18 on nothing is copied")
    told = subprocess.run(
        [flavour.bin_dir / "pg_config", "--sharedir"], capture_output=True, text=True, check=True
    )
    home = flavour.bin_dir.parent
    tree = lab.root.path / f"programs{flavour.major}"
    for part in {home, Path(told.stdout.strip())}:
        if part == home or not part.is_relative_to(home):
            target = tree / part.relative_to("/")
            shutil.copytree(part, target, ignore_dangling_symlinks=True)
    return replace(flavour, bin_dir=tree / flavour.bin_dir.relative_to("/"))


@pytest.fixture
def installed(lab: Lab, flavour: Flavour, moved: Flavour) -> Iterator[LabServer]:
    """A running server of those programs, after the copies were made."""
    assert moved.bin_dir is not None
    places = places_of(moved.bin_dir / "pg_config")
    install(compiled(flavour), places)
    server = lab.server(moved).start(leased=True)
    yield server
    server.stop()
    uninstall(places)


def test_functions_are_those_of_the_preloaded_library(installed: LabServer) -> None:
    """Not of the copy: that would be a second library, which knows of no page."""
    installed.ask("CREATE EXTENSION pgraft")
    assert installed.ask("SELECT NOT fenced AND lease_left_ms > 0 FROM pgraft_status()")
    installed.fence()
    assert installed.ask("SELECT fenced FROM pgraft_status()")


def test_copies_are_replaced_under_a_running_server(
    flavour: Flavour, moved: Flavour, installed: LabServer
) -> None:
    assert moved.bin_dir is not None
    installed.ask("CREATE EXTENSION pgraft")
    install(compiled(flavour), places_of(moved.bin_dir / "pg_config"))
    assert installed.ask("SELECT pgraft_get_version()") == "1.0"
    installed.ask("DROP EXTENSION pgraft")
