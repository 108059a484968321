"""Real files: what `replace` and the lock promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgraft.core.types import Entry, EntryKind, Index, Term
from pgraft.storage import wal
from pgraft.storage.disk import DirectoryLock, DirectoryLocked, OsDisk
from pgraft.storage.replay import recover
from pgraft.storage.segment import Owner

OWNER = Owner(cluster_id="c" * 32, node=1, uuid="a" * 32)
HOLD = """
import sys
from pathlib import Path
from pgraft.storage.disk import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_directory_is_private_and_its_parent_must_exist(tmp_path: Path) -> None:
    OsDisk(tmp_path / "raft")
    assert (tmp_path / "raft").stat().st_mode & 0o777 == 0o700
    OsDisk(tmp_path / "raft")
    with pytest.raises(FileNotFoundError):
        OsDisk(tmp_path / "no" / "raft")


def test_replace_leaves_the_old_or_the_new_and_no_leftover_is_listed(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path)
    disk.replace("name", b"old")
    disk.replace("name", b"new and longer")
    (tmp_path / "name.tmp").write_bytes(b"of an interrupted run")
    assert disk.read("name") == b"new and longer"
    assert disk.names() == ["name"]
    assert (tmp_path / "name").stat().st_mode & 0o777 == 0o600


def test_a_file_is_written_in_place(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path)
    disk.replace("name", bytes(100))
    file = disk.open("name")
    file.write(10, b"hello")
    file.sync()
    assert file.read(9, 7) == b"\0hello\0"
    assert file.read(98, 10) == b"\0\0"
    file.close()
    with pytest.raises(FileNotFoundError):
        disk.open("other")
    with pytest.raises(FileNotFoundError):
        disk.read("other")


def test_a_log_on_a_real_disk(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path)
    wal.create(disk, OWNER)
    log, _ = recover(disk, OWNER)
    entries = tuple(
        Entry(term=Term(1), index=Index(n), kind=EntryKind.COMMAND, data=bytes(400_000))
        for n in range(1, 6)
    )
    for entry in entries:
        log.append([wal.WalBatch(entries=(entry,))])
    log.close()
    log, found = recover(disk, OWNER)
    log.close()
    assert found.entries == entries
    assert found.segments == 3


def test_a_directory_in_use_is_refused_with_the_process_named(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(DirectoryLocked, match=f"process {os.getpid()}") as refused:
        DirectoryLock(tmp_path)
    assert refused.value.pid == os.getpid()
    lock.release()
    lock.release()
    DirectoryLock(tmp_path).release()


def test_the_kernel_gives_the_lock_back_when_its_holder_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(DirectoryLocked, match=f"process {holder.pid}"):
                DirectoryLock(tmp_path)
        finally:
            holder.kill()
            holder.wait(30)
    DirectoryLock(tmp_path).release()


def test_a_lock_without_a_number_still_refuses(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    (tmp_path / "lock").write_text("?")
    with pytest.raises(DirectoryLocked, match="another process") as refused:
        DirectoryLock(tmp_path)
    assert refused.value.pid is None
    lock.release()


def test_a_closed_file_does_not_touch_whoever_has_its_number_now(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path)
    disk.replace("one", b"1")
    disk.replace("two", b"2")
    closed = disk.open("one")
    closed.close()
    other = disk.open("two")  # the kernel hands out the lowest free number
    closed.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        closed.write(0, b"x")
    assert other.read(0, 1) == b"2"
    other.close()
