"""State machine safety (Raft §5.4.3): everybody applies the same entry at an index, in order.

Also across snapshots: one stands for exactly the entries up to its index, never moves a node's
state back, and names the configuration that was in effect there.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from pgraft.core.types import Config, Entry, Index, NodeId
from tests.simulation.checkers.base import Applied, Checker, CheckFailed, Handler, Snapped, Started


def chained(digest: int, entry: Entry) -> int:
    """Names the sequence of entries that ends with this one."""
    head = f"{entry.index}/{entry.term}/{entry.kind.value}".encode()
    return zlib.crc32(entry.data, zlib.crc32(head, digest))


class StateMachineSafety(Checker):
    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._digests = [0]
        self._configs: list[tuple[Index, Config]] = []
        self._position: dict[NodeId, Index] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Started: self._started, Applied: self._applied, Snapped: self._snapped}

    def _started(self, started: Started) -> None:
        self._position[started.node] = started.disk.base

    def _applied(self, applied: Applied) -> None:
        node, entry = applied.node, applied.entry
        position = self._position.get(node, 0)
        if entry.index != position + 1:
            raise CheckFailed(f"node {node} applies {entry.index} after {position}")
        self._position[node] = entry.index
        if entry.index > len(self._entries):
            if entry.index != len(self._entries) + 1:
                raise CheckFailed(f"{entry.index} is applied before {len(self._entries) + 1}")
            self._entries.append(entry)
            self._digests.append(chained(self._digests[-1], entry))
            if entry.config is not None:
                self._configs.append((entry.index, entry.config))
            return
        first = self._entries[entry.index - 1]
        if first is not entry and first != entry:
            raise CheckFailed(f"index {entry.index}: {node} applies {entry}, others {first}")

    def _snapped(self, snapped: Snapped) -> None:
        node, snapshot = snapped.node, snapped.snapshot
        if snapshot.index > len(self._entries):
            raise CheckFailed(f"node {node}: a snapshot at {snapshot.index}, applied by nobody")
        if snapped.installed and snapshot.index <= snapped.before:
            raise CheckFailed(
                f"node {node} goes back from {snapped.before} to a snapshot at {snapshot.index}"
            )
        if not snapped.installed and snapshot.index != snapped.before:
            raise CheckFailed(
                f"node {node} has applied {snapped.before}, its snapshot says {snapshot.index}"
            )
        entry = self._entries[snapshot.index - 1]
        if (snapped.digest, snapshot.term) != (self._digests[snapshot.index], entry.term):
            raise CheckFailed(
                f"node {node}: the snapshot at {snapshot.index} of term {snapshot.term} is not "
                f"what the entries up to there come to (the last is of term {entry.term})"
            )
        known = [config for index, config in self._configs if index <= snapshot.index]
        if known and snapshot.config != known[-1]:
            raise CheckFailed(
                f"node {node}: the snapshot at {snapshot.index} has {snapshot.config}, "
                f"in effect there was {known[-1]}"
            )
        self._position[node] = snapshot.index
