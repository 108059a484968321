"""The nouns of the consensus core: messages, Ready, events; and, from `entries`, what a log holds.

Lives here: frozen values only, shared by the core, the wire codec, the storage and the shell.
Must not live here: behaviour, clocks, I/O, encodings. Start reading at `Ready`: it is the contract
between the core and its host.

Time is CLOCK_BOOTTIME in nanoseconds, handed in by the host; it counts suspend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from pgraft.core.entries import NO_NODE as NO_NODE
from pgraft.core.entries import NO_ORIGIN as NO_ORIGIN
from pgraft.core.entries import Change as Change
from pgraft.core.entries import Config as Config
from pgraft.core.entries import Entry as Entry
from pgraft.core.entries import EntryKind as EntryKind
from pgraft.core.entries import Grant as Grant
from pgraft.core.entries import HardState as HardState
from pgraft.core.entries import Index as Index
from pgraft.core.entries import LeaseTerms as LeaseTerms
from pgraft.core.entries import Nanos as Nanos
from pgraft.core.entries import NodeId as NodeId
from pgraft.core.entries import Origin as Origin
from pgraft.core.entries import PeerRecord as PeerRecord
from pgraft.core.entries import Session as Session
from pgraft.core.entries import Snapshot as Snapshot
from pgraft.core.entries import Term as Term
from pgraft.core.entries import TtlChange as TtlChange

# ---------------------------------------------------------------------------------------------
# Messages between members. Each is one frame; the sender's id travels in the frame, not here.


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRequest:
    """Raft §5.2, §5.4.1; `pre` is PreVote (thesis §9.6). A transfer waives leader stickiness."""

    term: Term
    last_index: Index
    last_term: Term
    pre: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteReply:
    """`contact_age_ns`: how long ago the voter heard any leader, if granted (dates a lease).

    `suspect`: the voter's clock runs off by more than half the drift bound: its age dates nothing.
    """

    term: Term
    granted: bool
    pre: bool = False
    contact_age_ns: Nanos | None = None
    suspect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """AppendEntries with entries (Raft §5.3). Also a contact with the leader."""

    term: Term
    prev_index: Index
    prev_term: Term
    commit: Index
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendReply:
    """`ok`: `match` is durable on the sender. Else `hint_*`: where the leader should look next."""

    term: Term
    ok: bool
    match: Index = Index(0)
    rejected: Index = Index(0)
    hint_index: Index = Index(0)
    hint_term: Term = Term(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Leader's beat; `round` numbers quorum rounds (ReadIndex, lease confirmation)."""

    term: Term
    commit: Index
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """The member heard the leader of this term in this round; round 0 proves nothing.

    `last_index`: where its log ended then, durable or not; None where that is not told.
    """

    term: Term
    round: int
    last_index: Index | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSnapshot:
    """The entries a follower needs are gone from the leader's log: this stands for them (Raft §7).

    Answered by an AppendReply whose `match` is at least the snapshot's index, once it is durable.
    """

    term: Term
    snapshot: Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutNow:
    """Leadership transfer: campaign at once (thesis §3.10)."""

    term: Term


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """A follower asks the leader for a read index; `context` comes back in the reply."""

    term: Term
    context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReply:
    """`index` None: the leader cannot serve it now; ask again."""

    term: Term
    context: int
    index: Index | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """The holder of `epoch` asks for one more ttl counted from `sent_at_ns` of its own clock.

    `boot` identifies one run of the holder's daemon, so a restarted daemon is told from its
    predecessor; `sent_at_ns` is only ever compared with values of the same boot.
    """

    epoch: int
    boot: int
    sent_at_ns: Nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewReply:
    """Echoes the request. `ttl_ns` is the only ttl the holder may compute with; 0 = refused."""

    epoch: int
    boot: int
    sent_at_ns: Nanos
    ttl_ns: Nanos
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The holder of `epoch` has fenced itself for good. Void if a renewal of that boot with a
    later `sent_at_ns` was received. `evidence` is the host's (end of WAL, reason)."""

    epoch: int
    boot: int
    sent_at_ns: Nanos
    evidence: bytes = b""


