"""A leader commits by counting only entries of its own term (Raft §5.4.2, Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.checkers.base import Checker, CheckFailed, Committed, Handler


class CommitRule(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Committed: self._committed}

    def _committed(self, committed: Committed) -> None:
        if committed.last_term != committed.term:
            raise CheckFailed(
                f"node {committed.node} leads term {committed.term} and commits up to an entry of "
                f"term {committed.last_term}, before any of its own"
            )
