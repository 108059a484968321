"""Leader completeness (Raft §5.4): a leader holds every entry committed in earlier terms.

By log matching it is enough that it holds the newest of them. An entry counts as committed in the
term in which it was first applied anywhere, which is the term that committed it, or a later one.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.types import Index, Term
from tests.simulation.checkers.base import Applied, Checker, CheckFailed, Handler, Led


class LeaderCompleteness(Checker):
    def __init__(self) -> None:
        self._newest = Index(0)
        self._of_term: dict[Term, tuple[Index, Term]] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Applied: self._applied, Led: self._led}

    def _applied(self, applied: Applied) -> None:
        entry = applied.entry
        if entry.index > self._newest:
            self._newest = entry.index
            self._of_term[applied.term] = (entry.index, entry.term)

    def _led(self, led: Led) -> None:
        before = [last for term, last in self._of_term.items() if term < led.term]
        if not before:
            return
        index, term = max(before)
        if index > led.applied and led.log.term_at(index) != term:
            raise CheckFailed(
                f"leader {led.node} of term {led.term} lacks committed entry {index} of term {term}"
            )
