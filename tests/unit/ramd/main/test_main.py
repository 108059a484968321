"""`ramd` as a process, with a stand-in for the daemon itself: steps, locks, exit status."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ramd.__main__ import main, pid_files
from ramd.config.load import load_text
from ramd.postgres.binaries import TOOLS
from tests.support.wait import wait_for

STAND_IN = '''
"""The real `ramd`, but its daemon waits for SIGTERM, or does what its first argument says."""
import json, os, signal, sys, threading, types
from pathlib import Path
import ramd
from ramd.domain.errors import Refused

act = sys.argv.pop(1)

def run(config, config_path, ready):
    if act == "refuse":
        raise Refused("port 8008 is in use", code="port_in_use", hint="choose another")
    if act == "crash":
        raise ZeroDivisionError("a bug")
    if act == "vanish":
        os._exit(9)
    if act == "status":
        return 7
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    facts = {"pid": os.getpid(), "cwd": os.getcwd(), "level": config.effective_log_level,
             "path": str(config_path), "sid": os.getsid(0)}
    (config.state_dir / "facts.tmp").write_text(json.dumps(facts))
    (config.state_dir / "facts.tmp").rename(config.state_dir / "facts")
    ready()
    ready()
    print("heard by nobody in the background")
    while not asked.wait(0.02):  # whichever thread the signal came to
        pass
    return 0

daemon = types.ModuleType("ramd.daemon")
daemon.run = run
sys.modules["ramd.daemon"] = ramd.daemon = daemon
from ramd.__main__ import main
sys.exit(main())
'''


class Place:
    """A directory with a configuration, and `ramd` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf = root / "ramd.conf"
        self.script = root / "stand_in.py"
        self.script.write_text(STAND_IN)
        self.pid_file = root / "my.pid"
        self.state_dir = root / "data.ramd"
        self.write()

    def write(self, text: str = "") -> None:
        self.conf.write_text(f"postgresql_data_dir = {self.root}/data\n{text}")

    def command(self, act: str, *options: str) -> list[str]:
        return [sys.executable, str(self.script), act, "-c", str(self.conf), *options]

    def run(self, act: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(act, *options),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self.root,
        )

    def facts(self) -> dict[str, object]:
        facts: dict[str, object] = json.loads((self.state_dir / "facts").read_text())
        return facts

    def kill(self, pid: int) -> None:
        """Ask a daemon to end and wait until its pid file is gone."""
        os.kill(pid, signal.SIGTERM)
        pid_file = self.state_dir / "ramd.pid"
        wait_for(lambda: not pid_file.exists(), 30, "the daemon ends")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_validate_a_good_file(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.write("backup_tool = barman\n")
    assert main(["--config", str(place.conf), "--validate"]) == 0
    said = capsys.readouterr()
    assert said.out == "configuration is valid\n"
    assert said.err == "warning: backup_tool: not available in this version\n"
    assert not place.state_dir.exists()


@pytest.mark.parametrize("arguments", [[], ["--validate"]])
def test_a_server_that_is_too_old_is_refused_by_name(
    place: Place, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    programs = place.conf.parent / "old"
    programs.mkdir()
    for name in TOOLS:
        program = programs / name
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.11'\n")
        program.chmod(0o755)
    place.write(f"postgresql_bin_dir = {programs}\n")
    assert main(["--config", str(place.conf), *arguments]) == 2
    said = capsys.readouterr()
    assert f"PostgreSQL 14 in {programs} is older than 15" in said.err
    assert said.out == ""
    assert not place.state_dir.exists()


def test_validate_prints_every_fault(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.write("nod_id = 1\nhttp_port = x\n")
    assert main(["-c", str(place.conf), "--validate"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(": ")[0] for line in said.err.splitlines()] == [
        f"{place.conf}:2",
        f"{place.conf}:3",
    ]


def test_a_start_with_faults_prints_the_same_and_touches_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write("nod_id = 1\n")
    before = sorted(place.root.iterdir())
    assert main(["-c", str(place.conf)]) == 2
    assert capsys.readouterr().err == (
        f"{place.conf}:2: nod_id: is not a key of RAMD; did you mean node_id?\n"
    )
    assert sorted(place.root.iterdir()) == before


def test_without_its_file_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["-c", str(tmp_path / "absent.conf")]) == 2
    assert "absent.conf: cannot be read" in capsys.readouterr().err


def test_assertions_cannot_be_switched_off(place: Place) -> None:
    found = subprocess.run(
        [sys.executable, "-O", "-m", "ramd", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 2
    assert "refuses to run with -O" in found.stderr


def test_foreground(place: Place) -> None:
    daemon = subprocess.Popen(
        place.command("wait", "--log-level", "debug", "--pid-file", str(place.pid_file)),
        cwd=place.root,
    )
    try:
        wait_for((place.state_dir / "facts").exists, 30, "the daemon runs")
        assert place.facts()["pid"] == daemon.pid
        assert place.facts()["cwd"] == str(place.root)
        assert place.facts()["level"] == "debug"
        assert place.facts()["path"] == str(place.conf)
        for pid_file in (place.pid_file, place.state_dir / "ramd.pid"):
            assert pid_file.read_text() == f"{daemon.pid}\n"

        second = place.run("wait", "--pid-file", str(place.root / "other.pid"))
        assert second.returncode == 5
        assert f"another ramd is running with {place.state_dir}/ramd.pid" in second.stderr
        assert f"(process {daemon.pid})" in second.stderr
        assert "Traceback" not in second.stderr

        place.write(f"state_dir = {place.root}/other.ramd\n")
        third = place.run("wait", "--pid-file", str(place.pid_file))
        assert third.returncode == 5
        assert f"{place.pid_file} (process {daemon.pid})" in third.stderr
        assert not (place.root / "other.ramd").exists()
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=30) == 0
    assert not place.pid_file.exists()


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("", ["/srv/data.ramd/ramd.pid"]),
        ("daemonize = on", ["/srv/data.ramd/ramd.pid", "/tmp/ramd.pid"]),
        ("pid_file = /tmp/a.pid", ["/srv/data.ramd/ramd.pid", "/tmp/a.pid"]),
        ("pid_file = /tmp/a.pid\ndaemonize = on", ["/srv/data.ramd/ramd.pid", "/tmp/a.pid"]),
        ("state_dir = /tmp\npid_file = /tmp/ramd.pid", ["/tmp/ramd.pid"]),
    ],
)
def test_which_pid_files_are_held(text: str, files: list[str]) -> None:
    config = load_text(f"postgresql_data_dir = /srv/data\n{text}", {})
    assert [str(path) for path in pid_files(config)] == files


def test_background(place: Place) -> None:
    place.write(f"working_directory = {place.root}/data.ramd\nlog_file = {place.root}/ramd.log\n")
    place.state_dir.mkdir()
    found = place.run("wait", "--daemonize", "--pid-file", str(place.pid_file))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    pid = int(place.pid_file.read_text())
    try:
        facts = place.facts()
        assert facts["pid"] == pid
        assert facts["cwd"] == str(place.state_dir)
        assert facts["sid"] not in {os.getsid(0), pid}  # a session of its own, not led by it
        again = place.run("wait", "-d", "-p", str(place.root / "second.pid"))
        assert again.returncode == 5
        assert f"(process {pid})" in again.stderr
    finally:
        place.kill(pid)


def test_a_relative_configuration_is_found_in_the_background(place: Place) -> None:
    found = subprocess.run(
        [sys.executable, str(place.script), "wait", "-c", "ramd.conf", "-d", "-p", "my.pid"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=place.root,
    )
    assert found.returncode == 0, found.stderr
    place.kill(int(place.pid_file.read_text()))
    assert place.facts()["path"] == str(place.conf)
    assert place.facts()["cwd"] == "/"


@pytest.mark.parametrize("where", ["foreground", "background"])
def test_a_refused_start_says_why_and_leaves_nothing(place: Place, where: str) -> None:
    before = sorted(place.root.iterdir())
    options = ["-p", str(place.pid_file)] + (["--daemonize"] if where == "background" else [])
    found = place.run("refuse", *options)
    assert found.returncode == 5
    assert found.stderr.endswith("ramd: port 8008 is in use\nhint: choose another\n")
    assert "Traceback" not in found.stderr
    assert sorted(place.root.iterdir()) == before


@pytest.mark.parametrize("options", [(), ("--daemonize",)])
def test_a_bug_shows_its_traceback(place: Place, options: tuple[str, ...]) -> None:
    found = place.run("crash", "-p", str(place.pid_file), *options)
    assert found.returncode == 1
    assert "ZeroDivisionError: a bug" in found.stderr


def test_a_daemon_that_dies_before_it_is_ready_is_no_success(place: Place) -> None:
    found = place.run("vanish", "--daemonize", "-p", str(place.pid_file))
    assert found.returncode == 1


@pytest.mark.parametrize("options", [(), ("--daemonize",)])
def test_the_exit_status_is_the_daemons(place: Place, options: tuple[str, ...]) -> None:
    assert place.run("status", "-p", str(place.pid_file), *options).returncode == 7
