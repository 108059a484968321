"""The replicated log of one member, in memory, with its commit and applied marks.

Lives here: appending, conflict resolution (Raft §5.3), the configuration in effect, and the last
grant that was applied. Must not live here: who may append, quorums, disk (see `writes` for what
the host was given to write). Start reading at `RaftLog.splice`.

An entry counts as applied once `take_committed` handed it out: the host applies it in the same
step. The whole log is kept (no snapshots yet), so index 1 is always there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgraft.core.limits import APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, ENTRY_OVERHEAD_BYTES
from pgraft.core.types import (
    Config,
    Entry,
    EntryKind,
    Grant,
    Index,
    Recovered,
    SafetyViolation,
    Term,
)
from pgraft.core.writes import WriteQueue


class RaftLog:
    """Entries 1..last_index; `commit` and `applied` only grow; `grant` is the last one applied."""

    def __init__(self, recovered: Recovered) -> None:
        """ValueError if the entries are not contiguous from 1 or the commit mark lies past them."""
        if not is_contiguous(Index(0), Term(0), recovered.entries):
            raise ValueError("recovered entries are not contiguous from index 1")
        if recovered.hard_state.commit > len(recovered.entries):
            raise ValueError("recovered commit index lies past the end of the log")
        self._entries: list[Entry] = []
        self._configs: list[tuple[Index, Config]] = [
            (Index(0), recovered.config or Config(voters=frozenset()))
        ]
        self._extend(recovered.entries)
        self.commit = recovered.hard_state.commit
        self.applied = Index(0)
        self.grant: Grant | None = None
        self.writes = WriteQueue(self.last_index, recovered.hard_state)

    @property
    def last_index(self) -> Index:
        """Index of the newest entry, 0 if there is none."""
        return Index(len(self._entries))

    @property
    def last_term(self) -> Term:
        """Term of the newest entry, 0 if there is none."""
        return self._entries[-1].term if self._entries else Term(0)

    @property
    def config(self) -> Config:
        """The newest configuration in the log, committed or not (thesis §4.1)."""
        return self._configs[-1][1]

    def term_at(self, index: Index) -> Term | None:
        """Term of the entry at `index`; 0 for index 0; None past the end."""
        if index == 0:
            return Term(0)
        if index > len(self._entries):
            return None
        return self._entries[index - 1].term

    def is_current(self, last_index: Index, last_term: Term) -> bool:
        """Whether a log ending so is at least as up-to-date as this one (Raft §5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entry: Entry) -> None:
        """Add one entry at the end (a leader's own)."""
        self._extend((entry,))

    def splice(self, prev: Index, entries: Sequence[Entry]) -> None:
        """Make the log hold `entries` after `prev`, whose term the caller has checked.

        Cuts only at the first entry that conflicts (Raft §5.3): an old or repeated message never
        removes anything that agrees with it. SafetyViolation if a committed entry would be cut.
        """
        for offset, entry in enumerate(entries):
            present = self.term_at(entry.index)
            if present == entry.term:
                continue
            if present is not None:
                self._truncate(entry.index)
            self._extend(entries[offset:])
            return
        assert prev + len(entries) <= self.last_index

    def commit_to(self, index: Index) -> bool:
        """Raise the commit mark to `index`; False if it was there already."""
        if index <= self.commit:
            return False
        assert index <= self.last_index
        self.commit = index
        return True

    def take_committed(self) -> tuple[Entry, ...]:
        """Committed entries not handed out before; from now on they count as applied."""
        taken = tuple(self._entries[self.applied : self.commit])
        self.applied = self.commit
        for entry in taken:
            epoch = self.grant.epoch if self.grant is not None else 0
            if entry.grant is not None and entry.grant.epoch == epoch + 1:
                self.grant = entry.grant
        return taken

    def has_unapplied_grant(self) -> bool:
        """Whether a grant, committed or not, stands in the log beyond what was applied."""
        return any(entry.kind is EntryKind.GRANT for entry in self._entries[self.applied :])

    def slice_from(self, first: Index, *, bounded: bool = True) -> tuple[Entry, ...]:
        """Entries from `first` on, at most as many as fit in one Append unless not `bounded`."""
        if not bounded:
            return tuple(self._entries[first - 1 :])
        return tuple(_fitting(self._entries[first - 1 : first - 1 + APPEND_ENTRIES_MAX]))

    def search(self, index: Index, term: Term) -> tuple[Index, Term]:
        """The last (index, term) at or before `index` whose term is not above `term`.

        Both sides use it on a mismatch, so that one round trip skips a whole term (Raft §5.3).
        """
        at = min(index, self.last_index)
        while at > 0 and self._entries[at - 1].term > term:
            at = Index(at - 1)
        return at, self._entries[at - 1].term if at > 0 else Term(0)

    def _extend(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            if entry.config is not None:
                self._configs.append((entry.index, entry.config))

    def _truncate(self, first: Index) -> None:
        if first <= self.commit:
            raise SafetyViolation(f"entry {first} is committed and would be overwritten")
        del self._entries[first - 1 :]
        while self._configs[-1][0] >= first:
            self._configs.pop()
        self.writes.cut(first)


def is_contiguous(prev_index: Index, prev_term: Term, entries: Sequence[Entry]) -> bool:
    """Whether `entries` follow (prev_index, prev_term) without gap and with terms not falling."""
    index, term = prev_index, prev_term
    for entry in entries:
        if entry.index != index + 1 or entry.term < term:
            return False
        index, term = entry.index, entry.term
    return True


def entry_bytes(entry: Entry) -> int:
    """Rough size of an entry on the wire, for bounds."""
    payload = entry.grant.payload if entry.grant is not None else entry.data
    return ENTRY_OVERHEAD_BYTES + len(payload)


def _fitting(entries: Sequence[Entry]) -> Iterator[Entry]:
    size = 0
    for position, entry in enumerate(entries):
        size += entry_bytes(entry)
        if position > 0 and size > APPEND_BYTES_MAX:
            return
        yield entry
