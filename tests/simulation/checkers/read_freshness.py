"""ReadIndex (thesis §6.4): a read sees everything applied anywhere before it was asked.

There are no reads by a leader's lease in pgraft, so this is all there is to check about reads; the
search for a linear order (`tests/simulation/linearizability.py`) looks at their values as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.types import Index, NodeId
from tests.simulation.checkers.base import (
    Applied,
    Checker,
    CheckFailed,
    Handler,
    ReadAsked,
    ReadDone,
)


class ReadFreshness(Checker):
    def __init__(self) -> None:
        self._newest = Index(0)
        self._asked: dict[tuple[NodeId, int], Index] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Applied: self._applied, ReadAsked: self._on_asked, ReadDone: self._on_done}

    def _applied(self, applied: Applied) -> None:
        self._newest = max(self._newest, applied.entry.index)

    def _on_asked(self, asked: ReadAsked) -> None:
        self._asked[asked.node, asked.context] = self._newest

    def _on_done(self, done: ReadDone) -> None:
        newest = self._asked.pop((done.node, done.context))
        if done.needed is not None and done.needed < newest:
            raise CheckFailed(
                f"node {done.node} may read at {done.needed}, but {newest} was applied before"
            )
