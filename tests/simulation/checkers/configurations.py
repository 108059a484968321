"""Membership (thesis §4): one change at a time, and every two that follow each other meet.

A leader appends a configuration only when the one before it is committed, so that at most one is
effective without being committed. Quorums of consecutive configurations always share a voter: that
is what keeps two of them from deciding apart.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.checkers.base import Checker, CheckFailed, Configured, Handler
from tests.simulation.checkers.quorums import all_meet


class Configurations(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Configured: self._configured}

    def _configured(self, configured: Configured) -> None:
        before, after = configured.before, configured.after
        if configured.leading and configured.before_index > configured.commit:
            raise CheckFailed(
                f"leader {configured.node} appends a configuration while the one at "
                f"{configured.before_index} is not committed (commit is {configured.commit})"
            )
        if not after.voters:
            raise CheckFailed(f"node {configured.node} takes a configuration without voters")
        if before.voters and not all_meet(before, after):
            raise CheckFailed(
                f"node {configured.node}: a quorum of {before} and one of {after} have nobody "
                "in common"
            )
