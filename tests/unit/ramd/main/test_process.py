"""Pid files that lock, and the state directory that leaves no trace of a refused start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramd.domain.errors import ConfigError, Refused
from ramd.process import PidFile, StateDirectory

HOLDER = """
import sys
from pathlib import Path
from ramd.process import PidFile
with PidFile(path=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A pid file held by another process."""
    path = tmp_path / "x.pid"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield path, holder
    finally:
        holder.kill()
        holder.communicate(timeout=30)


def test_it_holds_the_process_id_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with PidFile(path=path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_living_holder_is_named(held: tuple[Path, subprocess.Popen[str]]) -> None:
    path, holder = held
    with pytest.raises(Refused, match=rf"{path} \(process {holder.pid}\)"), PidFile(path=path):
        pytest.fail("two holders")
    assert path.read_text() == f"{holder.pid}\n"


def test_the_file_of_a_killed_holder_is_taken_over(
    held: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, holder = held
    holder.kill()
    holder.wait(timeout=30)
    assert path.read_text() == f"{holder.pid}\n"
    with PidFile(path=path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_programs_started_meanwhile_do_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with PidFile(path=path):
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            close_fds=False,
        )
    try:
        with PidFile(path=path):
            pass
    finally:
        child.kill()
        child.communicate(timeout=30)


def test_a_file_replaced_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with PidFile(path=path):
        path.unlink()
        path.write_text("4711\n")
    assert path.read_text() == "4711\n"


def test_a_file_that_is_no_pid_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("do not lose this\n")
    with pytest.raises(ConfigError, match="something other than a process id"), PidFile(path=path):
        pytest.fail("overwritten")
    assert path.read_text() == "do not lose this\n"


def test_links_and_strange_files_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    link = tmp_path / "link"
    link.symlink_to(target)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (link, fifo, tmp_path, tmp_path / "absent" / "x.pid"):
        with pytest.raises(ConfigError, match="pid file"), PidFile(path=path):
            pytest.fail("taken")
    assert target.read_bytes() == b""


def test_an_empty_state_directory_is_removed_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "state"
    with StateDirectory(path=path):
        assert path.stat().st_mode & 0o777 == 0o711
        assert path.parent.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == []


def test_a_used_state_directory_stays(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state"
    with StateDirectory(path=path):
        (path / "file").touch()
    assert (path / "file").exists()


def test_a_state_directory_that_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    with StateDirectory(path=path):
        pass
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="state_dir: "),
        StateDirectory(path=tmp_path / "file" / "x"),
    ):
        pytest.fail("made")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
