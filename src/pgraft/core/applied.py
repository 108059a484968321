"""What applied entries have done to the core's own replicated state: the lease's terms, sessions.

Lives here: one small state machine, equal on every member at the same index. Must not live here:
the host's state, the log. Start reading at `Applied.apply`.

An entry counts as applied once it was handed out: the host applies it in the same step.
"""

from __future__ import annotations

from dataclasses import replace

from pgraft.core.sessions import Sessions, admit
from pgraft.core.types import Entry, EntryKind, Grant, Index, LeaseTerms, Snapshot, TtlChange


class Applied:
    """State after the entry at `index`."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.index = Index(0) if snapshot is None else snapshot.index
        self.lease = LeaseTerms() if snapshot is None else snapshot.lease
        self.sessions: Sessions = () if snapshot is None else snapshot.sessions

    @property
    def grant(self) -> Grant | None:
        """The last grant that was applied."""
        return self.lease.grant

    @property
    def epoch(self) -> int:
        """Its epoch, 0 before the first."""
        return self.lease.grant.epoch if self.lease.grant is not None else 0

    def apply(self, entry: Entry) -> Entry:
        """Apply the next entry; what the host applies in its place.

        A command that was applied before comes out as a NOOP. A grant that does not follow the
        epoch before, and a ttl for another epoch, change nothing.
        """
        assert entry.index == self.index + 1
        self.index = entry.index
        if entry.grant is not None:
            self._grant(entry.grant)
        elif entry.ttl is not None:
            self._ttl(entry.ttl)
        elif entry.kind is EntryKind.COMMAND:
            self.sessions, fresh = admit(self.sessions, entry.origin)
            if not fresh:
                return replace(entry, kind=EntryKind.NOOP, data=b"")
        return entry

    def _grant(self, grant: Grant) -> None:
        if grant.epoch == self.epoch + 1:
            self.lease = LeaseTerms(grant=grant, ttl_ns=grant.ttl_ns, longest_ns=grant.ttl_ns)

    def _ttl(self, change: TtlChange) -> None:
        if self.epoch == 0 or change.epoch != self.epoch:
            return
        # Leases that were given before a ttl was lowered last as long as they were given for.
        longest = max(self.lease.longest_ns, change.ttl_ns)
        self.lease = replace(self.lease, ttl_ns=change.ttl_ns, longest_ns=longest)
