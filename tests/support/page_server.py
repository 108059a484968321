"""The server's half of a page, written in Python as the extension writes it, and a page under fire.

Lives here: a fake postmaster and worker, publishers that are killed, readers that count what they
see. Must not live here: what the tests expect. Start reading at `ServerHalf`, then `under_fire`.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from pgraft.page.file import Page
from pgraft.page.layout import (
    BY_NAME,
    MEMBER_PLACES,
    PLACES,
    SERVER_LOCK_BYTE,
    START_MASK,
    check_sum,
)
from pgraft.page.reader import group_picture, pulse
from pgraft.page.writer import DaemonHalf, GroupPicture, PageMember

DEADLINE_S = 60.0
SERVER_WORDS = ("PAGE_INODE", "SYSTEM_ID", "SERVER_VERSION", "STARTED_AT")


class ServerHalf:
    """The one writer of the server's words."""

    def __init__(self, page: Page) -> None:
        self._words = page.words
        self._inode = page.inode[1]

    def start(self, postmaster_pid: int, now_ns: int = 1, system_id: int = 1) -> int:
        """Another start; its number."""
        words = self._words
        words[PLACES["LEASE"]] = 0
        number = words[PLACES["SERVER_START"]] % START_MASK + 1
        words[PLACES["POSTMASTER_PID"]] = 0
        for name, value in zip(SERVER_WORDS, (self._inode, system_id, 180006, now_ns), strict=True):
            words[PLACES[name]] = value
        words[PLACES["SERVER_START"]] = number
        words[PLACES["POSTMASTER_PID"]] = postmaster_pid
        return int(number)

    def begin_worker(self) -> None:
        """Another worker publishes from now on."""
        sequence = PLACES["PULSE_SEQ"]
        self._words[sequence] = (self._words[sequence] | 1) + 1

    def pulse(self, **values: int | tuple[int, ...]) -> None:
        """Publish, word by word as a compiler would; what is not named is 0."""
        found: list[int] = []
        for field in BY_NAME["PULSE"].fields[1:-1]:
            value = values.get(field.name, 0)
            words = (value,) if isinstance(value, int) else value
            found += [*words, *[0] * (field.count - len(words))]
        self.pulse_words(found)

    def pulse_words(self, found: list[int]) -> None:
        """Publish all words between sequence number and check sum."""
        words, place = self._words, PLACES["PULSE_SEQ"]
        sequence, total = words[place], check_sum(found)
        words[place] = sequence + 1
        for number, word in enumerate(found, place + 1):
            words[number] = word
        words[PLACES["PULSE_CHECK"]] = total
        words[place] = sequence + 2


@contextmanager
def server_lock(path: Path) -> Iterator[None]:
    """Be a server's processes, as far as the lock tells."""
    with path.open("r+b") as file:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, SERVER_LOCK_BYTE, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, asked)
        yield


