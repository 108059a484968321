"""What a member has done since it was started, as numbers for people and metrics.

Lives here: the counters and the status that shows them. Must not live here: who counts (`driver`,
`writer`). Start reading at `NodeStatus`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol, runtime_checkable

from pgraft.core.types import (
    CoreEvent,
    EventKind,
    Heartbeat,
    InstallSnapshot,
    Message,
    Nanos,
    Status,
    Term,
)

ELECTIONS_KEPT: Final = 16
PAUSE_NS: Final = 50_000_000
"""A timer that fires this much late means that the loop stood still."""
_ELECTIONS: Final = {
    EventKind.CAMPAIGN: "campaign",
    EventKind.STEPPED_DOWN: "stepped down",
    EventKind.TRANSFER_STARTED: "transfer",
    EventKind.TRANSFER_ABORTED: "transfer aborted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionNote:
    """Something about who leads: when (CLOCK_BOOTTIME ns of this node), in which term, and why."""

    at_ns: Nanos
    term: Term
    reason: str


@dataclass(slots=True)
class LoopLag:
    """How late timers fire. `last_ns` is the latest, `max_ns` the longest since the start; a pause
    is one above `PAUSE_NS`, `pauses` counts them, `pause_ns` is the last one's length."""

    last_ns: Nanos = 0
    max_ns: Nanos = 0
    pauses: int = 0
    pause_ns: Nanos = 0

    def note(self, lag_ns: Nanos) -> bool:
        """Take one measurement; whether it was a pause."""
        self.last_ns = max(0, lag_ns)
        self.max_ns = max(self.max_ns, self.last_ns)
        paused = lag_ns > PAUSE_NS
        if paused:
            self.pauses += 1
            self.pause_ns = lag_ns
        return paused


@dataclass(slots=True)
class Counts:
    """Counted by the driver, from what goes through its hands."""

    messages_taken: int = 0
    """Messages of authenticated peers that the core has processed."""
    messages_dropped: int = 0
    """Messages of a flood that were not taken: Raft asks again."""
    heartbeats_sent: int = 0
    """Raft heartbeats that the transport took, one for each peer."""
    elections_begun: int = 0
    """How often this member entered a term as a candidate; asking beforehand is none."""
    snapshots_taken: int = 0
    """Snapshots of this member's own state that are durable."""
    snapshots_sent: int = 0
    """Snapshots that the transport took for a peer."""
    snapshots_installed: int = 0
    """Snapshots of a leader that took the place of this member's log."""
    elections: deque[ElectionNote] = field(default_factory=lambda: deque(maxlen=ELECTIONS_KEPT))

    def sent(self, message: Message) -> None:
        """The transport took this message."""
        self.heartbeats_sent += isinstance(message, Heartbeat)
        self.snapshots_sent += isinstance(message, InstallSnapshot)

    def happened(self, event: CoreEvent, now: Nanos) -> None:
        """The core told this."""
        self.elections_begun += event.kind is EventKind.CAMPAIGN
        what = _ELECTIONS.get(event.kind)
        if what is not None:
            reason = f"{what}: {event.detail}" if event.detail else what
            self.elections.append(ElectionNote(at_ns=now, term=event.term, reason=reason))


@runtime_checkable
class Counting(Protocol):
    """A transport that counts what it refuses and drops."""

    def refusals(self) -> Mapping[str, int]:
        """Refused connections, by cause."""
        ...

    def dropped(self) -> int:
        """Frames that no queue had room for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Status):
    """The core's picture, and what is counted beside it; see Counts and LoopLag.

    `disk_sync_ms` is (median, 99th percentile, longest) of the last writes of the log; `disk` is
    ok, low or full. `clock_off` is how much faster this machine's clock ran in the last ten seconds
    than its unadjusted one, as a fraction; above half the drift bound it is suspect.
    """

    messages_taken: int = 0
    messages_dropped: int = 0
    heartbeats_sent: int = 0
    elections_begun: int = 0
    elections: tuple[ElectionNote, ...] = ()
    snapshots_taken: int = 0
    snapshots_sent: int = 0
    snapshots_installed: int = 0
    log_entries: int = 0
    """Entries that the log holds beyond the newest durable snapshot."""
    disk_sync_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    disk: str = "ok"
    loop_pauses: int = 0
    loop_pause_last_ns: Nanos = 0
    loop_pause_max_ns: Nanos = 0
    clock_off: float = 0.0
    clock_suspect: bool = False
    refused: Mapping[str, int] = field(default_factory=dict)
    """Connections that were refused, by cause."""
    frames_dropped: int = 0


def node_status(status: Status, counts: Counts, lag: LoopLag, **others: Any) -> NodeStatus:
    """All in one picture; `others` are fields of NodeStatus that neither knows."""
    counted = {f.name: getattr(counts, f.name) for f in fields(counts) if f.name != "elections"}
    return NodeStatus(
        **{field.name: getattr(status, field.name) for field in fields(status)},
        **counted,
        elections=tuple(counts.elections),
        loop_pauses=lag.pauses,
        loop_pause_last_ns=lag.pause_ns,
        loop_pause_max_ns=lag.max_ns if lag.pauses else 0,
        **others,
    )
