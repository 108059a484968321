"""Leader completeness (Raft §5.4): a leader holds every entry committed in earlier terms."""

from __future__ import annotations

from collections.abc import Sequence

from pgraft.core.types import Entry, NodeId, Term
from tests.simulation.checkers.base import Applied, Checker, CheckFailed


class LeaderCompleteness(Checker):
    def __init__(self) -> None:
        self._committed: dict[int, tuple[Term, Term]] = {}

    def on_apply(self, applied: Applied) -> None:
        # Whoever applies it first is in the term of the leader that committed it, or a later one.
        entry = applied.entry
        self._committed.setdefault(entry.index, (entry.term, applied.term))

    def on_leader(self, node: NodeId, term: Term, log: Sequence[Entry]) -> None:
        for index, (entry_term, committed_in) in self._committed.items():
            if committed_in >= term:
                continue
            if index > len(log) or log[index - 1].term != entry_term:
                raise CheckFailed(f"leader {node} of term {term} lacks committed entry {index}")
