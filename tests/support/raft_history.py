"""What clients of a simulated group asked for and were told, searched for a linear order.

Lives here: registers, each used for a few dozen operations and judged when the run is over. Must
not live here: the search (tests/simulation/linearizability.py), sessions (see `raft_client`).
Start reading at `Histories`.

An operation whose outcome no client knows and which nobody ever applied is left out: the search
would have to try it at every place. That it had no effect is what state machine safety says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.simulation.checkers.base import Applied, Checker, CheckFailed, Handler
from tests.simulation.linearizability import Kind, Operation, Undecided, explain, linearizable
from tests.support.raft_machine import number_of

KEYS = 16
OPERATIONS_MAX = 32


@dataclass(slots=True)
class _Register:
    operations: list[Operation] = field(default_factory=list)
    guess: int = 0


class Histories(Checker):
    """Operations on registers, from their call to their answer; `close` judges them."""

    def __init__(self, rng: random.Random, counts: Counter[str]) -> None:
        self._rng = rng
        self._counts = counts
        self._registers = [_Register() for _ in range(KEYS)]
        self._active = list(range(KEYS))
        self._number = 0
        self._applied: set[int] = set()

    def handlers(self) -> Mapping[type, Handler]:
        return {Applied: lambda applied: self._applied.add(number_of(applied.entry))}

    def begin(self, now: int, *, read: bool) -> tuple[int, Operation]:
        """A new operation on some register, and its key."""
        place = self._rng.randrange(KEYS)
        key = self._active[place]
        register = self._registers[key]
        kind = Kind.READ if read else self._rng.choice((Kind.WRITE, Kind.CAS, Kind.ADD))
        self._number += 1
        operation = Operation(kind, now, old=register.guess, new=self._number)
        register.operations.append(operation)
        if len(register.operations) >= OPERATIONS_MAX:
            self._active[place] = len(self._registers)
            self._registers.append(_Register())
        return key, operation

    def end(self, key: int, operation: Operation, now: int | None, result: int = 0) -> None:
        """Its answer came now; None: nobody will ever know."""
        operation.returned = now
        operation.result = result
        if now is not None and operation.kind is Kind.READ:
            self._registers[key].guess = result

    def close(self) -> None:
        """The run is over: CheckFailed if some register has no linear order."""
        for key, register in enumerate(self._registers):
            operations = [
                o for o in register.operations if o.returned is not None or o.new in self._applied
            ]
            self._counts["histories"] += 1
            self._counts["operations"] += len(operations)
            try:
                if not linearizable(operations):
                    raise CheckFailed(f"register {key} is not linearizable:\n{explain(operations)}")
            except Undecided:
                self._counts["undecided"] += 1
