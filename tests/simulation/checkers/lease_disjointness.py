"""No two epochs are ever held at once, in true time, and no earlier one is held again.

A lease is seen as its holder's server sees it: from the confirmation until the deadline, mapped
from the holder's clock to true time. A crash of the daemon does not end it (the server goes on);
only the deadline and the holder's own fence do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgraft.core.types import NodeId
from tests.simulation.checkers.base import Checker, CheckFailed, Fenced, Handler, Leased


@dataclass(slots=True)
class _Held:
    node: NodeId
    start: int
    end: int


class LeaseDisjointness(Checker):
    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._newest = 0

    def handlers(self) -> Mapping[type, Handler]:
        return {Leased: self._leased, Fenced: self._fenced}

    def _leased(self, leased: Leased) -> None:
        epoch, now = leased.epoch, leased.now
        held = self._held.setdefault(epoch, _Held(leased.node, now, leased.until))
        if held.node != leased.node:
            raise CheckFailed(f"epoch {epoch} is held by {held.node} and by {leased.node}")
        held.end = leased.until
        # Whatever begins from now on can only overlap with what has not ended yet.
        for other in [e for e, h in self._held.items() if e != epoch and h.end <= now]:
            del self._held[other]
        for other_epoch, other_held in self._held.items():
            if other_epoch != epoch:
                raise CheckFailed(
                    f"at {now} epoch {epoch} of node {leased.node} lasts until {held.end}, beside "
                    f"epoch {other_epoch} of node {other_held.node}, which began at "
                    f"{other_held.start} and lasts until {other_held.end}"
                )
        if epoch < self._newest:
            raise CheckFailed(f"epoch {epoch} is held again after epoch {self._newest}")
        self._newest = epoch

    def _fenced(self, fenced: Fenced) -> None:
        held = self._held.get(fenced.epoch)
        if held is not None and held.node == fenced.node:
            held.end = min(held.end, fenced.now)
