"""pgraft's own picture of a member, in our vocabulary: for people and metrics, never for decisions.

Lives here: the translation, and the few counts that pgraft leaves to its host. Start reading at
`Facts.of`.
"""

from __future__ import annotations

from collections import Counter

from pgraft.core.types import Config, CoreEvent, EventKind, NodeId
from pgraft.net.channel import Channel
from pgraft.node import NodeStatus
from pgraft.node.counts import LoopLag
from ramd.domain.raft import Counts, DiskFacts, ElectionFacts, PeerFacts, RaftFacts
from ramd.link.removal import RemovalWatch
from ramd.link.state_copy import StateCopy

NS_PER_MS = 1_000_000


class Facts:
    """Hears the core's events and makes `RaftFacts` on demand."""

    def __init__(
        self, channel: Channel, copy: StateCopy, removal: RemovalWatch, *, group_id: str
    ) -> None:
        self._channel = channel
        self._group_id = group_id
        self._elections: Counter[str] = Counter()
        self._removal = removal
        self._copy = copy

    def happened(self, event: CoreEvent) -> None:
        """The core told this."""
        if event.kind is EventKind.CAMPAIGN:
            self._elections[event.detail or "timeout"] += 1

    def removed(self, committed: Config) -> str:
        """How it is known that this member was removed; '' if it was not."""
        return self._removal.known(committed)

    def of(self, status: NodeStatus, lag: LoopLag) -> RaftFacts:
        """The picture of the moment at which pgraft gave `status`."""
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
            snapshot_index=int(status.snapshot_index),
            log_entries=status.log_entries,
            peers=self._peers(status),
            elections=tuple(
                ElectionFacts(at_ns=note.at_ns, term=int(note.term), reason=note.reason)
                for note in status.elections
            ),
            disk=_disk(status),
            loop_lag_ms=lag.last_ns // NS_PER_MS,
            loop_lag_max_ms=lag.max_ns // NS_PER_MS,
            transfer_to=int(status.transfer_to) or None,
            longest_ttl_ms=self._copy.longest_ttl_ns // NS_PER_MS,
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
            frames_dropped=status.frames_dropped,
            refused=tuple(sorted(status.refused.items())),
            pauses=status.loop_pauses,
            snapshots_taken=status.snapshots_taken,
            snapshots_sent=status.snapshots_sent,
            snapshots_installed=status.snapshots_installed,
        )


def _disk(status: NodeStatus) -> DiskFacts | None:
    p50_ms, p99_ms, max_ms = status.disk_sync_ms
    return DiskFacts(p50_ms=p50_ms, p99_ms=p99_ms, max_ms=max_ms) if max_ms else None


def _ids(nodes: frozenset[NodeId]) -> tuple[int, ...]:
    return tuple(sorted(int(node) for node in nodes))


def _whole(value: int | None) -> int | None:
    return None if value is None else int(value)
