"""What each side reads of the other, and that no picture is ever torn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pgraft.page import reader
from pgraft.page.file import Page
from pgraft.page.layout import (
    BY_NAME,
    HOST_BYTES,
    MEMBERS_MAX,
    NAME_BYTES,
    PLACES,
    START_MASK,
    check_sum,
)
from pgraft.page.reader import Pulse, counts, group_picture, pulse, server_start
from pgraft.page.writer import DaemonHalf, GroupPicture, PageMember
from tests.support.page_server import (
    Block,
    PulseUnderFire,
    ServerHalf,
    StateUnderFire,
    under_fire,
)

UID, GID = os.geteuid(), os.getegid()
KILLS = 60
BOOLS = frozenset({"in_recovery", "receiving", "enforce", "fenced", "sync_defined"})


@pytest.fixture
def page() -> Iterator[Page]:
    with tempfile.TemporaryDirectory(prefix="ramd-page-", dir="/dev/shm") as folder:
        made = Page.open(Path(folder, "page"), uid=UID, gid=GID)
        yield made
        made.close()


# --- the daemon's half ---------------------------------------------------------------------------


def test_heartbeat_and_orderly_end(page: Page) -> None:
    half = DaemonHalf(page)
    half.heartbeat(123, 45)
    assert page.words[PLACES["DAEMON_HEARTBEAT"]] == 123
    assert page.words[PLACES["DAEMON_PID"]] == 45
    half.end()
    assert page.words[PLACES["DAEMON_PID"]] == 0
    assert page.words[PLACES["DAEMON_HEARTBEAT"]] == 123


def test_lease_is_never_longer_than_it_was_given(page: Page) -> None:
    half = DaemonHalf(page)
    for deadline_ns in (START_MASK + 1, 10**15 + 12345, (1 << 63) - 1):
        half.lease(deadline_ns, START_MASK)
        given_ns, start = half.leased()
        assert deadline_ns - START_MASK <= given_ns <= deadline_ns
        assert start == START_MASK
    for deadline_ns in (0, -1):
        half.lease(deadline_ns, 3)
        assert page.words[PLACES["LEASE"]] == 0
    half.lease(10**15, 3)
    half.close_lease()
    assert page.words[PLACES["LEASE"]] == 0


def test_latch_outlives_the_daemon_and_never_falls(page: Page) -> None:
    DaemonHalf(page).latch(7)
    successor = DaemonHalf(page)
    successor.latch(6)
    assert successor.released_epoch == 7
    successor.latch(8)
    assert successor.released_epoch == 8


def test_largest_picture_comes_through(page: Page) -> None:
    members = tuple(
        PageMember(
            node_id=number,
            name=f"node{number}",
            host=f"host{number}.example",
            raft_port=7000 + number,
            postgresql_port=5000 + number,
            raft_leader=number == 1,
            primary=number == 2,
            heard=number % 2 == 0,
        )
        for number in range(1, MEMBERS_MAX + 1)
    )
    numbers = {
        field.name: number
        for number, field in enumerate(fields(GroupPicture), 1 << 60)
        if field.type == "int"
    }
    texts = {"raft_role": "leader", "cluster_name": "demo", "daemon_version": "1.2.3"}
    picture = GroupPicture(**numbers, **texts, quorum=True, members=members)  # type: ignore[arg-type]
    DaemonHalf(page).publish(picture, 5)
    assert group_picture(page) == picture
    assert page.words[PLACES["STATE_AT"]] == 5


def test_texts_of_a_picture_end_at_a_whole_character(page: Page) -> None:
    member = PageMember(node_id=1, name="ä" * 40, host="ö" * 200, raft_port=1, postgresql_port=2)
    long = GroupPicture(
        node_id=1, cluster_name="€" * 40, daemon_version="x" * 40, members=(member, member)
    )
    DaemonHalf(page).publish(long, 5)
    seen = group_picture(page)
    assert seen is not None
    assert seen.cluster_name == "€" * 21, "63 bytes of 64"
    assert seen.daemon_version == "x" * 31
    assert seen.members[1].name == "ä" * ((NAME_BYTES - 1) // 2)
    assert seen.members[1].host == "ö" * ((HOST_BYTES - 1) // 2)


@pytest.mark.parametrize(
    ("role", "shown"),
    [("pre_candidate", "candidate"), ("learner", "learner"), ("nonsense", "")],
)
def test_roles_of_raft(page: Page, role: str, shown: str) -> None:
    DaemonHalf(page).publish(GroupPicture(node_id=1, raft_role=role), 5)
    seen = group_picture(page)
    assert seen is not None
    assert seen.raft_role == shown


def test_picture_that_cannot_be_written_leaves_the_old_one(page: Page) -> None:
    half, picture = DaemonHalf(page), GroupPicture(node_id=1, term=3)
    half.publish(picture, 5)
    member = PageMember(node_id=1, name="n", host="h", raft_port=1, postgresql_port=2)
    with pytest.raises(ValueError, match=f"10 members, a page holds {MEMBERS_MAX}"):
        half.publish(replace(picture, members=(member,) * (MEMBERS_MAX + 1)), 6)
    with pytest.raises(OverflowError):
        half.publish(replace(picture, term=-1), 6)
    assert group_picture(page) == picture


# --- the server's half ---------------------------------------------------------------------------


def test_each_start_has_another_number_and_takes_the_lease(page: Page) -> None:
    server, daemon = ServerHalf(page), DaemonHalf(page)
    assert server.start(70, now_ns=9, system_id=8) == 1
    seen = server_start(page)
    assert (seen.start, seen.postmaster_pid, seen.inode) == (1, 70, page.inode[1])
    assert (seen.system_id, seen.server_version, seen.started_at_ns) == (8, 180006, 9)
    daemon.lease(10**18, seen.start)
    assert server.start(71) == 2
    assert daemon.leased() == (0, 0)
    page.words[PLACES["SERVER_START"]] = START_MASK
    assert server.start(72) == 1, "0 is no start"


class Restarting:
    """Words of a page whose server starts anew while they are being read."""

    def __init__(self, page: Page, after: int) -> None:
        self.words = self
        self._words = page.words
        self._server = ServerHalf(page)
        self._left = after

    def __getitem__(self, place: int) -> int:
        self._left -= 1
        if self._left == 0:
            self._server.start(71, now_ns=2, system_id=71)
        return int(self._words[place])


@pytest.mark.parametrize("after", range(1, 9))
def test_words_of_two_starts_are_never_mixed(page: Page, after: int) -> None:
    ServerHalf(page).start(70, now_ns=1, system_id=70)
    seen = server_start(Restarting(page, after))  # type: ignore[arg-type]
    found = (seen.start, seen.postmaster_pid, seen.system_id, seen.started_at_ns)
    assert found in ((1, 70, 70, 1), (2, 71, 71, 2))


def test_start_that_was_not_finished_has_no_process(page: Page) -> None:
    """Killed between its first word and its last: nobody may take the words for the old start's."""
    ServerHalf(page).start(70, system_id=70)
    page.words[PLACES["POSTMASTER_PID"]] = 0
    page.words[PLACES["SYSTEM_ID"]] = 71
    assert server_start(page).postmaster_pid == 0


