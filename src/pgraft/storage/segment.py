"""The bytes of one log segment: header, records, and what a damaged end means. No files.

Lives here: the format and its pure reader. Must not live here: the meaning of a payload, files.
Start reading at `scan`.

A segment is a header of `HEADER_BYTES`, records each aligned to 8, and zeros up to its size, which
is fixed when it is made so that a sync never has to write file metadata. A record is

    length u32 | crc32 u32 | kind u8 | 3 zeros | seq u64 | payload        (little endian)

A segment of format 2 begins with a record of kind BASE: where the log stood, so that older segments
can go. Segments of format 1, of earlier versions, are read, and continued by one of format 2.

One record is one batch and one sync, and the next is written only after that sync. So after a
crash at most the last record can be damaged, in any of its sectors. Hence the rule of recovery:
damage with no valid record after it is a torn write and is cut; damage with a valid record after
it is rot of something that was once durable. Rot of the very last record looks like a torn write;
nothing in the file can tell them apart. The checksum covers the record's place (owner, segment,
offset), so a copy of a record inside a payload is not taken for one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error
from typing import Final

FORMAT: Final = 2
FIRST_FORMAT: Final = 1
"""Segments without a base, which earlier versions wrote."""
MAGIC: Final = b"PGRAFTWL"
HEADER_BYTES: Final = 128
ALIGNMENT: Final = 8
BATCH: Final = 1
"""Kind of a record: what `pgraft.storage.batches` encodes as a batch."""
BASE: Final = 2
"""Kind of the first record of a segment: where the log stood."""

_HEADER = Struct("<8sIIQQ32s32s")  # magic, format, zero, node, first seq, cluster id, member uuid
_RECORD = Struct("<IIB3xQ")
_CRC = Struct("<I")
_PLACE = Struct("<QIBQ")  # offset, length, kind, seq


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose log it is. Ids are 32 lower-case hex digits."""

    cluster_id: str
    node: int
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """`first_seq` is the number of the first record this segment will hold."""

    owner: Owner
    first_seq: int
    format: int = FORMAT


class BadHeader(Exception):
    """These bytes do not begin with a header that this version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One valid record. `offset` is where it begins in its segment."""

    offset: int
    seq: int
    kind: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """`end` is where the valid records end; `damaged_bytes` from there to the last that is not 0.

    `valid_after` is the offset of a valid record beyond the damage, None if there is none.
    """

    records: tuple[Record, ...]
    end: int
    damaged_bytes: int
    valid_after: int | None


def describe(owner: Owner) -> str:
    """For people."""
    return f"node {owner.node} (member {owner.uuid}) of cluster {owner.cluster_id}"


def pack_header(header: SegmentHeader) -> bytes:
    """The first `HEADER_BYTES` of a segment."""
    owner = header.owner
    body = _HEADER.pack(
        MAGIC,
        header.format,
        0,
        owner.node,
        header.first_seq,
        owner.cluster_id.encode("ascii"),
        owner.uuid.encode("ascii"),
    )
    body = body.ljust(HEADER_BYTES - _CRC.size, b"\0")
    return body + _CRC.pack(zlib.crc32(body))


def unpack_header(data: bytes) -> SegmentHeader:
    """The header of a segment. Raises BadHeader, whose text says what is wrong with it."""
    if len(data) < HEADER_BYTES:
        raise BadHeader("shorter than its header")
    body = data[: HEADER_BYTES - _CRC.size]
    (crc,) = _CRC.unpack_from(data, len(body))
    if crc != zlib.crc32(body):
        raise BadHeader("header checksum does not match")
    magic, version, _, node, first_seq, cluster_id, uuid = _HEADER.unpack_from(body)
    if magic != MAGIC:
        raise BadHeader("not a pgraft log segment")
    if not FIRST_FORMAT <= version <= FORMAT:
        raise BadHeader(
            f"format {version}, this version reads {FIRST_FORMAT} to {FORMAT}: start this node "
            "with the version that wrote it"
        )
    owner = Owner(cluster_id=cluster_id.decode("ascii"), node=node, uuid=uuid.decode("ascii"))
    return SegmentHeader(owner=owner, first_seq=first_seq, format=version)


def record_bytes(payload_bytes: int) -> int:
    """Room one record takes, padding included."""
    return -(-(_RECORD.size + payload_bytes) // ALIGNMENT) * ALIGNMENT


def _seed(header: SegmentHeader) -> int:
    owner = header.owner
    return zlib.crc32(f"{owner.cluster_id}{owner.uuid}{owner.node}/{header.first_seq}".encode())


def _checksum(seed: int, place: bytes, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(place, seed))


def pack_record(
    header: SegmentHeader, offset: int, seq: int, payload: bytes, kind: int = BATCH
) -> bytes:
    """One record that is valid at `offset` of the segment with this header, and nowhere else."""
    assert payload, "an empty record would be hard to tell from zeros"
    place = _PLACE.pack(offset, len(payload), kind, seq)
    crc = _checksum(_seed(header), place, payload)
    record = _RECORD.pack(len(payload), crc, kind, seq) + payload
    return record.ljust(record_bytes(len(payload)), b"\0")


def _record_at(seed: int, data: bytes, offset: int) -> Record | None:
    try:
        length, crc, kind, seq = _RECORD.unpack_from(data, offset)
    except struct_error:
        return None
    begin = offset + _RECORD.size
    if length == 0 or begin + length > len(data):
        return None
    payload = memoryview(data)[begin : begin + length]
    if crc != _checksum(seed, _PLACE.pack(offset, length, kind, seq), payload):
        return None
    return Record(offset=offset, seq=seq, kind=kind, payload=bytes(payload))


def _find_valid(seed: int, data: bytes, where: range, expected_seq: int) -> int | None:
    seq_max = expected_seq + len(data) // ALIGNMENT
    for offset in where:
        if offset + _RECORD.size > len(data):
            break
        _length, _crc, _kind, seq = _RECORD.unpack_from(data, offset)
        # The number tells nearly every false start from a record before the checksum must be made.
        if expected_seq <= seq <= seq_max and _record_at(seed, data, offset) is not None:
            return offset
    return None


def scan(header: SegmentHeader, data: bytes) -> Scan:
    """Read every record from the front; at the first that is not valid, judge what follows."""
    seed = _seed(header)
    records: list[Record] = []
    offset = HEADER_BYTES
    seq = header.first_seq
    while (record := _record_at(seed, data, offset)) is not None:  # bounded by the data
        if record.seq != seq:
            break
        records.append(record)
        offset += record_bytes(len(record.payload))
        seq += 1
    if data[offset:] == bytes(len(data) - offset):  # by far the usual case, and quickly seen
        return Scan(records=tuple(records), end=offset, damaged_bytes=0, valid_after=None)
    used_bytes = len(data.rstrip(b"\0"))
    return Scan(
        records=tuple(records),
        end=offset,
        damaged_bytes=used_bytes - offset,
        valid_after=_find_valid(seed, data, range(offset, used_bytes, ALIGNMENT), seq),
    )
