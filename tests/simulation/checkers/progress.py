"""What a leader believes of a peer is true: next > match, and up to match the logs agree on disk.

A peer that has gone on to a later term owes this leader nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.checkers.base import Acked, Checker, CheckFailed, Handler


class ProgressTruth(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Acked: self._acked}

    def _acked(self, acked: Acked) -> None:
        if acked.next <= acked.match:
            raise CheckFailed(
                f"leader {acked.node} would send {acked.next} to {acked.peer}, "
                f"which holds everything to {acked.match}"
            )
        disk, match = acked.disk, acked.match
        if match <= disk.base or disk.hard_state.term > acked.term:
            return
        mine = acked.log.term_at(match)
        if mine is not None and disk.term_at(match) != mine:
            raise CheckFailed(
                f"leader {acked.node} of term {acked.term} counts on {acked.peer} for {match}, "
                f"which is of term {mine} here and of {disk.term_at(match)} there"
            )
