"""Leader append-only (Raft §5.3): a leader never removes or overwrites entries of its log."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.checkers.base import Checker, CheckFailed, Handler, Wrote


class AppendOnly(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Wrote: self._wrote}

    def _wrote(self, wrote: Wrote) -> None:
        if wrote.leading and wrote.cut is not None:
            raise CheckFailed(f"node {wrote.node} leads and cuts its log from {wrote.cut}")