Message: TypeAlias = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | InstallSnapshot
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | ReadRequest
    | ReadReply
    | Renew
    | RenewReply
    | Release
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message and whom it is for (never this node: the core loops those back itself)."""

    to: NodeId
    message: Message


# ---------------------------------------------------------------------------------------------
# What the core tells its host


class Role(StrEnum):
    """Raft roles. Nothing to do with a PostgreSQL server's role."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadDone:
    """A read asked with `context` may be served once the host has applied `index`.

    `index` None: it cannot be confirmed (leadership lost); the caller asks again.
    """

    context: int
    index: Index | None


class EventKind(StrEnum):
    """What a `CoreEvent` is about. PAUSED: this process stood still for longer than E.

    REMOVED: a committed configuration no longer holds this node. REGRESSED: a peer forgot what it
    had confirmed (`detail` is its node id). CLOCK: the host called its own clock suspect, or sound.
    """

    ROLE_CHANGED = "role_changed"
    LEADER_CHANGED = "leader_changed"
    CAMPAIGN = "campaign"
    STEPPED_DOWN = "stepped_down"
    TRANSFER_STARTED = "transfer_started"
    TRANSFER_ABORTED = "transfer_aborted"
    LEASE_CONFIRMED = "lease_confirmed"
    LEASE_REFUSED = "lease_refused"
    RELEASED = "released"
    PAUSED = "paused"
    CONFIG_CHANGED = "config_changed"
    REMOVED = "removed"
    REGRESSED = "regressed"
    SNAPSHOT_SENT = "snapshot_sent"
    SNAPSHOT_INSTALLED = "snapshot_installed"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreEvent:
    """Something worth a log line and a metric: kind, term, and a few plain facts."""

    kind: EventKind
    term: Term
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """One batch of work for the host, in this order:

    1. send `send_now` (a leader's appends and heartbeats need not wait for its own disk);
    2. if `token` is not None: write `snapshot`, `truncate_from`, `entries` and `hard_state` as ONE
       batch, one sync, then call `Raft.persisted(token, now)`. A snapshot takes the place of
       everything in the log (`entries` begin after it) and is durable before the batch that follows
       it. Each Ready carries in `send_after_sync` the messages that must leave only after THIS
       batch is durable;
    3. if there is a `snapshot`, replace the host's state by its `data`; then apply `committed` in
       order (each exactly once), answer `reads`, log `events`.

    The host may take the next Ready before the previous batch is durable; batches must become
    durable in token order.
    """

    token: int | None = None
    snapshot: Snapshot | None = None
    hard_state: HardState | None = None
    truncate_from: Index | None = None
    entries: tuple[Entry, ...] = ()
    send_now: tuple[Outgoing, ...] = ()
    send_after_sync: tuple[Outgoing, ...] = ()
    committed: tuple[Entry, ...] = ()
    reads: tuple[ReadDone, ...] = ()
    events: tuple[CoreEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A picture of the core for people and metrics; never used for decisions about safety.

    `config` is in effect, committed or not. `transfer_to`: whom leadership is being handed to.
    """

    node: NodeId
    role: Role
    term: Term
    leader: NodeId
    commit: Index
    applied: Index
    last_index: Index
    config: Config
    committed_config: Config
    snapshot_index: Index = Index(0)
    transfer_to: NodeId = NO_NODE
    match: dict[NodeId, Index] = field(default_factory=dict)
    last_contact_ns: dict[NodeId, Nanos] = field(default_factory=dict)
    epoch: int = 0
    holder: NodeId = NO_NODE


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times of one member, ns. `election_ns` is E: timeouts are drawn from (E, 2E]."""

    heartbeat_ns: Nanos = 100_000_000
    election_ns: Nanos = 600_000_000
    lease_ttl_ns: Nanos = 3_000_000_000
    drift: float = 0.01
    scheduling_ns: Nanos = 100_000_000
    """Added to the coordinator's wait; bounds scheduling, not correctness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What storage found at start: input of `Raft`. `entries` begin right after the snapshot, or at
    index 1 without one."""

    hard_state: HardState
    entries: tuple[Entry, ...] = ()
    config: Config | None = None
    """Configuration before the first entry (the founding list); a snapshot's counts more."""
    snapshot: Snapshot | None = None


class SafetyViolation(Exception):
    """A property Raft guarantees was seen broken. The host must stop: trust nothing here."""


class ProposalRefused(Exception):
    """The core cannot take this now. `reason` is one stable word; `leader` may be asked."""

    def __init__(self, reason: str, leader: NodeId = NO_NODE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.leader = leader
