"""Says what has changed in the group as seen from this node: one event for each change.

Must not live here: anything that acts on it. Start reading at `Herald.tell`.
"""

from __future__ import annotations

from ramd import events
from ramd.domain.consensus import GroupStatus
from ramd.domain.model import ClusterState


class Herald:
    """Remembers what was said last, so that nothing is said twice."""

    def __init__(self) -> None:
        self._formed = False
        self._quorum: bool | None = None
        self._epoch = 0

    def tell(self, status: GroupStatus, state: ClusterState) -> None:
        """Compare with the last time and speak of what differs."""
        if state.formed and not self._formed:
            self._formed = True
            events.emit(
                events.ClusterFormed(
                    cluster_name=state.cluster_name, member_count=len(state.members)
                )
            )
        if state.reign is not None and state.epoch != self._epoch:
            self._epoch = state.epoch
            events.emit(
                events.EpochBegan(
                    epoch=state.epoch, holder=state.reign.node_id, timeline=state.reign.timeline
                )
            )
        self._tell_quorum(status)

    def _tell_quorum(self, status: GroupStatus) -> None:
        if status.has_quorum and self._quorum is False:
            events.emit(events.QuorumBack(term=status.term))
        if not status.has_quorum and self._quorum:
            events.emit(events.QuorumLost(term=status.term))
        self._quorum = status.has_quorum
