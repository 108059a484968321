"""Bytes of both client protocols: frames of the bench's member, messages of etcd's API.

Lives here: encoding and decoding, pure. Must not live here: sockets. Start at `Request`.

The member's client port speaks frames: length (4 bytes), id (8), kind (1), payload. Of etcd's
protobuf only what the bench says and reads is here, by field number; no generated code is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEAD: Final = struct.Struct("!IQB")
_LENGTH: Final = struct.Struct("!I")
FRAME_BYTES_MAX: Final = 1 << 20


class Kind(IntEnum):
    """What a frame asks or answers."""

    PUT = 1
    HOP = 2
    STATUS = 3
    DONE = 4
    FAILED = 5


class Garbage(Exception):
    """Bytes that the peer cannot have meant."""


@dataclass(frozen=True, slots=True)
class Request:
    """One frame of either direction; an answer carries the id of what it answers."""

    id: int
    kind: Kind
    payload: bytes = b""

    def encode(self) -> bytes:
        """With its length."""
        length = _HEAD.size - _LENGTH.size + len(self.payload)
        return _HEAD.pack(length, self.id, self.kind) + self.payload


class Frames:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Request]:
        """Every frame that is complete now. Raises Garbage."""
        self._rest += data
        while len(self._rest) >= _HEAD.size:  # bounded: each turn takes a frame or ends
            length, number, kind = _HEAD.unpack_from(self._rest)
            if not _HEAD.size - _LENGTH.size <= length <= FRAME_BYTES_MAX:
                raise Garbage(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._rest) < end:
                return
            payload = bytes(self._rest[_HEAD.size : end])
            del self._rest[:end]
            yield Request(number, Kind(kind), payload)


def varint(value: int) -> bytes:
    """Protobuf's variable-length integer, unsigned."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def put_request(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest."""
    return _bytes_field(1, key) + _bytes_field(2, value)


def local_range_request(key: bytes) -> bytes:
    """etcdserverpb.RangeRequest of one key, answered by the member asked without a look around."""
    return _bytes_field(1, key) + varint(7 << 3) + varint(1)


def fields(message: bytes) -> dict[int, int | bytes]:
    """Field number → its last value; numbers and lengths only. Raises Garbage."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):  # bounded: each turn moves `at` on or raises
        tag, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if tag & 7 == 0:
            found[tag >> 3] = value
        elif tag & 7 == 2:
            if at + value > len(message):
                raise Garbage("a field longer than its message")
            found[tag >> 3] = message[at : at + value]
            at += value
        else:
            raise Garbage(f"wire type {tag & 7}")
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Garbage("a number without an end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a member says of its group. 0: it knows no leader. `applied` counts log entries."""

    member: int
    leader: int
    applied: int


def etcd_standing(response: bytes) -> Standing:
    """From etcdserverpb.StatusResponse. Raises Garbage."""
    status = fields(response)
    header = status.get(1)
    if not isinstance(header, bytes):
        raise Garbage("a status without a header")
    member = fields(header).get(2)
    numbers = [member, status.get(4, 0), status.get(7, 0)]
    whole = [number for number in numbers if isinstance(number, int)]
    if len(whole) != len(numbers):
        raise Garbage("a status without its numbers")
    return Standing(member=whole[0], leader=whole[1], applied=whole[2])
