"""ReadIndex is linearizable (thesis §6.4): a read sees everything applied anywhere before it."""

from __future__ import annotations

from pgraft.core.types import NodeId
from tests.simulation.checkers.base import Applied, Checker, CheckFailed


class ReadFreshness(Checker):
    def __init__(self) -> None:
        self._newest = 0
        self._asked: dict[tuple[NodeId, int], int] = {}

    def on_apply(self, applied: Applied) -> None:
        self._newest = max(self._newest, applied.entry.index)

    def on_read_asked(self, node: NodeId, context: int) -> None:
        self._asked[node, context] = self._newest

    def on_read_done(self, node: NodeId, context: int, index: int) -> None:
        needed = self._asked[node, context]
        if index < needed:
            raise CheckFailed(f"node {node} may read at {index}, but {needed} was applied before")
