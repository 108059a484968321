"""What clients of a simulated group asked for and were told, searched for a linear order.

Lives here: registers, each used for a few dozen operations and then judged. Must not live here:
the search (tests/simulation/linearizability.py), sessions (see `raft_client`).
Start reading at `Histories`.
"""

from __future__ import annotations

import random
from collections import Counter

from tests.simulation.checkers.base import CheckFailed
from tests.simulation.linearizability import Kind, Operation, Undecided, explain, linearizable

KEYS = 12
OPERATIONS_MAX = 32


class _Register:
    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.open = 0
        self.guess = 0


class Histories:
    """Operations on registers, from their call to their answer; a full register is judged."""

    def __init__(self, rng: random.Random, counts: Counter[str]) -> None:
        self._rng = rng
        self._counts = counts
        self._registers: dict[int, _Register] = {key: _Register() for key in range(KEYS)}
        self._active = list(range(KEYS))
        self._value = 0

    def begin(self, now: int, *, read: bool) -> tuple[int, Operation]:
        """A new operation on some register, and its key."""
        place = self._rng.randrange(KEYS)
        key = self._active[place]
        register = self._registers[key]
        kind = Kind.READ if read else self._rng.choice((Kind.WRITE, Kind.CAS, Kind.ADD))
        self._value += 1
        operation = Operation(kind, now, old=register.guess, new=self._value)
        register.operations.append(operation)
        register.open += 1
        if len(register.operations) >= OPERATIONS_MAX:
            self._active[place] = max(self._registers) + 1
            self._registers[self._active[place]] = _Register()
        return key, operation

    def end(self, key: int, operation: Operation, now: int | None, result: int = 0) -> None:
        """Its answer came now; None: nobody will ever know."""
        operation.returned = now
        operation.result = result
        register = self._registers[key]
        register.open -= 1
        if now is not None and operation.kind is Kind.READ:
            register.guess = result
        if not register.open and key not in self._active:
            self._judge(self._registers.pop(key).operations, key)

    def close(self) -> None:
        """The run is over: judge what is left."""
        for key, register in self._registers.items():
            self._judge(register.operations, key)
        self._registers.clear()

    def _judge(self, operations: list[Operation], key: int) -> None:
        self._counts["histories"] += 1
        self._counts["operations"] += len(operations)
        try:
            if not linearizable(operations):
                raise CheckFailed(f"register {key} is not linearizable:\n{explain(operations)}")
        except Undecided:
            self._counts["undecided"] += 1
