"""The write-ahead log of one member: what it promised, durable before anyone hears of it.

Lives here: batches, segments as files, recovery. Must not live here: Raft rules, threads (the host
calls `append` from the one thread it keeps for this). Start reading at `Wal.append`, `recover`.

Segments `0000000000000001.wal`, … are chained by number and by the sequence of their records. The
log is not compacted yet: every entry since the founding stays, and recovery reads all of it.

Recovery writes the newest segment out again before anything is believed: a record that can be read
may still be only in the page cache, because the sync that should have written it failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pgraft.core.types import NO_NODE, Entry, HardState, Index
from pgraft.storage.disk import Disk, DiskFile, StorageError
from pgraft.storage.segment import (
    BATCH,
    HEADER_BYTES,
    BadHeader,
    Owner,
    Record,
    Scan,
    SegmentHeader,
    pack_header,
    pack_record,
    record_bytes,
    scan,
    unpack_header,
)

SEGMENT_BYTES: Final = 1 << 20
_SUFFIX: Final = ".wal"
_REMEDY: Final = (
    "This member must not vote on what is left: move its state directory aside and add the node "
    "to the group again, or restore this file from an exact copy of this very disk"
)


class WalFailed(StorageError):
    """A write or sync failed, so nothing since the last good sync may be trusted. Stop the node."""


class WalCorrupt(StorageError):
    """Something that was once durable is damaged or missing. The member must not start."""


class WalForeign(StorageError):
    """The log belongs to another cluster, node or member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalBatch:
    """One step of the core, in the order in which it takes effect: cut, append, hard state."""

    truncate_from: Index | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the log held. `torn_bytes`: length of the unfinished write that was cut off."""

    hard_state: HardState
    entries: tuple[Entry, ...]
    segments: int
    torn_bytes: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[WalBatch, ...])


class _Ledger:
    """The last index and hard state, and the rules every batch keeps when written and when read."""

    __slots__ = ("hard_state", "last_index")

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.last_index = Index(0)

    def fault(self, batch: WalBatch) -> str | None:
        """Why this batch may not follow, None if it may."""
        last = self.last_index
        old = self.hard_state
        if batch.truncate_from is not None:
            if not old.commit < batch.truncate_from <= last + 1:
                return f"cut from {batch.truncate_from} with commit {old.commit}, last {last}"
            last = Index(batch.truncate_from - 1)
        for entry in batch.entries:
            if entry.index != last + 1:
                return f"entry {entry.index} after {last}"
            last = entry.index
        new = batch.hard_state
        if new is None:
            return None
        if new.term < old.term or new.commit < old.commit:
            return f"hard state goes back from {old} to {new}"
        if new.term == old.term and old.vote not in (NO_NODE, new.vote):
            return f"second vote in term {new.term}: {old.vote}, then {new.vote}"
        if new.commit > last:
            return f"commit {new.commit} beyond the last entry {last}"
        return None

    def take(self, batch: WalBatch) -> None:
        """Account for a batch that `fault` found nothing wrong with."""
        if batch.truncate_from is not None:
            self.last_index = Index(batch.truncate_from - 1)
        if batch.entries:
            self.last_index = batch.entries[-1].index
        if batch.hard_state is not None:
            self.hard_state = batch.hard_state


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    name: str
    header: SegmentHeader
    file: DiskFile
    size: int


def _name(number: int) -> str:
    return f"{number:016x}{_SUFFIX}"


def exists(disk: Disk) -> bool:
    """Whether this directory holds any segment of a log."""
    return any(name.endswith(_SUFFIX) for name in disk.names())


def create(disk: Disk, owner: Owner) -> None:
    """An empty log, durable on return. Raises StorageError on failure or if there is one."""
    if exists(disk):
        raise StorageError(f"{disk.where('')} already holds a log")
    header = SegmentHeader(owner=owner, first_seq=1)
    try:
        disk.replace(_name(1), pack_header(header).ljust(SEGMENT_BYTES, b"\0"))
    except OSError as error:
        raise WalFailed(f"{disk.where(_name(1))} cannot be made: {error}") from error


class Wal:
    """An open log that ends at a known place. Made by `recover`; used from one thread."""

    __slots__ = ("_disk", "_failed", "_ledger", "_number", "_offset", "_segment", "_seq")

    def __init__(
        self, disk: Disk, segment: _Segment, *, offset: int, seq: int, ledger: _Ledger
    ) -> None:
        self._disk = disk
        self._segment = segment
        self._number = int(segment.name.removesuffix(_SUFFIX), 16)
        self._offset = offset
        self._seq = seq
        self._ledger = ledger
        self._failed: WalFailed | None = None

    def append(self, batches: Sequence[WalBatch]) -> None:
        """All of `batches`, in order, as one record with one sync: all durable on return, or none.

        Raises WalFailed, and from then on nothing else: after a failed sync nobody can say what is
        on the disk, so the member must stop. A batch that breaks the log's rules (hard state going
        back, a gap, a cut below commit) is a bug and raises AssertionError with nothing written.
        """
        if self._failed is not None:
            raise self._failed
        for batch in batches:
            fault = self._ledger.fault(batch)
            assert fault is None, fault
            self._ledger.take(batch)
        payload = _ENCODER.encode(tuple(batches))
        try:
            self._write(payload)
        except OSError as error:
            where = self._disk.where(self._segment.name)
            self._failed = WalFailed(
                f"writing the log {where} failed: {error}. This node has stopped, because nothing "
                "can be promised any more; check the disk, then start it again"
            )
            raise self._failed from error

    def close(self) -> None:
        """Give the file back."""
        self._segment.file.close()

    def _write(self, payload: bytes) -> None:
        needed = record_bytes(len(payload))
        if self._offset + needed > self._segment.size:
            self._roll(needed)
        record = pack_record(self._segment.header, self._offset, self._seq, payload)
        self._segment.file.write(self._offset, record)
        self._segment.file.sync()
        self._offset += needed
        self._seq += 1

    def _roll(self, needed: int) -> None:
        header = SegmentHeader(owner=self._segment.header.owner, first_seq=self._seq)
        size = max(SEGMENT_BYTES, HEADER_BYTES + needed)
        name = _name(self._number + 1)
        self._disk.replace(name, pack_header(header).ljust(size, b"\0"))
        file = self._disk.open(name)
        self._segment.file.close()
        self._segment = _Segment(name=name, header=header, file=file, size=size)
        self._number += 1
        self._offset = HEADER_BYTES


def recover(disk: Disk, owner: Owner) -> tuple[Wal, Recovery]:
    """The log as it was last synced, plus possibly the whole write that was under way.

    Raises WalCorrupt (with file, offset, and what to do) when something durable is damaged or
    missing, WalForeign when the log is another member's, WalFailed when the disk refuses. A torn
    last write is cut. What is returned is durable again, whatever happened to an earlier sync.
    """
    try:
        return _recover(disk, owner)
    except OSError as error:
        raise WalFailed(f"the log in {disk.where('')} cannot be read: {error}") from error


def _recover(disk: Disk, owner: Owner) -> tuple[Wal, Recovery]:
    names = [name for name in disk.names() if name.endswith(_SUFFIX)]
    if not names:
        raise WalCorrupt(f"the log of this member is missing from {disk.where('')}. {_REMEDY}")
    ledger = _Ledger()
    entries: list[Entry] = []
    seq = 1
    for number, name in enumerate(names, 1):
        if name != _name(number):
            raise WalCorrupt(f"log segment {disk.where(_name(number))} is missing. {_REMEDY}")
        data = disk.read(name)
        header = _header(disk, name, data, owner)
        if header.first_seq != seq:
            raise WalCorrupt(
                f"{disk.where(name)} begins with record {header.first_seq}, but the records before "
                f"it end at {seq - 1}: the end of the segment before it is lost. {_REMEDY}"
            )
        found = scan(header, data)
        _check_damage(disk, name, found, is_last=number == len(names))
        for record in found.records:
            _replay(disk.where(name), record, ledger, entries)
        seq += len(found.records)
    # `names` is not empty, so the loop has set these to the newest segment's.
    durable = data[: found.end].ljust(len(data), b"\0")
    disk.replace(name, durable)
    segment = _Segment(name=name, header=header, file=disk.open(name), size=len(durable))
    wal = Wal(disk, segment, offset=found.end, seq=seq, ledger=ledger)
    return wal, Recovery(
        hard_state=ledger.hard_state,
        entries=tuple(entries),
        segments=len(names),
        torn_bytes=found.damaged_bytes,
    )


def _header(disk: Disk, name: str, data: bytes, owner: Owner) -> SegmentHeader:
    try:
        header = unpack_header(data)
    except BadHeader as error:
        raise WalCorrupt(f"{disk.where(name)}, offset 0: {error}. {_REMEDY}") from error
    if header.owner != owner:
        raise WalForeign(
            f"{disk.where(name)} is the log of {_describe(header.owner)}, but this is "
            f"{_describe(owner)}: it was copied or mixed up; point this node at its own directory"
        )
    return header


def _describe(owner: Owner) -> str:
    return f"node {owner.node} (member {owner.uuid}) of cluster {owner.cluster_id}"


def _check_damage(disk: Disk, name: str, found: Scan, *, is_last: bool) -> None:
    if not found.damaged_bytes or (is_last and found.valid_after is None):
        return
    beyond = (
        "another segment follows"
        if found.valid_after is None
        else f"a valid record follows at offset {found.valid_after}"
    )
    raise WalCorrupt(
        f"{disk.where(name)}, offset {found.end}: the record here is damaged, and {beyond}, so it "
        f"had been durable. {_REMEDY}"
    )


def _replay(where: str, record: Record, ledger: _Ledger, entries: list[Entry]) -> None:
    where = f"{where}, offset {record.offset}"
    if record.kind != BATCH:
        raise WalCorrupt(
            f"{where}: record of kind {record.kind}, written by a later version: "
            "start this node with that version"
        )
    try:
        batches = _DECODER.decode(record.payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise WalCorrupt(f"{where}: {error}. {_REMEDY}") from error
    for batch in batches:
        fault = ledger.fault(batch)
        if fault is not None:
            raise WalCorrupt(f"{where}: {fault}. {_REMEDY}")
        if batch.truncate_from is not None:
            del entries[batch.truncate_from - 1 :]
        entries.extend(batch.entries)
        ledger.take(batch)
