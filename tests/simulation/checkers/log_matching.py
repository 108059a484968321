"""Log matching (Raft §5.3): the same index and term mean the same entry after the same history.

Checked where entries enter a log: equal (index, term) must bring an equal entry after an equal
term. By induction the whole prefixes agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.types import Entry, Term
from tests.simulation.checkers.base import Checker, CheckFailed, Handler, Wrote


class LogMatching(Checker):
    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Term | None, Entry]] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Wrote: self._wrote}

    def _wrote(self, wrote: Wrote) -> None:
        prev_term = wrote.prev_term
        for entry in wrote.entries:
            before, known = self._known.setdefault((entry.index, entry.term), (prev_term, entry))
            # After an installed snapshot nothing is known of what stood before.
            differs = None not in (before, prev_term) and before != prev_term
            if differs or (known is not entry and known != entry):
                raise CheckFailed(
                    f"node {wrote.node} writes {entry} after term {prev_term}, "
                    f"elsewhere it is {known} after term {before}"
                )
            prev_term = entry.term
