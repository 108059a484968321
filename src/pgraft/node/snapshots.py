"""When a member takes a snapshot of its own state, and what it does with another's.

Lives here: how far the log may grow, the two hooks of the host. Must not live here: files
(`pgraft.storage.snapshot`), which peers need one (`pgraft.core`). Start reading at
`Snapshots.turned`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgraft.core.types import Entry, ProposalRefused, Snapshot
from pgraft.node.driver import Driver

_LOG = logging.getLogger("pgraft.node")
_ENTRY_BYTES: Final = 64
"""Counted for an entry beside its payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOptions:
    """A snapshot is taken once so much was applied since the one before, whichever comes first."""

    entries: int = 4096
    size_bytes: int = 1 << 20


class Snapshots:
    """Counts what was applied. A host without the hooks keeps its whole log."""

    def __init__(
        self,
        driver: Driver,
        options: SnapshotOptions,
        take: Callable[[], bytes] | None,
        restore: Callable[[Snapshot], None] | None,
    ) -> None:
        self._driver = driver
        self._options = options
        self._take = take
        self._restore = restore
        self._entries = 0
        self._bytes = 0

    def applied(self, entry: Entry) -> None:
        """The host has applied this entry."""
        self._entries += 1
        self._bytes += _ENTRY_BYTES + len(entry.data)
        if entry.grant is not None:
            self._bytes += len(entry.grant.payload)

    def restore(self, snapshot: Snapshot) -> None:
        """The state of `snapshot` takes the place of the host's."""
        assert self._restore is not None, "there is a snapshot, and the host cannot take it"
        self._restore(snapshot)
        self._entries = self._bytes = 0

    def turned(self) -> None:
        """The host's state is what the core believes to be applied: a snapshot may be taken."""
        full = self._entries >= self._options.entries or self._bytes >= self._options.size_bytes
        if self._take is None or not full:
            return
        self._entries = self._bytes = 0
        try:
            snapshot = self._driver.raft.snapshot(self._take())
        except ProposalRefused as refused:
            _LOG.error("no snapshot was taken, so the log keeps growing: %s", refused.reason)
            return
        self._driver.save(snapshot)
