"""A member's log read back: snapshot and entries as they were last synced, or a refusal to start.

Lives here: recovery of segments and the snapshot they continue. Must not live here: writing
(`wal`), the format (`segment`, `batches`, `snapshot`). Start reading at `recover`.

Recovery writes the newest segment out again before anything is believed: a record that can be read
may still be only in the page cache, because the sync that should have written it failed. The
segments before it, and every file that was renamed into place, were synced before the newest was
begun; their names become durable with the newest one's.

A snapshot beyond the log, or one that disagrees with its uncommitted end, was saved just before a
crash; it is committed, so it takes the place of the log (Raft §7).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from pgraft.core.types import Entry, HardState, Index, Snapshot, Term
from pgraft.storage import snapshot as snapshots
from pgraft.storage.batches import Base, Garbage, Ledger, decode_base, decode_batches
from pgraft.storage.disk import Disk
from pgraft.storage.errors import FULL, REMEDY, DiskFull, WalCorrupt, WalFailed, WalForeign
from pgraft.storage.segment import (
    BASE,
    BATCH,
    FIRST_FORMAT,
    BadHeader,
    Owner,
    Record,
    Scan,
    SegmentHeader,
    describe,
    scan,
    unpack_header,
)
from pgraft.storage.wal import SPARE, SUFFIX, Tail, Wal, name_of

_LOG = logging.getLogger("pgraft.storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What was found. `entries` begin right after the snapshot, or at index 1 without one.

    `torn_bytes`: length of the unfinished write that was cut off.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]
    segments: int
    torn_bytes: int
    snapshot: Snapshot | None = None


class _Held:
    """The entries that the segments hold, from `first` on; `before` is the term of the one before
    them, None if it is not known."""

    def __init__(self) -> None:
        self.first = Index(1)
        self.before: Term | None = Term(0)
        self._entries: list[Entry] = []

    @property
    def last(self) -> int:
        return self.first + len(self._entries) - 1

    def begin(self, base: Base) -> None:
        """Nothing but what follows this base."""
        self._entries.clear()
        self.first = Index(base.index + 1)
        self.before = base.term

    def cut(self, index: Index) -> None:
        if index < self.first:
            self._entries.clear()
            self.first, self.before = index, None
        else:
            del self._entries[index - self.first :]

    def extend(self, entries: tuple[Entry, ...]) -> None:
        self._entries.extend(entries)

    def after(self, index: int) -> tuple[Entry, ...]:
        return tuple(self._entries[max(0, index + 1 - self.first) :])

    def agrees(self, snapshot: Snapshot) -> bool:
        """Whether the log continues this snapshot."""
        at = snapshot.index - self.first
        if at < 0:
            return at == -1 and self.before in (None, snapshot.term)
        return at < len(self._entries) and self._entries[at].term == snapshot.term


def recover(disk: Disk, owner: Owner) -> tuple[Wal, Recovery]:
    """The log as it was last synced, plus possibly the whole write that was under way.

    Raises WalCorrupt (with file, offset, and what to do) when something durable is damaged or
    missing, WalForeign when the log is another member's, WalFailed and DiskFull when the disk
    refuses. A torn last write is cut. What is returned is durable again, whatever happened to an
    earlier sync.
    """
    try:
        return _Replay(disk, owner).recover()
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"the log in {disk.where('')}", error) from error
        raise WalFailed(f"the log in {disk.where('')} cannot be read: {error}") from error


class _Replay:
    """One reading of a log, segment by segment."""

    def __init__(self, disk: Disk, owner: Owner) -> None:
        self._disk = disk
        self._owner = owner
        self._ledger = Ledger()
        self._held = _Held()
        self._chain: list[tuple[int, Index | None]] = []
        self._seq = 1

    def recover(self) -> tuple[Wal, Recovery]:
        disk = self._disk
        names = [name for name in disk.names() if name.endswith(SUFFIX)]
        if not names:
            raise WalCorrupt(f"the log of this member is missing from {disk.where('')}. {REMEDY}")
        if SPARE in disk.names():
            disk.remove(SPARE)  # room to write the newest segment again, should the disk be full
        begin = int(names[0].removesuffix(SUFFIX), 16)
        for number, name in enumerate(names, begin):
            if name != name_of(number):
                raise WalCorrupt(f"log segment {disk.where(name_of(number))} is missing. {REMEDY}")
            data = disk.read(name)
            header, found = self._segment(number, data, is_last=name == names[-1])
        snapshot = self._snapshot(names[0])
        # `names` is not empty, so the loop has set these to the newest segment's.
        durable = data[: found.end].ljust(len(data), b"\0")
        disk.replace(name, durable)
        tail = Tail(disk.open(name), header, number=number, size=len(durable), base=None)
        for record in found.records:
            tail.skip(len(record.payload), 1)
        wal = Wal(disk, tail, self._ledger, self._chain)
        recovery = self._settle(wal, header, snapshot)
        return wal, replace(recovery, segments=len(names), torn_bytes=found.damaged_bytes)

    def _settle(self, wal: Wal, header: SegmentHeader, snapshot: Snapshot | None) -> Recovery:
        ledger, held = self._ledger, self._held
        if snapshot is not None and not held.agrees(snapshot):
            ledger = ledger.restarted(snapshot)
            held.begin(ledger.base())
            wal.begin(snapshot)
        elif header.format == FIRST_FORMAT:
            wal.begin(None)  # so that no earlier version reads what it would misunderstand
        hard_state = ledger.hard_state
        end = snapshot.index if snapshot is not None else Index(0)
        return Recovery(
            hard_state=replace(hard_state, commit=max(hard_state.commit, end)),
            entries=held.after(end),
            segments=0,
            torn_bytes=0,
            snapshot=snapshot,
        )

    def _snapshot(self, oldest: str) -> Snapshot | None:
        held = self._held
        snapshot = snapshots.load_newest(self._disk, self._owner, held.first)
        if snapshot is None:
            if held.first > 1:
                raise WalCorrupt(
                    f"{self._disk.where(oldest)} begins after entry {held.first - 1}, and no "
                    "snapshot reaches that far: snapshots, or the segments before it, are "
                    f"missing. {REMEDY}"
                )
        elif snapshot.index <= self._ledger.hard_state.commit and not held.agrees(snapshot):
            raise WalCorrupt(
                f"the snapshot of entry {snapshot.index} in {self._disk.where('')} and the "
                f"committed log disagree. {REMEDY}"
            )
        return snapshot

    def _segment(self, number: int, data: bytes, *, is_last: bool) -> tuple[SegmentHeader, Scan]:
        name = name_of(number)
        where = self._disk.where(name)
        header = self._header(where, data)
        if not self._chain:
            self._seq = header.first_seq
        if header.first_seq != self._seq or (not self._chain and number == 1 != self._seq):
            raise WalCorrupt(
                f"{where} begins with record {header.first_seq}, but the records before "
                f"it end at {self._seq - 1}: the end of the segment before it is lost. {REMEDY}"
            )
        found = scan(header, data)
        records = found.records
        if header.format == FIRST_FORMAT:
            if not self._chain and number != 1:
                raise WalCorrupt(f"log segment {self._disk.where(name_of(1))} is missing. {REMEDY}")
            self._chain.append((number, None))
            _check_damage(where, found, is_last=is_last)
        else:
            if not records or records[0].kind != BASE:
                raise WalCorrupt(
                    f"{where}, offset {found.end}: the base that a segment begins with is damaged. "
                    f"{REMEDY}"
                )
            _check_damage(where, found, is_last=is_last)
            self._base(number, where, records[0])
            records = records[1:]
        for record in records:
            self._batches(where, record)
        self._seq += len(found.records)
        return header, found

    def _base(self, number: int, where: str, record: Record) -> None:
        try:
            base = decode_base(record.payload)
        except Garbage as error:
            raise WalCorrupt(f"{where}, offset {record.offset}: {error}. {REMEDY}") from error
        ledger = self._ledger
        if not self._chain or base.restart:
            self._held.begin(base)
            self._ledger = Ledger.of(base)
        elif (base.index, base.hard_state) != (ledger.last_index, ledger.hard_state):
            raise WalCorrupt(
                f"{where} goes on from entry {base.index} and {base.hard_state}, but the segment "
                f"before it ends at {ledger.last_index} and {ledger.hard_state}. {REMEDY}"
            )
        self._chain.append((number, base.index))

    def _header(self, where: str, data: bytes) -> SegmentHeader:
        try:
            header = unpack_header(data)
        except BadHeader as error:
            raise WalCorrupt(f"{where}, offset 0: {error}. {REMEDY}") from error
        if header.owner != self._owner:
            raise WalForeign(
                f"{where} is the log of {describe(header.owner)}, but this is "
                f"{describe(self._owner)}: it was copied or mixed up; point this node at its own "
                "directory"
            )
        return header

    def _batches(self, where: str, record: Record) -> None:
        where = f"{where}, offset {record.offset}"
        if record.kind != BATCH:
            raise WalCorrupt(
                f"{where}: record of kind {record.kind}, written by a later version: "
                "start this node with that version"
            )
        try:
            batches = decode_batches(record.payload)
        except Garbage as error:
            raise WalCorrupt(f"{where}: {error}. {REMEDY}") from error
        for batch in batches:
            fault = self._ledger.fault(batch)
            if fault is not None:
                raise WalCorrupt(f"{where}: {fault}. {REMEDY}")
            if batch.truncate_from is not None:
                self._held.cut(batch.truncate_from)
            self._held.extend(batch.entries)
            self._ledger = self._ledger.after(batch)


def _check_damage(where: str, found: Scan, *, is_last: bool) -> None:
    if not found.damaged_bytes or (is_last and found.valid_after is None):
        return
    beyond = (
        "another segment follows"
        if found.valid_after is None
        else f"a valid record follows at offset {found.valid_after}"
    )
    raise WalCorrupt(
        f"{where}, offset {found.end}: the record here is damaged, and {beyond}, so it "
        f"had been durable. {REMEDY}"
    )
