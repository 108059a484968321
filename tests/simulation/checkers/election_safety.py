"""Election safety (Raft §5.2): at most one leader per term."""

from __future__ import annotations

from collections.abc import Sequence

from pgraft.core.types import Entry, NodeId, Term
from tests.simulation.checkers.base import Checker, CheckFailed


class ElectionSafety(Checker):
    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}

    def on_leader(self, node: NodeId, term: Term, log: Sequence[Entry]) -> None:
        first = self._leaders.setdefault(term, node)
        if first != node:
            raise CheckFailed(f"term {term} has two leaders: {first} and {node}")
