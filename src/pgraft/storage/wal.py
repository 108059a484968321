"""The write-ahead log of one member: what it promised, durable before anyone hears of it.

Lives here: segments as files, appending, making room, compaction. Must not live here: Raft rules,
reading a log back (`replay`), threads (the host calls from the one thread it keeps for this).
Start reading at `Wal.append`.

Segments `0000000000000001.wal`, … are chained by number and by the sequence of their records. Each
begins with a base: where the log stood, and the hard state. So segments that a snapshot covers can
be removed, oldest first, and a snapshot of another member begins a segment whose base is its end.

A segment has its full size, in zeros, before it is used, and the one after it is made ahead of
need (`prepare`): a full disk shows while there is still room in the running segment. What did not
fit is not written in half and may be asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pgraft.core.types import Index, Snapshot, Term
from pgraft.storage import snapshot as snapshots
from pgraft.storage.batches import Base, Ledger, WalBatch, encode_base, encode_batches
from pgraft.storage.disk import Disk, DiskFile, StorageError
from pgraft.storage.errors import FULL, DiskFull, WalCorrupt, WalFailed, WalForeign
from pgraft.storage.segment import (
    BASE,
    HEADER_BYTES,
    Owner,
    SegmentHeader,
    pack_header,
    pack_record,
    record_bytes,
)

__all__ = [
    "SEGMENT_BYTES",
    "DiskFull",
    "Tail",
    "Wal",
    "WalBatch",
    "WalCorrupt",
    "WalFailed",
    "WalForeign",
    "create",
    "exists",
]

SEGMENT_BYTES: Final = 1 << 20
SUFFIX: Final = ".wal"
SPARE: Final = "next.segment"
"""Zeros of the size of a segment: becomes the next one by being renamed."""


class _Unsynced(Exception):
    """A sync failed: the kernel may have dropped what it should have written."""


def name_of(number: int) -> str:
    """The file of a segment."""
    return f"{number:016x}{SUFFIX}"


def exists(disk: Disk) -> bool:
    """Whether this directory holds any segment of a log."""
    return any(name.endswith(SUFFIX) for name in disk.names())


def create(disk: Disk, owner: Owner, base: Base | None = None) -> None:
    """An empty log, durable on return; one that begins after a saved snapshot if `base` says so.

    Raises StorageError on failure or if there is one.
    """
    if exists(disk):
        raise StorageError(f"{disk.where('')} already holds a log")
    header = SegmentHeader(owner=owner, first_seq=1)
    try:
        head = _head(header, base or Base())
        disk.replace(name_of(1), head.ljust(SEGMENT_BYTES, b"\0"))
    except OSError as error:
        raise WalFailed(f"{disk.where(name_of(1))} cannot be made: {error}") from error


def _head(header: SegmentHeader, base: Base) -> bytes:
    payload = encode_base(base)
    record = pack_record(header, HEADER_BYTES, header.first_seq, payload, BASE)
    return pack_header(header) + record


class Tail:
    """The segment that is written to. `offset` and `seq` are the next record's."""

    __slots__ = ("_torn", "base", "file", "header", "number", "offset", "seq", "size")

    def __init__(
        self, file: DiskFile, header: SegmentHeader, *, number: int, size: int, base: Base | None
    ) -> None:
        self.file = file
        self.header = header
        self.number = number
        self.size = size
        self.base = base
        self.offset = HEADER_BYTES
        self.seq = header.first_seq
        self._torn: bytes | None = None
        if base is not None:
            self.skip(len(encode_base(base)), 1)

    def skip(self, payload_bytes: int, records: int) -> None:
        """So many records are there already, with so much payload in the last of them."""
        self.offset += record_bytes(payload_bytes)
        self.seq += records

    @property
    def unused(self) -> bool:
        """Whether nothing but the base was written."""
        return self.seq == self.header.first_seq + 1

    def fits(self, payload: bytes) -> bool:
        """Whether one more record with this payload fits."""
        return self.offset + record_bytes(len(payload)) <= self.size

    def write(self, payload: bytes) -> None:
        """One more record, durable on return."""
        # Half of it may stand there already. Another, shorter one would leave a rest behind it.
        assert self._torn in (None, payload), "what did not fit must be asked again unchanged"
        self._torn = payload
        self.file.write(self.offset, pack_record(self.header, self.offset, self.seq, payload))
        sync(self.file)
        self._torn = None
        self.skip(len(payload), 1)


def sync(file: DiskFile) -> None:
    """As `file.sync`, but a failure is never taken for a full disk: it is final, whatever it says
    (the kernel may have dropped the pages, and a second sync would succeed without them)."""
    try:
        file.sync()
    except OSError as error:
        raise _Unsynced(str(error)) from error


