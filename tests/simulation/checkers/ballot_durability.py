"""Term and vote on disk never go back, and a term's vote is never changed (Raft Figure 2).

A node whose disk was wiped comes back under a new id, so an id stands for one disk for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.types import NO_NODE, HardState, NodeId
from tests.simulation.checkers.base import Checker, CheckFailed, Handler, Started, Synced


class BallotDurability(Checker):
    def __init__(self) -> None:
        self._last: dict[NodeId, HardState] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Started: self._durable, Synced: self._durable}

    def _durable(self, event: Started | Synced) -> None:
        node, ballot = event.node, event.disk.hard_state
        last = self._last.get(node)
        if last is ballot:
            return
        self._last[node] = ballot
        if last is None:
            return
        if ballot.term < last.term or ballot.commit < last.commit:
            raise CheckFailed(f"node {node} goes back from {last} to {ballot}")
        if ballot.term == last.term and last.vote not in (NO_NODE, ballot.vote):
            raise CheckFailed(f"node {node} votes twice in term {last.term}")
