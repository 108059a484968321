"""The daemon's half of the page.

Lives here: every store the daemon makes. Must not live here: when a lease may be published. Every
call is a few stores into memory. Start reading at `DaemonHalf.lease`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from pgraft.page.file import Page
from pgraft.page.layout import (
    BY_NAME,
    HEARD_FLAG,
    HOST_BYTES,
    LEADER_FLAG,
    MEMBER_WORDS,
    MEMBERS_MAX,
    NAME_BYTES,
    PLACES,
    PRIMARY_FLAG,
    START_MASK,
    WORD_BYTES,
    check_sum,
    text_words,
)

RAFT_ROLES = ("", "follower", "candidate", "leader", "learner")
"""By number; a candidate that only asks beforehand counts as one."""
_STATE = BY_NAME["STATE"]
_FIRST, _LAST = _STATE.start + 1, _STATE.start + _STATE.words - 1
_LEASE, _SEQ = PLACES["LEASE"], PLACES["STATE_SEQ"]
_BYTES = {field.name: field.count * WORD_BYTES for field in _STATE.fields if field.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageMember:
    """One member, as the page tells of it."""

    node_id: int
    name: str
    host: str
    raft_port: int
    postgresql_port: int
    raft_leader: bool = False
    primary: bool = False
    heard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPicture:
    """What the daemon knows of the group, as one coherent picture."""

    node_id: int
    raft_role: str = ""
    term: int = 0
    leader_id: int = 0
    epoch: int = 0
    primary_id: int = 0
    timeline: int = 0
    commit_index: int = 0
    applied_index: int = 0
    quorum: bool = False
    messages_taken: int = 0
    heartbeats_sent: int = 0
    elections_begun: int = 0
    cluster_name: str = ""
    daemon_version: str = ""
    members: tuple[PageMember, ...] = ()


class DaemonHalf:
    """The one writer of the daemon's words. What a predecessor killed half-way left is mended."""

    def __init__(self, page: Page) -> None:
        self._words = page.words
        # A writer that died left an odd number: going on from it would turn odd into even.
        self._words[_SEQ] = (self._words[_SEQ] | 1) + 1
        self.drain(0)

    @property
    def released_epoch(self) -> int:
        """The latch."""
        return int(self._words[PLACES["RELEASED_EPOCH"]])

    def latch(self, epoch: int) -> None:
        """No lease of `epoch` or before is ever used; it never falls. Before `close_lease`."""
        if epoch > self.released_epoch:
            self._words[PLACES["RELEASED_EPOCH"]] = epoch

    def drain(self, at_ns: int) -> None:
        """From `at_ns` (BOOTTIME) on a server that is fenced ends sessions that have an xid, and
        until it is said again flushes what WAL it has; 0: it does neither. Before `close_lease`."""
        self._words[PLACES["DRAIN_AT"]] = at_ns

    def lease(self, deadline_ns: int, start: int) -> None:
        """Start `start` of the server may acknowledge until `deadline_ns` (BOOTTIME), rounded down
        by at most START_MASK ns; nobody if that is not above 0. One store."""
        assert 0 < start <= START_MASK
        self._words[_LEASE] = (deadline_ns & ~START_MASK) | start if deadline_ns > 0 else 0

    def leased(self) -> tuple[int, int]:
        """(deadline ns, start number) as the word says now."""
        word = int(self._words[_LEASE])
        return word & ~START_MASK, word & START_MASK

    def close_lease(self) -> None:
        """Nobody may acknowledge anything."""
        self._words[_LEASE] = 0

    def heartbeat(self, now_ns: int, pid: int) -> None:
        """The daemon lives."""
        self._words[PLACES["DAEMON_HEARTBEAT"]] = now_ns
        self._words[PLACES["DAEMON_PID"]] = pid

    def end(self) -> None:
        """The daemon ends in order."""
        self._words[PLACES["DAEMON_PID"]] = 0

    def publish(self, picture: GroupPicture, now_ns: int) -> None:
        """Replace the picture of the group. Raises ValueError for more than MEMBERS_MAX members."""
        words = _state_words(picture, now_ns)
        words.append(check_sum(words))  # beforehand: the fewer moments in which nobody can read
        sequence = self._words[_SEQ]
        assert sequence % 2 == 0
        self._words[_SEQ] = sequence + 1
        self._words[_FIRST : _LAST + 1] = memoryview(words)
        self._words[_SEQ] = sequence + 2


def _state_words(picture: GroupPicture, now_ns: int) -> array[int]:
    if len(picture.members) > MEMBERS_MAX:
        raise ValueError(f"{len(picture.members)} members, a page holds {MEMBERS_MAX}")
    role = "candidate" if picture.raft_role.endswith("candidate") else picture.raft_role
    words = [
        now_ns,
        picture.node_id,
        RAFT_ROLES.index(role) if role in RAFT_ROLES else 0,
        picture.term,
        picture.leader_id,
        picture.epoch,
        picture.primary_id,
        picture.timeline,
        picture.commit_index,
        picture.applied_index,
        int(picture.quorum),
        picture.messages_taken,
        picture.heartbeats_sent,
        picture.elections_begun,
        len(picture.members),
        *text_words(picture.cluster_name, _BYTES["CLUSTER_NAME"]),
        *text_words(picture.daemon_version, _BYTES["DAEMON_VERSION"]),
    ]
    for member in picture.members:
        words += _member_words(member)
    return array("Q", words + [0] * (_LAST - _FIRST - len(words)))


def _member_words(member: PageMember) -> list[int]:
    flags = (
        LEADER_FLAG * member.raft_leader | PRIMARY_FLAG * member.primary | HEARD_FLAG * member.heard
    )
    words = [member.node_id, member.raft_port, member.postgresql_port, flags]
    words += text_words(member.name, NAME_BYTES) + text_words(member.host, HOST_BYTES)
    assert len(words) == MEMBER_WORDS
    return words