class Wal:
    """An open log that ends at a known place. Made by `replay.recover`; used from one thread.

    Raises WalFailed, and from then on nothing else: after a failed write or sync nobody can say
    what is on the disk, so the member must stop.
    """

    __slots__ = ("_chain", "_disk", "_failed", "_ledger", "_spare", "_tail")

    def __init__(
        self, disk: Disk, tail: Tail, ledger: Ledger, chain: list[tuple[int, Index | None]]
    ) -> None:
        """`chain`: number of each segment, and where it begins if it says so itself."""
        self._disk = disk
        self._tail = tail
        self._ledger = ledger
        self._chain = chain
        self._spare = False
        self._failed: WalFailed | None = None

    def append(self, batches: Sequence[WalBatch]) -> None:
        """All of `batches`, in order, as one record with one sync: all durable on return, or none.

        Only the first may have a snapshot; it is durable before the record. Raises WalFailed, and
        DiskFull: then these very batches, and no others, must be given again. A batch that breaks
        the log's rules (hard state going back, a gap, a cut below commit) is a bug and raises
        AssertionError with nothing written.
        """
        if self._failed is not None:
            raise self._failed
        first = batches[0].snapshot
        ledger = self._ledger if first is None else self._ledger.restarted(first)
        for number, batch in enumerate(batches):
            assert number == 0 or batch.snapshot is None, "a snapshot after other batches"
            fault = ledger.fault(batch)
            assert fault is None, fault
            ledger = ledger.after(batch)
        payload = encode_batches(batches)
        try:
            if first is not None:
                snapshots.save(self._disk, self._tail.header.owner, first)
                self._restart(first)
            if not self._tail.fits(payload):
                self._roll(self._ledger.base(), record_bytes(len(payload)))
            self._tail.write(payload)
        except (OSError, _Unsynced, StorageError) as error:
            raise self._fault(error) from error
        self._ledger = ledger

    def begin(self, snapshot: Snapshot | None) -> None:
        """Go on in a new segment; `snapshot`, which is saved, stands for the whole log before it.

        Raises DiskFull and WalFailed.
        """
        try:
            if snapshot is None:
                self._roll(self._ledger.base(), 0)
            else:
                self._restart(snapshot)
        except (OSError, _Unsynced) as error:
            raise self._fault(error) from error

    @property
    def durable(self) -> tuple[Term, Index]:
        """Last term and index that are durable. May be read while another thread appends."""
        ledger = self._ledger
        return ledger.last_term, ledger.last_index

    @property
    def wants_room(self) -> bool:
        """Whether `prepare` has something to do."""
        return not self._spare

    def prepare(self) -> None:
        """Make the next segment's room now, so that a batch does not wait for it.

        Raises DiskFull while there is still room in the running segment, and WalFailed.
        """
        if self._failed is not None:
            raise self._failed
        if not self._spare:
            try:
                self._disk.replace(SPARE, bytes(SEGMENT_BYTES))
            except OSError as error:
                raise self._fault(error) from error
            self._spare = True

    def save(self, snapshot: Snapshot) -> None:
        """A snapshot of this member's own state is durable on return, and the log is shortened.

        It is kept back to the snapshot before, should this one rot. Raises DiskFull, with the log
        as it was, and WalFailed.
        """
        if self._failed is not None:
            raise self._failed
        try:
            index = snapshots.save(self._disk, self._tail.header.owner, snapshot)
        except StorageError as error:
            raise self._fault(error) from error
        self.compact(index)

    def compact(self, index: Index) -> int:
        """Remove the segments that hold nothing beyond `index`; returns how many.

        A durable snapshot must stand for everything up to there. Raises WalFailed.
        """
        begins = [at for at, (_, base) in enumerate(self._chain) if base is not None]
        last = max((at for at in begins if (self._chain[at][1] or 0) <= index), default=0)
        for _ in range(last):
            # Oldest first, each durable: after a crash no segment is missing between two others.
            try:
                self._disk.remove(name_of(self._chain[0][0]))
            except OSError as error:
                raise self._fault(error) from error
            del self._chain[0]
        return last

    def close(self) -> None:
        """Give the file back."""
        self._tail.file.close()

    def _fault(self, error: Exception) -> StorageError:
        """Full disks pass; anything else is final."""
        where = self._disk.where(name_of(self._tail.number))
        if isinstance(error, DiskFull):
            return error
        if isinstance(error, OSError) and error.errno in FULL:
            return DiskFull(f"the log {where}", error)
        self._failed = WalFailed(
            f"writing the log {where} failed: {error}. This node has stopped, because nothing "
            "can be promised any more; check the disk, then start it again"
        )
        return self._failed

    def _restart(self, snapshot: Snapshot) -> None:
        ledger = self._ledger.restarted(snapshot)
        base = ledger.base(restart=True)
        if self._tail.base != base or not self._tail.unused:  # else this was done in a try before
            self._roll(base, 0)
        self._ledger = ledger

    def _roll(self, base: Base, needed: int) -> None:
        header = SegmentHeader(owner=self._tail.header.owner, first_seq=self._tail.seq)
        number = self._tail.number + 1
        name = name_of(number)
        head = _head(header, base)
        size = max(SEGMENT_BYTES, len(head) + needed)
        if self._spare and size == SEGMENT_BYTES:
            spare = self._disk.open(SPARE)
            try:
                spare.write(0, head)
                sync(spare)
            finally:
                spare.close()
            self._disk.rename(SPARE, name)
            self._spare = False
        else:
            self._disk.replace(name, head.ljust(size, b"\0"))
        file = self._disk.open(name)
        self._tail.file.close()
        self._tail = Tail(file, header, number=number, size=size, base=base)
        self._chain.append((number, base.index))
