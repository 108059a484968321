"""Undoing a fault: a daemon that was told to end is started again once it has ended, not before."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from bench.chaos.harm import Harm
from bench.chaos.plan import Kind, Role, Step
from tools.local_cluster import LocalCluster

NODES = (1, 2, 3)


class FakeProcesses:
    """One daemon, on node 2, which takes its time; its pid file is gone as soon as it is told."""

    def __init__(self, daemon: subprocess.Popen[bytes]) -> None:
        self.daemon = daemon
        self.asked = 0

    def daemon_pid(self, node: int) -> int | None:
        self.asked += 1
        return self.daemon.pid if node == 2 and self.asked == 1 else None

    def daemon_lives(self, node: int, *, but: int | None = None) -> bool:
        return self.daemon.pid != but and self.daemon.poll() is None


class FakeCluster:
    """Knows what was started."""

    def __init__(self, root: Path, daemon: subprocess.Popen[bytes]) -> None:
        self.root = root
        self.processes = FakeProcesses(daemon)
        self.started: list[int] = []

    def spawn(self, node: int) -> None:
        self.started.append(node)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Its daemon does not heed SIGTERM."""
    (tmp_path / "node2").mkdir()
    command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
    daemon = subprocess.Popen(command, cwd=tmp_path / "node2", stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    daemon.stdout.readline()
    yield FakeCluster(tmp_path, daemon)
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()


def stopped(pick: int = 0) -> Step:
    return Step(
        number=1,
        kind=Kind.DAEMON_STOPPED,
        role=Role.REPLICA,
        pick=pick,
        hold_s=0.0,
        second_hold_s=0.0,
        settles=False,
        pause_s=0.0,
    )


@pytest.mark.parametrize("seen", [True, False], ids=["seen to work there", "just dying"])
def test_a_daemon_that_takes_its_time_to_end_is_started_when_it_has(
    cluster: FakeCluster, *, seen: bool
) -> None:
    if not seen:
        cluster.root /= "elsewhere"
    harm = Harm(cast(LocalCluster, cluster), NODES, lambda: 1)
    assert harm.do(stopped()) == "node 2 for 0 s"
    harm.undo_due()
    assert harm.down(2)
    assert cluster.started == []
    cluster.processes.daemon.kill()
    cluster.processes.daemon.wait()
    harm.undo_due()
    assert not harm.pending
    assert cluster.started == [2]


def test_a_daemon_that_somebody_has_started_again_is_left_alone(cluster: FakeCluster) -> None:
    harm = Harm(cast(LocalCluster, cluster), NODES, lambda: 1)
    harm.do(stopped())
    before = cluster.processes.daemon
    before.kill()
    before.wait()
    cluster.processes.daemon = subprocess.Popen(["sleep", "60"])
    try:
        harm.undo_due()
        assert not harm.pending
        assert cluster.started == []
    finally:
        cluster.processes.daemon.kill()
        cluster.processes.daemon.wait()
        cluster.processes.daemon = before


def test_where_no_daemon_runs_there_is_nothing_to_undo(cluster: FakeCluster) -> None:
    harm = Harm(cast(LocalCluster, cluster), NODES, lambda: 1)
    assert harm.do(stopped(pick=1)) == "nothing: no daemon runs"
    assert not harm.pending