def test_pulse_has_every_word_of_its_block(page: Page) -> None:
    names = [field.name for field in BY_NAME["PULSE"].fields[1:-1]]
    assert len(names) == len(fields(Pulse))
    numbers: list[int | tuple[int, ...]] = list(range(10, 9 + len(names)))
    numbers.append(tuple(range(100, 109)))
    ServerHalf(page).pulse(**dict(zip(names, numbers, strict=True)))
    seen = pulse(page)
    assert seen is not None
    for field, number in zip(fields(Pulse), numbers, strict=True):
        wanted: object = True if field.name in BOOLS else number
        assert getattr(seen, field.name) == wanted
        assert isinstance(getattr(seen, field.name), bool) == (field.name in BOOLS)
    ServerHalf(page).pulse(PULSE_AT=1)
    seen = pulse(page)
    assert seen is not None
    assert not any(getattr(seen, name) for name in BOOLS)


def test_counts_are_the_words_of_their_block(page: Page) -> None:
    for number, field in enumerate(BY_NAME["COUNTS"].fields, 10):
        page.words[PLACES[field.name]] = number
    seen = counts(page)
    assert [getattr(seen, field.name) for field in fields(seen)] == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("word", [f.name for f in BY_NAME["PULSE"].fields])
def test_damage_in_any_word_of_a_block_is_noticed(page: Page, word: str) -> None:
    ServerHalf(page).pulse(PULSE_AT=5, INSERT_LSN=77)
    assert pulse(page) is not None
    page.words[PLACES[word]] ^= 1
    assert pulse(page) is None


def test_block_whose_writer_was_stopped_half_way_is_given_up(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd for ever, or mended by a successor that has not published yet: both are soon told."""
    server = ServerHalf(page)
    server.pulse(PULSE_AT=5)
    page.words[PLACES["PULSE_SEQ"]] += 1
    page.words[PLACES["INSERT_LSN"]] = 77
    assert pulse(page) is None
    server.begin_worker()
    assert page.words[PLACES["PULSE_SEQ"]] % 2 == 0
    summed: list[int] = []

    def counted(words: list[int]) -> int:
        summed.append(len(words))
        return check_sum(words)

    monkeypatch.setattr(reader, "check_sum", counted)
    assert pulse(page) is None
    assert len(summed) == reader.SUM_TRIES_MAX, "its sum will not come right by looking"
    server.pulse(PULSE_AT=6)
    seen = pulse(page)
    assert seen is not None
    assert seen.at_ns == 6


def test_successor_of_a_writer_that_was_stopped_half_way_keeps_the_parity(page: Page) -> None:
    picture = GroupPicture(node_id=1, term=3)
    for _ in range(2):  # from odd, and from even
        DaemonHalf(page).publish(picture, 5)
        assert page.words[PLACES["STATE_SEQ"]] % 2 == 0
        assert group_picture(page) == picture
        page.words[PLACES["STATE_SEQ"]] += 1
        page.words[PLACES["TERM"]] = 4
        assert group_picture(page) is None


# --- under fire ----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [StateUnderFire, PulseUnderFire], ids=["daemon", "server"])
def test_no_torn_picture_whatever_becomes_of_the_writer(page: Page, block: Block) -> None:
    """Publishers are killed wherever they are, one after the other; two processes read. Readers
    that ignore sequence number and check sum see torn pictures: the fire is hot enough."""
    path = page.path
    page.close()
    fire, seen = under_fire(path, block, KILLS)
    assert fire.kills == KILLS
    if block is PulseUnderFire:
        assert fire.half_way > 0, "the fake worker spends most of its time half-way"
    assert sum(one.raw_torn for one in seen) > 0, "this fire would have shown a torn picture"
    for one in seen:
        assert one.torn == 0
        assert one.whole > 100
