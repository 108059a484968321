"""The replicated log of one member, in memory: entries after a base, and the commit mark.

Lives here: appending, conflict resolution (Raft §5.3), compaction (Raft §7). Must not live here:
who may append, quorums, disk (see `writes` for what the host was given to write), what entries did
once applied (see `applied`). Start reading at `RaftLog.splice`.

Everything up to the base is committed and stands in `snapshot`; of it only the base's own term is
known. An index below the base has no term here (None), never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgraft.core.applied import Applied
from pgraft.core.configs import Configs
from pgraft.core.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    ENTRY_OVERHEAD_BYTES,
    TAIL_ENTRIES,
)
from pgraft.core.types import (
    Config,
    Entry,
    EntryKind,
    Index,
    Recovered,
    SafetyViolation,
    Snapshot,
    Term,
)
from pgraft.core.writes import WriteQueue

NO_SNAPSHOT = Snapshot(index=Index(0), term=Term(0), config=Config(voters=frozenset()))


class RaftLog:
    """Entries base+1..last_index; `commit` and `applied` only grow.

    `snapshot` is the newest one that stands for the entries up to its index; the base never lies
    past it.
    """

    def __init__(self, recovered: Recovered) -> None:
        """ValueError if the entries do not follow the snapshot without gap, or the commit mark
        lies past them."""
        self.snapshot = recovered.snapshot or NO_SNAPSHOT
        self.base = self.snapshot.index
        self._base_term = self.snapshot.term
        if not is_contiguous(self.base, self._base_term, recovered.entries):
            raise ValueError("recovered entries are not contiguous from the snapshot or index 1")
        if recovered.hard_state.commit > self.base + len(recovered.entries):
            raise ValueError("recovered commit index lies past the end of the log")
        founding = recovered.config or self.snapshot.config
        config = founding if recovered.snapshot is None else self.snapshot.config
        self.configs = Configs(self.base, config)
        self._entries: list[Entry] = []
        self._extend(recovered.entries)
        # A snapshot may have been saved after the last hard state was.
        self.commit = max(recovered.hard_state.commit, self.base)
        self.applied = Applied(recovered.snapshot)
        self.writes = WriteQueue(self.last_index, recovered.hard_state)

    @property
    def last_index(self) -> Index:
        """Index of the newest entry, 0 if there never was one."""
        return Index(self.base + len(self._entries))

    @property
    def last_term(self) -> Term:
        """Term of the newest entry, 0 if there never was one."""
        return self._entries[-1].term if self._entries else self._base_term

    def term_at(self, index: Index) -> Term | None:
        """Term of the entry at `index`; 0 for index 0; None past the end and below the base."""
        if index == self.base:
            return self._base_term
        if index == 0:
            return Term(0)
        if not self.base < index <= self.last_index:
            return None
        return self._entries[index - self.base - 1].term

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
        """Committed entries not handed out before, as the host applies them."""
        first, end = self.applied.index - self.base, self.commit - self.base
        return tuple(self.applied.apply(entry) for entry in self._entries[first:end])

    def has_unapplied_grant(self) -> bool:
        """Whether a grant, committed or not, stands in the log beyond what was applied."""
        beyond = self._entries[self.applied.index - self.base :]
        return any(entry.kind is EntryKind.GRANT for entry in beyond)

    def slice_from(self, first: Index, *, bounded: bool = True) -> tuple[Entry, ...]:
        """Entries from `first` on, at most as many as fit in one Append unless not `bounded`."""
        assert first > self.base
        start = first - self.base - 1
        if not bounded:
            return tuple(self._entries[start:])
        return tuple(_fitting(self._entries[start : start + APPEND_ENTRIES_MAX]))

    def install(self, snapshot: Snapshot) -> None:
        """Put a snapshot that lies past the commit mark in the place of the whole log."""
        assert snapshot.index > self.commit
        self.writes.reset(self.commit, snapshot)
        self.snapshot = snapshot
        self.base, self._base_term = snapshot.index, snapshot.term
        self._entries.clear()
        self.configs = Configs(self.base, snapshot.config)
        self.commit = snapshot.index
        self.applied = Applied(snapshot)

    def compact(self, snapshot: Snapshot) -> None:
        """`snapshot` is durable: forget entries up to it, but for a tail for peers that lag little.

        An older one than the last changes nothing. SafetyViolation if it is of another log.
        """
        if snapshot.index <= self.snapshot.index:
            return
        if snapshot.index > self.applied.index or self.term_at(snapshot.index) != snapshot.term:
            raise SafetyViolation(
                f"snapshot at {snapshot.term}/{snapshot.index} is not of this log"
            )
        self.snapshot = snapshot
        base = Index(max(self.base, snapshot.index - TAIL_ENTRIES))
        base_term = self.term_at(base)
        assert base_term is not None
        del self._entries[: base - self.base]
        self.base, self._base_term = base, base_term
        self.configs.compact(base)

    def _extend(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._entries.append(entry)
            if entry.config is not None:
                self.configs.add(entry.index, entry.config)

    def _truncate(self, first: Index) -> None:
        if first <= self.commit:
            raise SafetyViolation(f"entry {first} is committed and would be overwritten")
        del self._entries[first - self.base - 1 :]
        self.configs.cut(first)
        self.writes.cut(first)


def search(log: RaftLog, index: Index, term: Term) -> tuple[Index, Term]:
    """The last (index, term) of `log` at or before `index` whose term is not above `term`.

    Both sides use it on a mismatch, so that one round trip skips a whole term (Raft §5.3). A place
    below the base is given with term 0: nothing is known of it but that the log does not reach it.
    """
    at = min(index, log.last_index)
    known = log.term_at(at)
    while known is not None and known > term:
        at = Index(at - 1)
        known = log.term_at(at)
    return at, known or Term(0)


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
