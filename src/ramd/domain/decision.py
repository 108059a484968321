"""What the coordinator decides, as values: goals, reasons, candidates (rule S8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, StartMode
from ramd.domain.observation import Attempt, Heard
from ramd.domain.sync import SyncGrant


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Change nothing. If `follow`, nodes are told to follow the recorded primary (unseal).

    If not, an attempt under way stays sealed; without one, nodes are told nothing at all.
    """

    follow: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Stop WAL intake everywhere under `attempt`; no renewal is answered from now on."""

    epoch: int
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOrder:
    """The `number`th of an attempt, under its seal: `node_id`, which holds WAL to `have`, gets what
    `source` has more of `timeline`, to `upto` (None: to wherever that turns out to end)."""

    number: int
    node_id: int
    source: int
    timeline: int
    have: Lsn
    upto: Lsn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Stay sealed; the order goes to the node that it names."""

    order: FetchOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTo:
    """Append the grant of `epoch` to `node_id` on `timeline`."""

    node_id: int
    epoch: int
    timeline: int
    start: StartMode
    parent_timeline: int | None = None
    seal_lsn: Lsn | None = None
    sync: SyncGrant | None = None
    """With whom the new primary begins; None in a cluster without a synchronous set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCoordinator:
    """Transfer Raft leadership to `node_id`; nodes keep following meanwhile."""

    node_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DropHandover:
    """Propose to cancel the requested handover of `epoch`, with the decision's reason."""

    epoch: int


