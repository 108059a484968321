"""Log matching (Raft §5.3): the same index and term mean the same entry after the same history.

Checked where entries enter a log: equal (index, term) must bring an equal entry after an equal
term. By induction the whole prefixes agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from pgraft.core.types import Entry, NodeId, Term
from tests.simulation.checkers.base import Checker, CheckFailed


class LogMatching(Checker):
    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Term, Entry]] = {}

    def on_entries(self, node: NodeId, prev_term: Term, entries: Sequence[Entry]) -> None:
        for entry in entries:
            mine = (prev_term, entry)
            known = self._known.setdefault((entry.index, entry.term), mine)
            if known != mine:
                raise CheckFailed(f"node {node} writes {mine}, elsewhere it is {known}")
            prev_term = entry.term
