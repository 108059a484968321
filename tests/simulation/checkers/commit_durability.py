"""What is committed is durable on a quorum when it is first applied, and is never cut afterwards.

Whoever applies an entry first is the leader that committed it, so its own configuration counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.config import all_voters
from pgraft.core.types import Index, NodeId, Term
from tests.simulation.checkers.base import Applied, Checker, CheckFailed, Disk, Handler, Wrote
from tests.simulation.checkers.quorums import nodes, quorum


class CommitDurability(Checker):
    def __init__(self) -> None:
        self._terms: list[Term] = [Term(0)]

    def handlers(self) -> Mapping[type, Handler]:
        return {Applied: self._applied, Wrote: self._wrote}

    def _applied(self, applied: Applied) -> None:
        entry = applied.entry
        if entry.index < len(self._terms):
            return
        self._terms.append(entry.term)
        holding = frozenset(
            voter
            for voter in all_voters(applied.config)
            if _holds(applied.disks.get(voter), entry.index, entry.term)
        )
        if not quorum(applied.config, holding):
            raise CheckFailed(
                f"node {applied.node} applies {entry.index} of term {entry.term}, durable on "
                f"{nodes(holding)}, which is no quorum of {applied.config}"
            )

    def _wrote(self, wrote: Wrote) -> None:
        # By log matching, if any entry behind the cut is committed, so is the first one there.
        cut = wrote.cut
        if cut is None or cut >= len(self._terms):
            return
        if cut <= wrote.disk.base or wrote.disk.term_at(cut) == self._terms[cut]:
            raise CheckFailed(f"node {wrote.node} cuts its log from {cut}, which is committed")


def _holds(disk: Disk | None, index: Index, term: Term) -> bool:
    return disk is not None and (disk.term_at(index) == term or index <= disk.base)


def voters_of(disks: Mapping[NodeId, Disk], index: Index, term: Term) -> frozenset[NodeId]:
    """On whose disks an entry is."""
    return frozenset(node for node, disk in disks.items() if _holds(disk, index, term))
