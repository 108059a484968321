"""Other surroundings: an older server of the system's own, and an ordinary user's private home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_stories import (
    Clusters,
    ask,
    epoch_of,
    make_table,
    one_lineage,
    primary_of,
    same_everywhere,
    wait_new_epoch,
    write,
)
from tests.support.postgres import DEBIAN_BIN

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.mark.skipif(not DEBIAN_BIN.is_dir(), reason=f"there is no {DEBIAN_BIN}")
def test_postgresql_15_fails_over_and_rejoins(clusters: Clusters) -> None:
    cluster = clusters.three_nodes(postgresql_bin_dir=DEBIAN_BIN)
    old, epoch = primary_of(cluster), epoch_of(cluster)
    assert ask(cluster, old, "SHOW server_version")[0][0].startswith("15.")
    before = write(cluster, range(1, 11))
    same_everywhere(cluster, before)
    cluster.kill_server(old)
    assert wait_new_epoch(cluster, epoch) != old
    same_everywhere(cluster, before | write(cluster, range(11, 21)))
    one_lineage(cluster)


@pytest.fixture
def private_home() -> Iterator[Path]:
    """A home of `nobody` that nobody else may enter."""
    home = Path(tempfile.mkdtemp(prefix="ramd-home-"))
    shutil.chown(home, NOBODY, NOBODY)
    home.chmod(0o700)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def runs_as_nobody() -> bool:
    """Root may drop to `nobody`, who can read the interpreter and the code."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return False
    ended = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", "import ramd.daemon"],
        capture_output=True,
        check=False,
        timeout=60,
        cwd="/",
    )
    return ended.returncode == 0


def test_an_ordinary_user_creates_in_a_private_home(clusters: Clusters, private_home: Path) -> None:
    if not runs_as_nobody():
        pytest.skip("needs root, setpriv and code that `nobody` can read; else all stories do this")
    prefix = (*AS_NOBODY, "env", f"HOME={private_home}")
    cluster = clusters.make(prefix=prefix, parent=private_home)
    cluster.places.write_conf(1, {})
    for path in (cluster.root, *cluster.root.rglob("*")):
        shutil.chown(path, NOBODY, NOBODY)
    cluster.start()
    cluster.create(2)
    make_table(cluster)
    same_everywhere(cluster, write(cluster, range(1, 11)), nodes=(1, 2))
    for node in (1, 2):
        pid = cluster.processes.postmaster_pid(node)
        assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
