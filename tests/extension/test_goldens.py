"""Scripts in sql/ and what psql prints for them, in expected/.

A script gives and takes the lease by `\\! eval "$GIVE_LEASE"` and `\\! eval "$TAKE_LEASE"`.
`pytest tests/extension --rewrite` writes anew what is printed: read the difference.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgraft.page.layout import PLACES, WORD_BYTES
from ramd.postgres.binaries import find_postgres
from tests.extension.pictures import PICTURE
from tests.support.extension_lab import FLAVOURS, Flavour, Lab, LabServer, install

HERE = Path(__file__).parent
CONNECTION_LOST = 2
"""psql's exit status."""
SCRIPTS = sorted((HERE / "sql").glob("*.sql"))
PLACE = re.compile(r"^psql:[^:]*:\d+: ", re.MULTILINE)
"""Where in a script an error was: of no interest, and changes with every line above."""


@pytest.fixture(scope="module")
def server(lab: Lab, flavour: Flavour) -> Iterator[LabServer]:
    made = lab.server(flavour, **{"pgraft.fence_grace_ms": "600000"}).start(leased=True)
    yield made
    made.stop()


def printed(server: LabServer, script: Path) -> str:
    """What psql prints for the script, in a database of its own."""
    database = script.stem
    server.lease()
    server.ask(f"DROP DATABASE IF EXISTS {database}")
    server.ask(f"CREATE DATABASE {database}")
    install(server, database=database)
    folder = server.page_path.parent
    place = f"of={server.page_path} bs={WORD_BYTES} seek={PLACES['LEASE']} count=1 conv=notrunc"
    word = folder / "lease"
    word.write_bytes(struct.pack("=Q", server.page.words[PLACES["LEASE"]]))
    word.chmod(0o644)
    text = folder / script.name
    text.write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
    text.chmod(0o644)
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    server.daemon.publish(PICTURE, now_ns)
    server.daemon.heartbeat(now_ns, os.getpid())
    psql = find_postgres(None).bin_dir / "psql"
    options = ["-X", "-a", "-q", "-v", "SHOW_CONTEXT=never", "-d", database, "-f", str(text)]
    where = ["-h", str(server.site.socket_dir), "-p", str(server.site.options.port)]
    done = server.run(
        [str(psql), *options, *where, "-U", "postgres"],
        accepted=(0, CONNECTION_LOST),
        capture_output=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            "PATH": "/usr/bin:/bin",
            "GIVE_LEASE": f"dd if={word} {place} status=none",
            "TAKE_LEASE": f"dd if=/dev/zero {place} status=none",
        },
    )
    return PLACE.sub("", done.stdout)


def golden_of(script: Path, major: int) -> Path:
    """What is expected of one version: its own file if it differs from the newest."""
    newest = HERE / "expected" / f"{script.stem}.out"
    own = newest.with_suffix(f".pg{major}.out")
    return own if own.exists() else newest


def rewrite(script: Path, major: int, told: str) -> None:
    """To be run for the newest version first, as the fixtures do."""
    newest = HERE / "expected" / f"{script.stem}.out"
    own = newest.with_suffix(f".pg{major}.out")
    own.unlink(missing_ok=True)
    if major == FLAVOURS[0].major:
        newest.write_text(told, encoding="utf-8")
    elif told != newest.read_text(encoding="utf-8"):
        own.write_text(told, encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_prints_as_expected(
    server: LabServer, script: Path, request: pytest.FixtureRequest
) -> None:
    told = printed(server, script)
    if request.config.getoption("--rewrite", default=False):
        rewrite(script, server.flavour.major, told)
    golden = golden_of(script, server.flavour.major)
    assert told == golden.read_text(encoding="utf-8"), "if it is meant: --rewrite"


def test_every_golden_has_its_script() -> None:
    found = {path.name.split(".")[0] for path in (HERE / "expected").glob("*.out")}
    assert found == {path.stem for path in SCRIPTS} != set()
