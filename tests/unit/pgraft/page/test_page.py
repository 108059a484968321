"""The page: its layout, its file, and two halves that never show a torn picture."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgraft.page import layout
from pgraft.page.file import Page, PageError
from pgraft.page.layout import BLOCKS, PAGE_BYTES, PLACES, START_MASK
from pgraft.page.reader import counts, flush_stuck_ns, group_picture, pulse, server_start
from pgraft.page.writer import DaemonHalf, GroupPicture, PageMember

UID, GID = os.geteuid(), os.getegid()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ramd-page-", dir="/dev/shm") as folder:
        yield Path(folder, "page")


def opened(path: Path, *, lock: bool = True, make: bool = True) -> Page:
    return Page.open(path, uid=UID, gid=GID, lock=lock, make=make)


# --- layout --------------------------------------------------------------------------------------


def test_header_is_what_the_layout_says() -> None:
    assert layout.HEADER.read_text(encoding="utf-8") == layout.header()


def test_blocks_do_not_meet_and_stay_in_their_half() -> None:
    ends = 0
    for block in BLOCKS:
        assert block.start >= ends
        ends = block.start + block.words
        assert ends <= layout.WORDS
        assert not block.start < layout.WORDS // 2 < ends
    assert PLACES["LEASE"] % 8 == 0, "alone on its cache line"


def test_published_blocks_begin_with_their_number_and_end_with_their_sum() -> None:
    for block in BLOCKS:
        if block.published:
            assert block.fields[0].name.endswith("_SEQ")
            assert block.fields[-1].name.endswith("_CHECK")


@pytest.mark.parametrize("text", ["", "node1", "ä" * 40, "x" * 200])
def test_texts_are_cut_at_a_whole_character(text: str) -> None:
    shown = layout.words_text(layout.text_words(text, 32))
    assert text.startswith(shown)
    assert len(shown.encode()) <= 31


def test_command_compares_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert layout.main(["--check"]) == 0
    monkeypatch.setattr(layout, "HEADER", tmp_path / "page_layout.h")
    assert layout.main(["--check"]) == 1
    assert layout.main(["--write"]) == 0
    assert layout.main(["--check"]) == 0
    assert layout.main([]) == 2


# --- the file ------------------------------------------------------------------------------------


def test_page_is_made_allocated_and_private(path: Path) -> None:
    page = opened(path)
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o7777, found.st_uid) == (PAGE_BYTES, 0o600, UID)
    assert found.st_blocks * 512 >= PAGE_BYTES, "no hole"
    assert page.at_path()
    page.close()
    page.close()


def test_what_was_published_outlives_the_daemon(path: Path) -> None:
    first = opened(path)
    DaemonHalf(first).lease(10**18, 7)
    first.close()
    second = opened(path)
    assert DaemonHalf(second).leased() == (10**18 & ~START_MASK, 7)
    second.close()


def test_second_daemon_is_refused(path: Path) -> None:
    page = opened(path)
    with pytest.raises(PageError, match="another daemon"):
        opened(path)
    opened(path, lock=False).close()
    page.close()
    opened(path).close()


def written(path: Path, size: int = PAGE_BYTES, mode: int = 0o600) -> None:
    path.write_bytes(b"\0" * size)
    path.chmod(mode)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o400])
def test_page_that_others_can_reach_is_refused(path: Path, mode: int) -> None:
    written(path, mode=mode)
    with pytest.raises(PageError, match=r"mode|cannot be opened"):
        opened(path)


def test_page_of_the_wrong_size_is_refused_and_left_alone(path: Path) -> None:
    written(path, 4096)
    with pytest.raises(PageError, match="4096 bytes"):
        opened(path)
    assert path.stat().st_size == 4096


def test_unfinished_page_is_finished(path: Path) -> None:
    written(path, 0)
    opened(path).close()
    assert path.stat().st_size == PAGE_BYTES


def test_link_is_not_followed(path: Path) -> None:
    written(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(PageError, match="symbolic link"):
        opened(path)


def test_directory_is_no_page(path: Path) -> None:
    path.mkdir()
    with pytest.raises(PageError):
        opened(path)


def test_page_of_another_user_is_refused(path: Path) -> None:
    written(path)
    with pytest.raises(PageError, match="belongs to user"):
        Page.open(path, uid=UID + 1, gid=GID)


def test_page_on_a_disk_is_refused() -> None:
    with tempfile.TemporaryDirectory(prefix="ramd-page-", dir="/var/tmp") as folder:
        path = Path(folder, "page")
        written(path)
        with pytest.raises(PageError, match="on a disk"):
            opened(path)


def test_page_that_has_to_be_there_is_not_made(path: Path) -> None:
    with pytest.raises(PageError, match="does not exist"):
        opened(path, make=False)


def test_page_of_another_boot_begins_anew_in_place(path: Path) -> None:
    page = opened(path)
    half = DaemonHalf(page)
    half.lease(10**18, 7)
    half.latch(3)
    page.words[PLACES["BOOT"]] ^= 1
    inode = page.inode
    page.close()
    page = opened(path)
    assert page.inode == inode
    assert DaemonHalf(page).leased() == (0, 0)
    assert DaemonHalf(page).released_epoch == 0
    page.close()


def test_removed_page_is_reopened_through_whoever_holds_it(path: Path) -> None:
    page = opened(path)
    DaemonHalf(page).lease(10**18, 9)
    program = f"f = open({str(path)!r}, 'r+b'); print('open', flush=True); input()"
    pipe = subprocess.PIPE
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        path.unlink()
        assert not page.at_path()
        page.close()
        again = Page.open_through(holder.pid, path, uid=UID, gid=GID)
        assert again is not None
        assert DaemonHalf(again).leased()[1] == 9
        again.close()
        assert Page.open_through(holder.pid, path.with_name("other"), uid=UID, gid=GID) is None
    finally:
        holder.kill()
        holder.communicate()


# --- the two halves ------------------------------------------------------------------------------

MEMBER = PageMember(
    node_id=2,
    name="node2",
    host="db2",
    raft_port=1,
    postgresql_port=2,
    raft_leader=True,
    heard=True,
)
PICTURE = GroupPicture(
    node_id=1, raft_role="follower", term=4, cluster_name="demo", members=(MEMBER,)
)


def test_picture_of_the_group_comes_through(path: Path) -> None:
    page = opened(path)
    assert group_picture(page) is None
    DaemonHalf(page).publish(PICTURE, 5)
    assert group_picture(page) == PICTURE
    page.close()


def test_too_many_members_are_refused(path: Path) -> None:
    page = opened(path)
    with pytest.raises(ValueError, match="10 members"):
        DaemonHalf(page).publish(GroupPicture(node_id=1, members=(MEMBER,) * 10), 5)
    page.close()


def test_deadline_is_rounded_down_and_the_latch_never_falls(path: Path) -> None:
    page = opened(path)
    half = DaemonHalf(page)
    half.lease(0x12345678, 3)
    assert half.leased() == (0x12340000, 3)
    half.close_lease()
    assert half.leased() == (0, 0)
    half.latch(5)
    half.latch(4)
    assert half.released_epoch == 5
    page.close()


def test_successor_mends_an_odd_number(path: Path) -> None:
    page = opened(path)
    DaemonHalf(page).publish(PICTURE, 5)
    page.words[PLACES["STATE_SEQ"]] |= 1
    assert group_picture(page) is None
    successor = DaemonHalf(page)
    successor.publish(PICTURE, 6)
    assert page.words[PLACES["STATE_SEQ"]] % 2 == 0
    assert group_picture(page) == PICTURE
    page.close()


def test_server_half_of_a_blank_page(path: Path) -> None:
    page = opened(path)
    assert pulse(page) is None
    assert server_start(page).start == 0
    assert counts(page).dropped_acks == 0
    page.words[PLACES["FLUSH_BEGUN"]] = 10
    assert flush_stuck_ns(page, 25) == 15
    page.words[PLACES["FLUSH_ENDED"]] = 11
    assert flush_stuck_ns(page, 25) == 0
    page.close()
