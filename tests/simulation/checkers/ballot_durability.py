"""Term and vote on disk never go back, and a term's vote is never changed (Raft Figure 2)."""

from __future__ import annotations

from pgraft.core.types import NO_NODE, HardState, NodeId
from tests.simulation.checkers.base import Checker, CheckFailed


class BallotDurability(Checker):
    def __init__(self) -> None:
        self._last: dict[NodeId, HardState] = {}

    def on_durable(self, node: NodeId, hard_state: HardState) -> None:
        last = self._last.get(node, HardState())
        self._last[node] = hard_state
        if hard_state.term < last.term or hard_state.commit < last.commit:
            raise CheckFailed(f"node {node} goes back from {last} to {hard_state}")
        if hard_state.term == last.term and last.vote not in (NO_NODE, hard_state.vote):
            raise CheckFailed(f"node {node} votes twice in term {last.term}")
