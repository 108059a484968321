"""Sessions (thesis §6.3): a command that is proposed twice is applied once, and alike everywhere.

Commands come out of the core with their effect (COMMAND) or without (NOOP): of all indexes at which
one (session, serial) is committed, exactly the first has an effect, unless it was given up before.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.types import EntryKind, Index
from tests.simulation.checkers.base import Applied, Checker, CheckFailed, Handler


class ExactlyOnce(Checker):
    def __init__(self) -> None:
        self._effect: dict[tuple[int, int], Index] = {}
        self._newest = Index(0)

    def handlers(self) -> Mapping[type, Handler]:
        return {Applied: self._applied}

    def _applied(self, applied: Applied) -> None:
        entry = applied.entry
        if entry.index <= self._newest:
            return  # the same entry was seen, and state machine safety says it is the same
        self._newest = entry.index
        if entry.kind is not EntryKind.COMMAND or entry.origin.session == 0:
            return
        name = (entry.origin.session, entry.origin.serial)
        first = self._effect.setdefault(name, entry.index)
        if first != entry.index:
            raise CheckFailed(
                f"command {name[1]} of session {name[0]} takes effect at {first} and again at "
                f"{entry.index}"
            )