# --- under fire ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """What one reader saw: whole pictures, torn ones among them, and how often the bare words were
    torn when the sequence number and the check sum were ignored."""

    whole: int = 0
    torn: int = 0
    raw_torn: int = 0


@dataclass(slots=True)
class Fire:
    """What became of the publishers: how many were killed, how many of them half-way."""

    kills: int = 0
    half_way: int = 0


class StateUnderFire:
    """The daemon's picture: all its indexes, and a port at the block's far end, are one number."""

    name = "STATE"

    def __init__(self, page: Page) -> None:
        self._half = DaemonHalf(page)

    def publish(self, number: int) -> None:
        member = PageMember(node_id=1, name="n", host="h", raft_port=number, postgresql_port=number)
        picture = GroupPicture(
            node_id=1, term=number, commit_index=number, elections_begun=number, members=(member,)
        )
        self._half.publish(picture, number)

    @staticmethod
    def look(page: Page) -> bool | None:
        """Whether the picture is whole; None if there is none."""
        seen = group_picture(page)
        if seen is None:
            return None
        numbers = {seen.term, seen.commit_index, seen.elections_begun, seen.members[0].raft_port}
        return len(numbers) == 1

    @staticmethod
    def look_raw(page: Page) -> bool:
        before = page.words[PLACES["STATE_AT"]]
        start = PLACES["STATE_SEQ"]
        words = page.words[start : start + BY_NAME["STATE"].words].tolist()
        return bool(before == words[PLACES["MEMBERS"] + MEMBER_PLACES["RAFT_PORT"] - start])


class PulseUnderFire:
    """The worker's picture: all its words are one number."""

    name = "PULSE"

    def __init__(self, page: Page) -> None:
        self._half = ServerHalf(page)
        self._half.begin_worker()

    def publish(self, number: int) -> None:
        self._half.pulse_words([number] * (BY_NAME["PULSE"].words - 2))

    @staticmethod
    def look(page: Page) -> bool | None:
        seen = pulse(page)
        if seen is None:
            return None
        return seen.at_ns == seen.insert_lsn == seen.replayed_lsn == seen.ticks

    @staticmethod
    def look_raw(page: Page) -> bool:
        start = PLACES["PULSE_SEQ"]
        words = page.words[start + 1 : start + BY_NAME["PULSE"].words - 1].tolist()
        return len(set(words)) == 1


Block = type[StateUnderFire] | type[PulseUnderFire]


def fire_at_publishers(path: Path, block: Block, kills: int, answer: Connection) -> None:
    """Let one publisher after the other work for some pictures, and kill it wherever it is."""
    page = Page.open(path, uid=os.geteuid(), gid=os.getegid())
    place, rng, fire = PLACES[f"{block.name}_SEQ"], random.Random(7), Fire()
    while fire.kills < kills:
        enough = page.words[place] + rng.randrange(4, 200)
        pid = os.fork()
        if pid == 0:
            _publish_for_ever(page, block, fire.kills + 1)
        end_s = time.monotonic() + DEADLINE_S
        while page.words[place] < enough and time.monotonic() < end_s:
            os.sched_yield()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        fire.kills += 1
        fire.half_way += page.words[place] % 2
    block(page).publish(1)
    page.close()
    answer.send(fire)


def _publish_for_ever(page: Page, block: Block, life: int) -> None:
    try:
        publisher, number = block(page), life << 32
        while True:
            number += 1
            publisher.publish(number)
    finally:
        os._exit(1)


def watch(path: Path, block: Block, going: Callable[[], bool]) -> Seen:
    """Read for as long as it goes on."""
    page = Page.open(path, uid=os.geteuid(), gid=os.getegid(), lock=False)
    seen = Seen()
    while going():
        for _ in range(50):
            seen.raw_torn += not block.look_raw(page)
            seen.raw_torn += not block.look_raw(page)
            found = block.look(page)
            seen.whole += found is True
            seen.torn += found is False
    page.close()
    return seen


def watch_and_tell(path: Path, block: Block, orders: Connection) -> None:
    """`watch` in a process of its own, until an order comes."""
    orders.send(watch(path, block, lambda: not orders.poll()))


def under_fire(path: Path, block: Block, kills: int) -> tuple[Fire, list[Seen]]:
    """Publishers are killed one after the other while two processes read, this one among them."""
    context = get_context("spawn")
    fire_end, answer = context.Pipe()
    reader_end, orders = context.Pipe()
    processes = [
        context.Process(target=fire_at_publishers, args=(path, block, kills, answer)),
        context.Process(target=watch_and_tell, args=(path, block, orders)),
    ]
    for process in processes:
        process.start()
    try:
        end_s = time.monotonic() + DEADLINE_S
        own = watch(path, block, lambda: not fire_end.poll() and time.monotonic() < end_s)
        assert fire_end.poll(), "the publishers are killed in time"
        reader_end.send("enough")
        assert reader_end.poll(DEADLINE_S), "the other reader ends in time"
        return fire_end.recv(), [own, reader_end.recv()]
    finally:
        for process in processes:
            process.kill()
            process.join()
