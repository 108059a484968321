"""Every page that cannot be used, with what is said about it, and what is done rather than refused.

Also where a page goes when nobody said where.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pgraft.page import file
from pgraft.page.file import Page, PageError, default_directory
from pgraft.page.layout import LAYOUT_VERSION, MAGIC, PAGE_BYTES, PLACES, WORDS
from pgraft.page.reader import server_start
from pgraft.page.writer import DaemonHalf
from tests.support.page_server import ServerHalf, server_lock

UID, GID = os.geteuid(), os.getegid()
NOBODY = 65534
as_root = pytest.mark.skipif(UID != 0, reason="only root can make a page for another user")


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ramd-page-", dir="/dev/shm") as folder:
        yield Path(folder, "page")


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ramd-page-", dir="/var/tmp") as folder:
        yield Path(folder, "page")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory with room for four pages of memory."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no mount here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def opened(path: Path, *, lock: bool = True, make: bool = True) -> Page:
    return Page.open(path, uid=UID, gid=GID, lock=lock, make=make)


def refused(path: Path, *, lock: bool = True, make: bool = True, uid: int = UID) -> PageError:
    with pytest.raises(PageError) as caught:
        Page.open(path, uid=uid, gid=GID, lock=lock, make=make)
    assert str(caught.value) == caught.value.message
    assert str(path) in caught.value.message
    return caught.value


def written(path: Path, size: int = PAGE_BYTES, mode: int = 0o600) -> Path:
    path.write_bytes(b"\0" * size)
    path.chmod(mode)
    return path


def linked(path: Path) -> None:
    path.symlink_to(written(path.with_name("elsewhere")))


FAULTS: list[tuple[Callable[[Path], object], str, str]] = [
    (linked, "is a symbolic link", "remove it"),
    (os.mkfifo, "is not a regular file", "remove it"),
    (Path.mkdir, "cannot be opened: Is a directory", "remove"),
    (lambda p: written(p, mode=0o640), "has mode 0640, not 0600", "chmod 0600"),
    (lambda p: written(p, mode=0o4600), "has mode 4600, not 0600", "chmod 0600"),
    (lambda p: written(p, 4096), "has 4096 bytes, a page has 8192", "remove it"),
    (lambda p: written(p, PAGE_BYTES + 1), "has 8193 bytes, a page has 8192", "remove it"),
]


@pytest.mark.parametrize(("make", "message", "hint"), FAULTS, ids=[f[1] for f in FAULTS])
def test_what_is_no_page_is_refused_and_left_as_it_is(
    path: Path, make: Callable[[Path], object], message: str, hint: str
) -> None:
    make(path)
    before = path.lstat()
    for lock in (True, False):
        error = refused(path, lock=lock)
        assert message in error.message
        assert hint in error.hint
    after = path.lstat()
    assert (after.st_ino, after.st_size, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mode,
    )


def test_faults_are_told_in_a_fixed_order(disk: Path) -> None:
    """Owner, mode, file system, size: one that has all of them loses them one by one."""
    written(disk, 100, 0o644)
    assert f"belongs to user {UID}, not to the server's user {UID + 1}" in (
        refused(disk, uid=UID + 1).message
    )
    assert "has mode 0644" in refused(disk).message
    disk.chmod(0o600)
    error = refused(disk)
    assert "is on a disk" in error.message
    assert "tmpfs" in error.hint
    moved = disk.rename(disk.with_name("other"))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        copy = Path(shutil.copy2(moved, folder))
        assert "has 100 bytes" in refused(copy).message


def test_nothing_is_left_of_a_page_that_cannot_be_made_there(disk: Path) -> None:
    assert "is on a disk" in refused(disk).message
    assert not disk.exists()
    error = refused(disk.parent / "missing" / "page")
    assert "cannot be made: No such file" in error.message
    assert "page_dir" in error.hint


def test_full_file_system_in_memory(small: Path) -> None:
    filler = small / "filler"
    filler.write_bytes(b"\0" * 3 * 4096)
    with pytest.raises(OSError, match="No space left"):
        (small / "proof").write_bytes(b"\0" * 2 * 4096)
    (small / "proof").unlink()
    error = refused(small / "page")
    assert "no room" in error.message
    assert "free some" in error.hint
    assert not (small / "page").exists()
    begun = written(small / "page", 0)
    assert "no room" in refused(begun).message
    assert begun.exists(), "a server may be about to finish it"
    filler.unlink()
    opened(begun).close()
    assert begun.stat().st_blocks * 512 >= PAGE_BYTES


@as_root
def test_page_belongs_to_the_servers_user_from_the_start(path: Path) -> None:
    page = Page.open(path, uid=NOBODY, gid=NOBODY)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (NOBODY, NOBODY, 0o600)
    page.close()


@as_root
def test_page_that_a_killed_daemon_had_not_given_away_yet_is_finished(path: Path) -> None:
    written(path, 0, 0o200)
    Page.open(path, uid=NOBODY, gid=NOBODY).close()
    assert (path.stat().st_uid, path.stat().st_size) == (NOBODY, PAGE_BYTES)


@as_root
def test_file_of_root_with_something_in_it_is_given_to_nobody(path: Path) -> None:
    written(path)
    assert "belongs to user 0" in refused(path, uid=NOBODY).message
    assert path.stat().st_uid == 0


# --- daemons, lookers, servers -------------------------------------------------------------------


def test_two_daemons(path: Path) -> None:
    first = opened(path)
    error = refused(path)
    assert "in use by another daemon" in error.message
    assert "stop the other" in error.hint
    first.close()
    opened(path).close()


def test_looker_makes_nothing_and_begins_nothing_anew(path: Path) -> None:
    assert "does not exist" in refused(path, lock=False).message
    assert not path.exists()
    written(path, 0)
    assert "not been used" in refused(path, lock=False).message
    assert path.stat().st_size == 0
    written(path)
    assert "not been used" in refused(path, lock=False).message
    page = opened(path)
    DaemonHalf(page).lease(10**18, 4)
    page.words[PLACES["BOOT"]] ^= 1
    assert "not been used" in refused(path, lock=False).message
    page.words[PLACES["BOOT"]] ^= 1
    page.words[PLACES["LAYOUT"]] = 99
    assert "layout 99" in refused(path, lock=False).message
    page.words[PLACES["LAYOUT"]] = LAYOUT_VERSION
    looker = opened(path, lock=False)
    assert DaemonHalf(looker).leased()[1] == 4
    looker.close()
    page.close()


@pytest.mark.parametrize("boot", [0, 1], ids=["of this boot", "of another boot"])
def test_other_layout_is_refused_only_beside_a_living_server(path: Path, boot: int) -> None:
    page = opened(path)
    DaemonHalf(page).lease(10**18, 4)
    page.words[PLACES["BOOT"]] ^= boot
    page.words[PLACES["LAYOUT"]] = 99
    assert not page.server_lives()
    with server_lock(path):
        assert page.server_lives()
        page.close()
        error = refused(path)
        assert f"layout 99, this version knows {LAYOUT_VERSION}, and a server" in error.message
        assert "restart the server" in error.hint
    page = opened(path)
    assert page.words[PLACES["LAYOUT"]] == LAYOUT_VERSION
    assert page.words[PLACES["LEASE"]] == 0
    page.close()


def test_page_of_another_boot_loses_every_word(path: Path) -> None:
    page = opened(path)
    for place in range(PLACES["LEASE"], WORDS):
        page.words[place] = 7
    page.words[PLACES["BOOT"]] ^= 1
    page.close()
    page = opened(path)
    assert set(page.words[PLACES["LEASE"] :].tolist()) == {0}
    page.close()


def test_page_that_a_server_is_making_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server writes between its lock and the end of its making is not wiped out."""
    page = opened(path)
    boot = page.words[PLACES["BOOT"]]
    for place in range(PLACES["LEASE"]):
        page.words[place] = 0

    def server_goes_on(_: float) -> None:
        page.words[PLACES["LAYOUT"]] = LAYOUT_VERSION
        page.words[PLACES["BOOT"]] = boot
        page.words[PLACES["MAGIC"]] = MAGIC
        ServerHalf(page).start(postmaster_pid=77)

    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=server_goes_on)
    monkeypatch.setattr(file, "time", clock)
    with server_lock(path):
        looker = opened(path, lock=False)
        assert server_start(looker).postmaster_pid == 77
        looker.close()
    page.close()


