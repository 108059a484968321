"""No two epochs are ever held at once, in true time: the reason why leases exist.

A lease is seen as its holder's server sees it: from the confirmation until the deadline, mapped
from the holder's clock to true time. A crash of the daemon does not end it (the server goes on);
only the deadline and the holder's own fence do.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgraft.core.types import NodeId
from tests.simulation.checkers.base import Checker, CheckFailed


@dataclass(slots=True)
class _Held:
    node: NodeId
    start: int
    end: int


class LeaseDisjointness(Checker):
    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    def on_lease(self, node: NodeId, epoch: int, now: int, until: int) -> None:
        held = self._held.setdefault(epoch, _Held(node, now, until))
        if held.node != node:
            raise CheckFailed(f"epoch {epoch} is held by {held.node} and by {node}")
        held.end = max(held.end, until)
        for other_epoch, other in self._held.items():
            if other_epoch != epoch and other.start < held.end and held.start < other.end:
                raise CheckFailed(
                    f"epoch {epoch} of node {node} [{held.start}, {held.end}] overlaps "
                    f"epoch {other_epoch} of node {other.node} [{other.start}, {other.end}]"
                )

    def on_fence(self, node: NodeId, epoch: int, now: int) -> None:
        held = self._held.get(epoch)
        if held is not None:
            held.end = min(held.end, now)
