"""The watch that a stopping daemon leaves behind ends the server at the end of the lease."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramd.execute.lease_note import LeaseNote
from ramd.execute.local import LocalStore
from ramd.execute.parting import LOCK_FILE, watch
from tests.support.wait import wait_for


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works in the data directory and is named in its postmaster.pid."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    program = tmp_path / "postgres"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    process = subprocess.Popen([program, "600"], cwd=data_dir)
    (data_dir / "postmaster.pid").write_text(f"{process.pid}\n{data_dir}\n")
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


async def opened(state: Path, epoch: int) -> None:
    async with LocalStore.load(state).opening(epoch):
        pass


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    (state / "raft").mkdir(parents=True)
    (state / LOCK_FILE).touch()
    asyncio.run(opened(state, 4))
    return state


def test_the_server_is_stopped_when_the_lease_is_over(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    LeaseNote.open(state_dir).write(4, boottime_ns() + 300_000_000)
    begun_ns = boottime_ns()
    assert watch(state_dir, tmp_path / "data", 100_000_000) == "stopped"
    assert boottime_ns() - begun_ns >= 150_000_000, "not before the end of the lease"
    wait_for(lambda: server.poll() is not None, 5, "the server ended")


@contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """A daemon has the state directory."""
    with (state_dir / LOCK_FILE).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_daemon_that_renews_has_taken_over(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    note = LeaseNote.open(state_dir)
    note.write(4, boottime_ns() + 60_000_000_000)
    renewing = threading.Timer(0.2, note.write, (4, boottime_ns() + 90_000_000_000))
    with held(state_dir):
        renewing.start()
        assert watch(state_dir, tmp_path / "data", 0) == "taken over"
    assert server.poll() is None


def test_a_daemon_that_gave_the_epoch_back_has_taken_over(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    LeaseNote.open(state_dir).write(4, boottime_ns() + 60_000_000_000)
    latching = threading.Timer(0.2, asyncio.run, (LocalStore.load(state_dir).latch(4),))
    with held(state_dir):
        latching.start()
        assert watch(state_dir, tmp_path / "data", 0) == "taken over"
    assert server.poll() is None


def test_a_replica_in_the_hands_of_a_daemon_is_left_alone(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    LeaseNote.open(state_dir).write(4, boottime_ns() + 60_000_000_000)
    (tmp_path / "data" / "standby.signal").touch()
    with held(state_dir):
        assert watch(state_dir, tmp_path / "data", 0) == "taken over"
    assert server.poll() is None


def test_a_daemon_that_only_holds_the_directory_has_not_taken_over(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    """It may be about to fail at its port or its log, and then nobody would mind the server."""
    LeaseNote.open(state_dir).write(4, boottime_ns() + 300_000_000)
    with held(state_dir):
        assert watch(state_dir, tmp_path / "data", 0) == "stopped"
    wait_for(lambda: server.poll() is not None, 5, "the server ended")


def test_a_lease_of_which_nothing_is_known_is_over(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    assert watch(state_dir, tmp_path / "data", 0) == "stopped"
    wait_for(lambda: server.poll() is not None, 5, "the server ended")


def test_a_process_that_only_stole_the_pid_is_not_touched(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "postmaster.pid").write_text(f"{server.pid}\n")
    assert watch(state_dir, other, 0) == "stopped"
    assert server.poll() is None


def test_a_link_above_the_data_directory_hides_nothing(
    server: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(tmp_path)
    assert watch(state_dir, tmp_path / "alias" / "data", 0) == "stopped"
    wait_for(lambda: server.poll() is not None, 5, "the server ended")
