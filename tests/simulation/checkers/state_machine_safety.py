"""State machine safety (Raft §5.4.3): everybody applies the same entry at an index, in order."""

from __future__ import annotations

from pgraft.core.types import Entry, NodeId
from tests.simulation.checkers.base import Applied, Checker, CheckFailed


class StateMachineSafety(Checker):
    def __init__(self) -> None:
        self._applied: dict[int, Entry] = {}
        self._position: dict[NodeId, int] = {}

    def on_restart(self, node: NodeId) -> None:
        self._position[node] = 0

    def on_apply(self, applied: Applied) -> None:
        node, entry = applied.node, applied.entry
        position = self._position.get(node, 0)
        if entry.index != position + 1:
            raise CheckFailed(f"node {node} applies {entry.index} after {position}")
        self._position[node] = entry.index
        first = self._applied.setdefault(entry.index, entry)
        if first != entry:
            raise CheckFailed(f"index {entry.index}: {node} applies {entry}, others {first}")