Action: TypeAlias = Hold | Seal | Fetch | GrantTo | MoveCoordinator | DropHandover


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One node judged as a candidate: eligible, or the reason why not."""

    node_id: int
    eligible: bool
    reason: str
    lsn: Lsn | None = None
    timeline: int | None = None
    short: bool = False
    """Rejected for nothing but WAL that it lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """First matching rule, what it does, why, and when to look again (`wake_at_ns`, own clock)."""

    rule: str
    action: Action
    reason: str
    candidates: tuple[Verdict, ...] = ()
    inputs: tuple[str, ...] = ()
    wake_at_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """The coordinator's half of the lease, as facts for `decide`.

    `may_move_at_ns`: own clock; the epoch may move from then on (None: no grant yet, at once).
    `released`: the holder of the current epoch released it. `release_lsn`: its end of WAL if known.
    """

    may_move_at_ns: int | None
    released: bool = False
    release_lsn: Lsn | None = None
    release_timeline: int | None = None
    """The timeline that `release_lsn` is on; None: not known."""
    release_reason: str = ""
    holders: tuple[int, ...] = ()
    """Nodes that have confirmed all WAL to `release_lsn`, by the word of the one that released."""
    stands_by: bool = False
    """Its server runs on, fenced, and can resume under the next epoch."""
    spent: tuple[tuple[str, int], ...] = ()
    """Phases of the switchover until the release, ms."""
    doubt: str = ""
    """Why nobody shall fetch the WAL of its server; '' if it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchBegun:
    """An order and when it was first given, by the coordinator's clock."""

    order: FetchOrder
    begun_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SealAttempt:
    """The coordinator's failover attempt under way, and what was ordered to be fetched in it."""

    epoch: int
    attempt: Attempt
    begun_ns: int
    fetches: tuple[FetchBegun, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a daemon must remember from beat to beat for `decide`; folded by `ramd.policy.memory`.

    Times are the own clock. Kept while the daemon runs, also while it is not the coordinator.
    """

    served_epoch: int = 0
    """Highest epoch whose primary this daemon has heard serving since it started."""
    serving_since_ns: int | None = None
    """Since when, without a gap, the primary of the present epoch is heard serving."""
    heard_since_ns: int | None = None
    """Since when, without a gap, the holder of the present epoch is heard, whatever it says."""
    primary_lsn: Lsn | None = None
    """The furthest that the holder of the present epoch said its WAL goes."""
    epoch: int = 0
    """The present epoch when this was folded."""
    epoch_since_ns: int = 0
    """When this daemon first saw that epoch."""
    quick_ends: int = 0
    """Epochs in a row before it that a node got again itself and that soon ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voting:
    """Who has a voice in the group itself. `settled`: it is committed and nothing changes now.

    Empty where it is not known: then every member is taken for a voter.
    """

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    settled: bool = False

    def has(self, node_id: int) -> bool:
        """It belongs to the group, with or without a vote."""
        return node_id in self.voters or node_id in self.learners


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """Everything `decide` may look at: one coherent picture and one `now_ns`."""

    now_ns: int
    me: int
    term: int
    coordinator_since_ns: int
    """Since when it has coordinated and listened without standing still itself."""
    started_ns: int
    """When this daemon started (cold-start grace)."""
    state: ClusterState
    heard: dict[int, Heard]
    lease: LeaseView
    sealing: SealAttempt | None = None
    next_attempt: int = 1
    """Number of the next failover attempt in this term."""
    last_transfer_ns: int = 0
    """When this node last asked for a leadership transfer; own clock, 0 = never."""
    silent_after_ns: int = 2_000_000_000
    """A node not heard for this long counts as silent."""
    lease_ttl_ns: int = 3_000_000_000
    seal_wait_ns: int = 1_500_000_000
    """How long living nodes may take to report their sealed position."""
    ready: bool = True
    """An entry of the coordinator's own term is applied here."""
    memory: Memory = Memory()
    voting: Voting = Voting()


# --- between daemons and inside one node ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """What the coordinator tells every node at each beat: follow, or stay sealed.

    The only way to unseal is a Follow of an attempt not lower than the one that sealed (rule H2).
    """

    epoch: int
    attempt: Attempt
    sealed: bool
    fetch: FetchOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFacts:
    """What one node knows of its own standing when it plans."""

    me: int
    now_ns: int
    lease_epoch: int = 0
    lease_deadline_ns: int = 0
    released_epoch: int = 0
    opened_epoch: int = 0
    in_touch: bool = False
    """A coordinator of the present term has been heard lately: committed state is fresh."""
    sealed_attempt: Attempt | None = None
    """The attempt this node is sealed under, from its own disk; None once it was unsealed."""
    self_fenced: bool = False
    """The running server checks the lease itself: it need not be stopped when that ends."""
    removed: bool = False
    """This member was removed from its group, by the group's own word."""
    yielding_epoch: int = 0
    """The server of this epoch is being handed over: it is fenced for good in that epoch, runs on,
    and could resume in the next; 0: there is none."""
    adopt_until_ns: int = 0
    """A daemon that found its server running as primary when it started may wait until then for
    its first renewal; 0 = it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Leave the server as it is."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """Be the primary of `epoch` on `timeline`; only while the lease of that epoch is in hand."""

    epoch: int
    timeline: int
    start: StartMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Yield:
    """Hand the primary of `epoch` over: fenced, drained and replicated, it releases the lease and
    stands by. One that cannot be fenced is stopped cleanly instead."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The server of `epoch` is gone or must go: stop it at once, prove it dead, release."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Follow:
    """Be a replica of `upstream` (a node id), rejoining by the record of reigns if needed.

    `anew`: this copy of the data is kept aside first, and `upstream` cloned; '' none.
    """

    epoch: int
    upstream: int
    anew: str = ""

    def __repr__(self) -> str:
        # As it is logged: the order is rare, and its absence says nothing.
        order = f", anew={self.anew!r}" if self.anew else ""
        return f"Follow(epoch={self.epoch}, upstream={self.upstream}{order})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaySealed:
    """Run as a replica that takes WAL from nobody, and report the position under `attempt`.

    A server that still runs as primary is stopped at once first. With `fetch` it gets the WAL that
    another node has more, once, and reports again.
    """

    epoch: int
    attempt: Attempt
    fetch: FetchOrder | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The cluster is destroyed: stop the server and rename (or, if asked, remove) the data."""

    remove_data: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """This node was removed: its server is stopped, fenced, and its data stay as they are."""


Goal: TypeAlias = Wait | Lead | Yield | GiveUp | Follow | StaySealed | Leave | Withdraw
