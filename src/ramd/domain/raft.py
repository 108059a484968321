"""How this node's member of the Raft group is, for people and metrics; never for decisions.

Lives here: frozen values only; `ramd.link` fills them. Times are CLOCK_BOOTTIME nanoseconds of this
node. None always means "not known", never zero.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFacts:
    """Another member as this one sees it. `match_index` is known to the coordinator alone."""

    node_id: int
    connected: bool
    """This node's own connection to it is usable."""
    match_index: int | None = None
    """Up to here its log is known to be the coordinator's."""
    contact_ns: int | None = None
    """When it was last heard by Raft."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionFacts:
    """One election that this member began: when, for which term, and why."""

    at_ns: int
    term: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """How long recent syncs of the group's log took, ms."""

    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted since the member was opened."""

    messages_taken: int = 0
    heartbeats_sent: int = 0
    elections: tuple[tuple[str, int], ...] = ()
    """Elections begun by this member, by reason."""
    frames_dropped: int = 0
    """Frames that a full queue did not take."""
    refused: tuple[tuple[str, int], ...] = ()
    """Connections between daemons refused by either side, by code."""
    pauses: int = 0
    """How often the event loop stood still for longer than 50 ms."""
    snapshots_taken: int = 0
    snapshots_sent: int = 0
    snapshots_installed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftFacts:
    """This node's member at one moment."""

    role: str
    """follower, pre_candidate, candidate or leader: Raft's words."""
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    voters: tuple[int, ...]
    group_id: str = ""
    """The group's own id, which members prove to each other."""
    outgoing: tuple[int, ...] = ()
    """Not empty while a joint change is under way: the voters that it leaves."""
    learners: tuple[int, ...] = ()
    snapshot_index: int = 0
    log_entries: int = 0
    peers: tuple[PeerFacts, ...] = ()
    elections: tuple[ElectionFacts, ...] = ()
    """The latest ones, oldest first."""
    disk: DiskFacts | None = None
    """None: nothing has been synced yet."""
    loop_lag_ms: int = 0
    loop_lag_max_ms: int = 0
    transfer_to: int | None = None
    """To whom coordination is being handed over."""
    longest_ttl_ms: int = 0
    """The longest lease that this member has seen granted; 0: none."""
    counts: Counts = Counts()

    @property
    def majority(self) -> int:
        """How many voters have to agree; in a joint change, of the larger side."""
        return max(len(self.voters), len(self.outgoing)) // 2 + 1

    def peer(self, node_id: int) -> PeerFacts | None:
        """What is known of another member."""
        return next((peer for peer in self.peers if peer.node_id == node_id), None)
