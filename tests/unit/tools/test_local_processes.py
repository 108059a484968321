"""Processes of a cluster on this host: what counts as a node's, and when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.wait import wait_for
from tools.local_places import Places, Ports
from tools.local_processes import Processes, alive, send

PORTS = Ports(postgresql=1, raft=2, http=3, prometheus=4)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A node 1 with its directories."""
    made = Places(root=tmp_path, ports=PORTS)
    made.data_dir(1).mkdir()
    made.state_dir(1).mkdir()
    return made


@pytest.fixture
def server(places: Places) -> Iterator[subprocess.Popen[bytes]]:
    """Something that works in the node's data directory."""
    process = subprocess.Popen(["sleep", "600"], cwd=places.data_dir(1))
    yield process
    process.kill()
    process.wait()


def test_a_killed_node_is_gone_at_once(places: Places, server: subprocess.Popen[bytes]) -> None:
    assert alive(server.pid)
    Processes(places).kill_node(1)
    assert not alive(server.pid)


def test_a_pid_file_that_was_left_names_nobody_elses_process(
    places: Places, server: subprocess.Popen[bytes]
) -> None:
    processes = Processes(places)
    file = places.data_dir(1) / "postmaster.pid"
    file.write_text(f"{server.pid}\n")
    assert processes.postmaster_pid(1) == server.pid
    file.write_text(f"{os.getpid()}\n")
    assert processes.postmaster_pid(1) is None


DYING = """
import ctypes, os, platform, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print(os.getpid(), flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""
"""Its first thread ends alone, as when a killed process is still taken apart."""


def test_a_daemon_that_is_being_taken_apart_lives_no_more(places: Places) -> None:
    processes = Processes(places, prefix=(sys.executable, "-c", DYING))
    processes.spawn(1)
    printed = places.output(1)
    wait_for(lambda: printed.read_text().endswith("\n"), 60, "it has begun")
    pid = int(printed.read_text())
    try:
        wait_for(lambda: not alive(pid), 60, "its first thread has ended")
        assert processes.exit_status(1) is None
        assert not processes.daemon_lives(1)
    finally:
        send(pid, signal.SIGKILL)
        wait_for(lambda: processes.exit_status(1) is not None, 60, "it is gone")
