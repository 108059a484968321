"""Counts what a run did, where the checkers hear it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pgraft.core.types import EntryKind, Index
from tests.simulation.checkers.base import Applied, Checker, Handler


class Tally(Checker):
    """Counts each entry once, when it is first applied anywhere."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._newest = Index(0)

    def handlers(self) -> Mapping[type, Handler]:
        return {Applied: self._applied}

    def _applied(self, applied: Applied) -> None:
        entry = applied.entry
        if entry.index <= self._newest:
            return
        self._newest = entry.index
        self._counts["commits"] += 1
        if entry.kind is EntryKind.CONFIG:
            self._counts["configurations"] += 1
        elif entry.kind is EntryKind.NOOP and entry.origin.session:
            self._counts["repeats without effect"] += 1