def test_page_that_a_server_never_finishes_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "MAKING_S", 0.01)
    written(path)
    with server_lock(path):
        assert "does not finish it" in refused(path).message
    opened(path).close()


def test_page_of_a_removed_directory_behind_a_link_is_found_through_its_holder(path: Path) -> None:
    """A runtime directory is removed under a running server; /var/run is a link, as it often is."""
    runtime = path.parent / "run" / "ramd"
    runtime.mkdir(parents=True)
    (path.parent / "var").symlink_to(path.parent / "run")
    named = path.parent / "var" / "ramd" / "page"
    page = opened(named)
    DaemonHalf(page).lease(10**18, 9)
    program = f"f = open({str(named)!r}, 'r+b'); print('open', flush=True); input()"
    pipe = subprocess.PIPE
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        page.close()
        shutil.rmtree(runtime)
        again = Page.open_through(holder.pid, named, uid=UID, gid=GID)
        assert again is not None
        assert not again.at_path()
        assert DaemonHalf(again).leased()[1] == 9
        with pytest.raises(PageError, match="another daemon"):
            Page.open_through(holder.pid, named, uid=UID, gid=GID)
        again.close()
        with pytest.raises(PageError, match="belongs to user"):
            Page.open_through(holder.pid, named, uid=UID + 1, gid=GID)
    finally:
        holder.kill()
        holder.communicate()
    assert Page.open_through(holder.pid, named, uid=UID, gid=GID) is None, "nobody holds it"


# --- where it goes -------------------------------------------------------------------------------


def test_place_is_the_runtime_directory_that_can_be_made_or_used(path: Path) -> None:
    run = path.parent
    assert default_directory(uid=NOBODY, run=run) == (run / "ramd", "")
    (run / "ramd").mkdir(mode=0o711)
    assert default_directory(uid=NOBODY, run=run) == (run / "ramd", "")


@pytest.mark.parametrize(("uid", "warned"), [(100, False), (1000, True)])
def test_place_is_the_shm_directory_otherwise(
    path: Path, disk: Path, uid: int, warned: bool
) -> None:
    shut = path.parent / "ramd"
    shut.mkdir(mode=0o700)
    for run in (disk.parent, path.parent, path.parent / "missing"):
        directory, warning = default_directory(uid=uid, run=run)
        assert directory == Path("/dev/shm")
        assert ("RemoveIPC" in warning) == warned
    os.chown(shut, UID, -1)
    assert default_directory(uid=UID, run=path.parent) == (shut, "")
