"""What a log holds: node ids, terms, entries, configurations, grants, snapshots, hard state.

Lives here: frozen values only, all of which are written to disk. Must not live here: behaviour,
messages and what the core tells its host (see `types`, which also re-exports every name of this
file: import from there). Start reading at `Entry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, TypeAlias

NodeId = NewType("NodeId", int)
Term = NewType("Term", int)
Index = NewType("Index", int)
Nanos: TypeAlias = int

NO_NODE = NodeId(0)
"""Vote or leader is nobody. Real node ids start at 1."""


class EntryKind(IntEnum):
    """What a log entry carries. Values are stored on disk: never renumber."""

    NOOP = 0
    COMMAND = 1
    CONFIG = 2
    GRANT = 3
    TTL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRecord:
    """Who a member is and where its peers dial it.

    `uuid` stands for one state directory (`pgraft.identity`). `since` is the index of the CONFIG
    entry that admitted it, 0 for a founder: of two records of one node id the later is the true
    one.
    """

    node: NodeId
    uuid: str
    address: str
    since: Index = Index(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Who votes. Effective from the moment it is appended (thesis §4.1), reverted on truncation.

    `outgoing` is empty outside a joint change; `learners_next` become learners when it is left.
    `peers` says who the members are, by node id; `removed` holds the uuids of former members,
    newest last and bounded, so that one which comes back can be told that it was removed. Both are
    empty where the host does not use them (tests of the bare algorithm).
    """

    voters: frozenset[NodeId]
    outgoing: frozenset[NodeId] = frozenset()
    learners: frozenset[NodeId] = frozenset()
    learners_next: frozenset[NodeId] = frozenset()
    auto_leave: bool = False
    peers: tuple[PeerRecord, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a change of membership wants; all of it takes effect together or not at all.

    Changes that touch no voter are one entry; any other goes through a joint configuration, which
    is left by itself. Replacing a dead member is one change: remove it, promote a learner.
    """

    add_learners: tuple[PeerRecord, ...] = ()
    promote: frozenset[NodeId] = frozenset()
    demote: frozenset[NodeId] = frozenset()
    remove: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The right of `holder` to be the one primary of `epoch`; each renewal lasts `ttl_ns`.

    Valid only directly after epoch-1 (`apply` ignores any other). `payload` is the host's.
    """

    holder: NodeId
    epoch: int
    ttl_ns: Nanos
    payload: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class TtlChange:
    """From its commit on renewals of `epoch` last `ttl_ns`; void if another epoch is applied.

    No answer uses a ttl before it is committed, and a coordinator waits for the longest that an
    unexpired lease could have: so a longer lease is known to whoever may have to wait for it.
    """

    epoch: int
    ttl_ns: Nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who proposed a command, so that one that is proposed twice is applied once (thesis §6.3).

    `session` is drawn by one run of a member, `serial` counts its commands from 1; it waits for
    none at or below `floor` any more. `session` 0: not told apart, applied as often as it is
    committed.
    """

    session: int = 0
    serial: int = 0
    floor: int = 0


NO_ORIGIN = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One log entry. `data` for COMMAND, `config` for CONFIG, `grant` for GRANT, `ttl` for TTL,
    else empty."""

    term: Term
    index: Index
    kind: EntryKind
    data: bytes = b""
    config: Config | None = None
    grant: Grant | None = None
    ttl: TtlChange | None = None
    origin: Origin = NO_ORIGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is remembered of one session: every serial up to `floor`, and those of `done`, are
    applied or given up."""

    session: int
    floor: int
    done: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """The last grant applied, and the longest ttl that a lease of its epoch may still have.

    `ttl_ns` is what answers carry now, `longest_ns` what they ever carried in this epoch: they
    differ after a ttl was lowered. That the longer leases are over is not in the log; each member
    knows it by when it applied the change (`lease.Granter.applied`).
    """

    grant: Grant | None = None
    ttl_ns: Nanos = 0
    longest_ns: Nanos = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that entries up to `index` have done: takes the place of that part of the log.

    `config` is the configuration in effect at `index`, which is committed. `data` is the host's
    state. One frame, at most `limits.SNAPSHOT_BYTES_MAX` of data.
    """

    index: Index
    term: Term
    config: Config
    lease: LeaseTerms = LeaseTerms()
    sessions: tuple[Session, ...] = ()
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardState:
    """What must be durable before any message that depends on it leaves (Raft §5, Figure 2)."""

    term: Term = Term(0)
    vote: NodeId = NO_NODE
    commit: Index = Index(0)
