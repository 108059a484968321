"""What is committed is durable on a quorum when it is first applied, and never lost afterwards."""

from __future__ import annotations

from tests.simulation.checkers.base import Applied, Checker, CheckFailed


class CommitDurability(Checker):
    def __init__(self) -> None:
        self._seen = 0

    def on_apply(self, applied: Applied) -> None:
        entry, disks = applied.entry, applied.disks
        if entry.index <= self._seen:
            return
        self._seen = entry.index
        holding = sum(1 for disk in disks if disk.term_at(entry.index) == entry.term)
        if holding * 2 <= len(disks):
            raise CheckFailed(
                f"node {applied.node} applies {entry.index} of term {entry.term}, "
                f"durable on {holding} of {len(disks)}"
            )
