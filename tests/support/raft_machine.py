"""The state machine of a simulated member: registers, and a digest of everything applied.

Lives here: what an entry does, what a snapshot holds. Must not live here: who proposes.
"""

from __future__ import annotations

from struct import Struct

import msgspec

from pgraft.core.types import Entry, EntryKind, Index, Snapshot
from tests.simulation.checkers.state_machine_safety import chained
from tests.simulation.linearizability import Kind, Operation

_COMMAND = Struct(">IBqq")
_SNAPSHOT = msgspec.msgpack.Decoder(tuple[int, dict[int, int]])


def command(key: int, operation: Operation, padding: int) -> bytes:
    """The bytes of a command that does `operation` to register `key`."""
    return _COMMAND.pack(key, operation.kind, operation.old, operation.new) + bytes(padding)


def number_of(entry: Entry) -> int:
    """The number of the operation in an entry, which no other has; 0 if it has no effect."""
    if entry.kind is not EntryKind.COMMAND or len(entry.data) < _COMMAND.size:
        return 0
    return int(_COMMAND.unpack_from(entry.data)[3])


class Machine:
    """Deterministic: the same entries lead to the same values and the same digest."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.digest = 0
        self.applied = Index(0)

    def apply(self, entry: Entry) -> int:
        """The result of the entry's operation, 0 if it is none."""
        self.applied = entry.index
        self.digest = chained(self.digest, entry)
        if entry.kind is not EntryKind.COMMAND or len(entry.data) < _COMMAND.size:
            return 0
        key, kind, old, new = _COMMAND.unpack_from(entry.data)
        value = self.values.get(key, 0)
        if kind == Kind.ADD:
            new = value + new
        elif kind == Kind.CAS and value != old:
            return 0
        self.values[key] = new
        return new if kind == Kind.ADD else 1

    def image(self) -> bytes:
        """All of it, for a snapshot."""
        return msgspec.msgpack.encode((self.digest, self.values))

    def restore(self, snapshot: Snapshot) -> None:
        """Become what a snapshot holds."""
        self.digest, self.values = _SNAPSHOT.decode(snapshot.data)
        self.applied = snapshot.index
