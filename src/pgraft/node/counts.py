"""What a member has done since it was started, as numbers for people and metrics.

Lives here: the counters and the status that shows them. Must not live here: who counts (`driver`).
Start reading at `Counts`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from pgraft.core.types import CoreEvent, EventKind, Heartbeat, Message, Status


@dataclass(slots=True)
class Counts:
    """Counted by the driver, from what goes through its hands."""

    messages_taken: int = 0
    """Messages of authenticated peers that the core has processed."""
    heartbeats_sent: int = 0
    """Raft heartbeats that the transport took, one for each peer."""
    elections_begun: int = 0
    """How often this member entered a term as a candidate; asking beforehand is none."""

    def sent(self, message: Message) -> None:
        """The transport took this message."""
        self.heartbeats_sent += isinstance(message, Heartbeat)

    def happened(self, event: CoreEvent) -> None:
        """The core told this."""
        self.elections_begun += event.kind is EventKind.CAMPAIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Status):
    """The core's picture, and what is counted beside it; see Counts."""

    messages_taken: int = 0
    heartbeats_sent: int = 0
    elections_begun: int = 0


def node_status(status: Status, counts: Counts) -> NodeStatus:
    """Both in one picture."""
    return NodeStatus(
        **{field.name: getattr(status, field.name) for field in fields(status)},
        messages_taken=counts.messages_taken,
        heartbeats_sent=counts.heartbeats_sent,
        elections_begun=counts.elections_begun,
    )
