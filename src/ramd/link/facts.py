"""pgraft's own picture of a member, in our vocabulary: for people and metrics, never for decisions.

Lives here: the translation, and the few counts that pgraft leaves to its host. Start reading at
`Facts.now`.
"""

from __future__ import annotations

from collections import Counter

from pgraft.core.types import Config, CoreEvent, EventKind, NodeId
from pgraft.net.channel import Channel
from pgraft.node import Node, NodeStatus
from ramd.domain.raft import Counts, PeerFacts, RaftFacts
from ramd.link.removal import RemovalWatch

NS_PER_MS = 1_000_000


class Facts:
    """Hears the core's events and makes `RaftFacts` on demand."""

    def __init__(self, channel: Channel, group_id: str) -> None:
        self._channel = channel
        self._group_id = group_id
        self._elections: Counter[str] = Counter()
        self.removal: RemovalWatch | None = None

    def happened(self, event: CoreEvent) -> None:
        """The core told this."""
        if event.kind is EventKind.CAMPAIGN:
            self._elections[event.detail or "timeout"] += 1

    def removed(self, committed: Config) -> str:
        """How it is known that this member was removed; '' if it was not."""
        return self.removal.known(committed) if self.removal is not None else ""

    def now(self, node: Node) -> RaftFacts:
        """The picture of this moment."""
        status = node.status()
        config = status.config
        learners = (config.learners | config.learners_next) - config.voters
        return RaftFacts(
            role=status.role.value,
            term=int(status.term),
            commit_index=int(status.commit),
            applied_index=int(status.applied),
            last_index=int(status.last_index),
            group_id=self._group_id,
            voters=_ids(config.voters),
            outgoing=_ids(config.outgoing),
            learners=_ids(learners),
            peers=self._peers(status),
            loop_lag_ms=node.loop_lag.last_ns // NS_PER_MS,
            loop_lag_max_ms=node.loop_lag.max_ns // NS_PER_MS,
            counts=self._counts(status),
        )

    def _peers(self, status: NodeStatus) -> tuple[PeerFacts, ...]:
        config = status.config
        everybody = config.voters | config.outgoing | config.learners | config.learners_next
        return tuple(
            PeerFacts(
                node_id=int(node),
                connected=self._channel.transport.linked(node),
                match_index=_whole(status.match.get(node)),
                contact_ns=_whole(status.last_contact_ns.get(node)),
            )
            for node in sorted(everybody - {status.node})
        )

    def _counts(self, status: NodeStatus) -> Counts:
        return Counts(
            messages_taken=status.messages_taken,
            heartbeats_sent=status.heartbeats_sent,
            elections=tuple(sorted(self._elections.items())),
        )


def _ids(nodes: frozenset[NodeId]) -> tuple[int, ...]:
    return tuple(sorted(int(node) for node in nodes))


def _whole(value: int | None) -> int | None:
    return None if value is None else int(value)
