"""The server's half of the page, and the daemon's as others see it.

Lives here: bounded reading under the sequence numbers. Must not live here: what follows from what
was read. Start reading at `pulse`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgraft.page.file import Page
from pgraft.page.layout import (
    BY_NAME,
    HEARD_FLAG,
    HOST_BYTES,
    LEADER_FLAG,
    MEMBER_PLACES,
    MEMBER_WORDS,
    MEMBERS_MAX,
    NAME_BYTES,
    PLACES,
    PRIMARY_FLAG,
    READ_TRIES_MAX,
    WORD_BYTES,
    Block,
    check_sum,
    words_text,
)
from pgraft.page.writer import RAFT_ROLES, GroupPicture, PageMember

SUM_TRIES_MAX: Final = 16
"""Looks at a block whose sequence number is at rest but whose check sum is wrong. Stores that
another processor sees late arrive by then; what a killed writer left is wrong for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStart:
    """What the postmaster wrote when it started."""

    start: int
    """Its start number, 0 if no server ever had this page."""
    postmaster_pid: int
    inode: int
    system_id: int
    server_version: int
    started_at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The worker's picture; LSNs are bytes, 0 not known. See the PULSE block of the layout."""

    at_ns: int
    start: int
    worker_pid: int
    in_recovery: bool
    insert_lsn: int
    flushed_lsn: int
    received_lsn: int
    replayed_lsn: int
    receiving: bool
    replayed_commit_unix_us: int
    timeline: int
    parent_timeline: int
    switch_lsn: int
    sessions: int
    open_xids: int
    enforce: bool
    fenced: bool
    fenced_at_ns: int
    fence_lsn: int
    ticks: int
    sync_generation: int
    """Every process that may release a waiting commit has loaded this one, or a later one."""
    sync_defined: bool
    """Commits wait for synchronous replicas, as the processes see it that wait."""
    stream_flushed: tuple[int, ...] = ()
    """Of the members 1 to 9: what its stream has confirmed to be on its disk, 0 if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often the fence acted since the page was made."""

    refused_statements: int
    refused_commits: int
    dropped_acks: int
    dropped_sync: int
    ended_sessions: int
    weak_commits: int


def server_start(page: Page) -> ServerStart:
    """The words of one start: read again if another one begins meanwhile.

    The postmaster takes its process id out first and puts it in last, so `postmaster_pid` is 0 in
    what a start has not finished, and the words beside any other belong to it.
    """
    words = page.words
    for _ in range(READ_TRIES_MAX):
        start, pid = words[PLACES["SERVER_START"]], words[PLACES["POSTMASTER_PID"]]
        found = ServerStart(
            start=start,
            postmaster_pid=pid,
            inode=words[PLACES["PAGE_INODE"]],
            system_id=words[PLACES["SYSTEM_ID"]],
            server_version=words[PLACES["SERVER_VERSION"]],
            started_at_ns=words[PLACES["STARTED_AT"]],
        )
        if words[PLACES["SERVER_START"]] == start and words[PLACES["POSTMASTER_PID"]] == pid:
            return found
    return ServerStart(
        start=0, postmaster_pid=0, inode=0, system_id=0, server_version=0, started_at_ns=0
    )


def pulse(page: Page) -> Pulse | None:
    """The newest picture of the server; None if none was published or it cannot be read."""
    words = _published(page, BY_NAME["PULSE"])
    if words is None or words[0] == 0:
        return None
    return Pulse(
        at_ns=words[0],
        start=words[1],
        worker_pid=words[2],
        in_recovery=bool(words[3]),
        insert_lsn=words[4],
        flushed_lsn=words[5],
        received_lsn=words[6],
        replayed_lsn=words[7],
        receiving=bool(words[8]),
        replayed_commit_unix_us=words[9],
        timeline=words[10],
        parent_timeline=words[11],
        switch_lsn=words[12],
        sessions=words[13],
        open_xids=words[14],
        enforce=bool(words[15]),
        fenced=bool(words[16]),
        fenced_at_ns=words[17],
        fence_lsn=words[18],
        ticks=words[19],
        sync_generation=words[20],
        sync_defined=bool(words[21]),
        stream_flushed=tuple(words[22 : 22 + MEMBERS_MAX]),
    )


def counts(page: Page) -> Counts:
    """Each word by itself."""
    words = page.words
    return Counts(
        refused_statements=words[PLACES["REFUSED_STATEMENTS"]],
        refused_commits=words[PLACES["REFUSED_COMMITS"]],
        dropped_acks=words[PLACES["DROPPED_ACKS"]],
        dropped_sync=words[PLACES["DROPPED_SYNC"]],
        ended_sessions=words[PLACES["ENDED_SESSIONS"]],
        weak_commits=words[PLACES["WEAK_COMMITS"]],
    )


def flush_stuck_ns(page: Page, now_ns: int) -> int:
    """For how long the present flush of WAL has been under way; 0 if none is."""
    begun_ns = page.words[PLACES["FLUSH_BEGUN"]]
    ended_ns = page.words[PLACES["FLUSH_ENDED"]]
    return max(0, now_ns - begun_ns) if ended_ns < begun_ns else 0


def group_picture(page: Page) -> GroupPicture | None:
    """The daemon's picture as others read it; None if none was published or it cannot be read."""
    words = _published(page, BY_NAME["STATE"])
    if words is None or words[0] == 0:
        return None
    first = PLACES["STATE_SEQ"] + 1
    name = PLACES["CLUSTER_NAME"] - first
    version = PLACES["DAEMON_VERSION"] - first
    members = PLACES["MEMBERS"] - first
    return GroupPicture(
        node_id=words[1],
        raft_role=RAFT_ROLES[words[2]],
        term=words[3],
        leader_id=words[4],
        epoch=words[5],
        primary_id=words[6],
        timeline=words[7],
        commit_index=words[8],
        applied_index=words[9],
        quorum=bool(words[10]),
        messages_taken=words[11],
        heartbeats_sent=words[12],
        elections_begun=words[13],
        cluster_name=words_text(words[name:version]),
        daemon_version=words_text(words[version:members]),
        members=tuple(
            _member(words[members + number * MEMBER_WORDS :]) for number in range(words[14])
        ),
    )


def _published(page: Page, block: Block) -> list[int] | None:
    """The words between sequence number and check sum; None if no look in READ_TRIES_MAX was
    whole: its writer may have been stopped half-way."""
    words, start, end = page.words, block.start, block.start + block.words
    wrong = 0
    for _ in range(READ_TRIES_MAX):
        before = words[start]
        if before % 2:
            continue
        if before == 0:
            return None
        found: list[int] = words[start + 1 : end].tolist()
        if words[start] != before:
            continue
        check = found.pop()
        if check == check_sum(found):
            return found
        wrong += 1
        if wrong == SUM_TRIES_MAX:
            return None
    return None


def _member(words: list[int]) -> PageMember:
    flags = words[MEMBER_PLACES["FLAGS"]]
    name, host = MEMBER_PLACES["NAME"], MEMBER_PLACES["HOST"]
    return PageMember(
        node_id=words[MEMBER_PLACES["ID"]],
        name=words_text(words[name : name + NAME_BYTES // WORD_BYTES]),
        host=words_text(words[host : host + HOST_BYTES // WORD_BYTES]),
        raft_port=words[MEMBER_PLACES["RAFT_PORT"]],
        postgresql_port=words[MEMBER_PLACES["POSTGRESQL_PORT"]],
        raft_leader=bool(flags & LEADER_FLAG),
        primary=bool(flags & PRIMARY_FLAG),
        heard=bool(flags & HEARD_FLAG),
    )
