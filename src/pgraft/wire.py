"""Frames between members: values to bytes and back, and nothing else.

Lives here: the frame format, its version, its size limits, the splitter that cuts a byte stream
into frames, and the parts that long frames travel in. Must not live here: sockets, the hello
(`pgraft.net.hello`), queues, decisions.
Start reading at `encode`, `FrameDecoder` and `Assembly`.

A frame is a 4-byte big-endian length of what follows, one byte of version, one byte of tag, and
msgpack. Tags below 64 are the core's messages, at most `CONTROL_BYTES_MAX` each, a snapshot at most
`SNAPSHOT_BYTES_MAX`; the others carry what the application sends beside Raft, at most
`APPLICATION_BYTES_MAX`. The sender is the authenticated peer of the connection, so no frame names
it.

A frame longer than `PART_BYTES_MAX` travels as parts: frames of their own tag, each with its offset
in the long one and that one's length, in order, and one long frame at a time. Whole frames may come
between the parts.

Fields unknown to the receiver are skipped and missing ones take their default, so a field may be
added with a default without a new version; everything else needs one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec

from pgraft.core.types import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    ReadReply,
    ReadRequest,
    Release,
    Renew,
    RenewReply,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

VERSION: Final = 1
CONTROL_BYTES_MAX: Final = 1 << 20
"""Longest frame of a Raft message, without its length prefix."""
SNAPSHOT_BYTES_MAX: Final = 4 << 20
"""Longest InstallSnapshot: a megabyte of the host's state, and at worst as many sessions and their
serials as the core remembers."""
APPLICATION_BYTES_MAX: Final = 4 << 20
"""Longest application frame, without its length prefix."""
BODY_BYTES_MAX: Final = max(SNAPSHOT_BYTES_MAX, APPLICATION_BYTES_MAX)
"""Longest of all frames, without its length prefix."""
PART_BYTES_MAX: Final = 64 << 10
"""Longest frame that travels whole, length prefix included, and most bytes one part carries."""
PAYLOAD_BYTES_MAX: Final = APPLICATION_BYTES_MAX - 1024
"""Longest payload an application frame can carry, whatever its method name."""
ENTRY_BYTES_MAX: Final = 512 << 10
"""Longest data of one log entry: it must fit a control frame with room for the rest."""
NAME_CHARS_MAX: Final = 128
"""Longest method name or error code."""
TEXT_CHARS_MAX: Final = 500
"""Longest error text that travels."""

_LENGTH = Struct(">I")
_HEADER = Struct(">IBB")
_PART = Struct(">IBBII")  # length, version, tag, offset, length of the whole body
_OFFSETS = Struct(">II")
_FIRST_APPLICATION_TAG: Final = 64


class WireError(Exception):
    """Bytes that are no frame of this version, or a value too large for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Fire and forget: no answer, no promise of arrival."""

    method: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request. `id` comes back in the `Reply` or `CallError`."""

    id: int
    method: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to the `Call` with this id."""

    id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """The call failed at the other side: one stable word and a sentence for people."""

    id: int
    code: str
    message: str


ApplicationFrame: TypeAlias = Cast | Call | Reply | CallError
Frame: TypeAlias = Message | ApplicationFrame

# The numbers are the protocol: never renumber, never reuse.
_TAGS: Final[dict[type[Any], int]] = {
    VoteRequest: 1,
    VoteReply: 2,
    Append: 3,
    AppendReply: 4,
    Heartbeat: 5,
    HeartbeatReply: 6,
    TimeoutNow: 7,
    ReadRequest: 8,
    ReadReply: 9,
    Renew: 10,
    RenewReply: 11,
    Release: 12,
    InstallSnapshot: 13,
    Cast: 64,
    Call: 65,
    Reply: 66,
    CallError: 67,
}
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final[dict[int, msgspec.msgpack.Decoder[Frame]]] = {
    tag: msgspec.msgpack.Decoder(kind) for kind, tag in _TAGS.items()
}
_BULK: Final = (Append, InstallSnapshot, Cast, Call)
_PART_TAG: Final = 32
TRAVELLING_BYTES_MAX: Final = PART_BYTES_MAX + _PART.size
"""Longest body that arrives at once: what a decoder of frames and parts must accept."""


def _limit(tag: int) -> int:
    if tag == _TAGS[InstallSnapshot]:
        return SNAPSHOT_BYTES_MAX
    return CONTROL_BYTES_MAX if tag < _FIRST_APPLICATION_TAG else APPLICATION_BYTES_MAX


def encode(frame: Frame) -> bytes:
    """One whole frame, length prefix included. Raises WireError if it exceeds its limit."""
    tag = _TAGS[type(frame)]
    buffer = bytearray(_HEADER.size)
    try:
        _ENCODER.encode_into(frame, buffer, _HEADER.size)
    except (msgspec.MsgspecError, OverflowError, ValueError) as error:
        raise WireError(f"{type(frame).__name__} cannot be encoded: {error}") from error
    length = len(buffer) - _LENGTH.size
    if length > _limit(tag):
        raise WireError(f"{type(frame).__name__} of {length} bytes exceeds {_limit(tag)}")
    _HEADER.pack_into(buffer, 0, length, VERSION, tag)
    return bytes(buffer)


def decode(body: bytes) -> Frame:
    """The value of one frame given without its length prefix. Raises WireError on anything else."""
    if len(body) < _HEADER.size - _LENGTH.size:
        raise WireError("frame shorter than its header")
    version, tag = body[0], body[1]
    if version != VERSION:
        raise WireError(f"frame of version {version}, this side speaks {VERSION}")
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise WireError(f"unknown frame tag {tag}")
    if len(body) > _limit(tag):
        raise WireError(f"frame with tag {tag} of {len(body)} bytes exceeds {_limit(tag)}")
    try:
        return decoder.decode(memoryview(body)[2:])
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as error:
        raise WireError(f"frame with tag {tag} cannot be decoded: {error}") from error


def is_bulk(frame: Frame) -> bool:
    """Whether others may overtake it: an append with entries, a snapshot, casts and calls."""
    if isinstance(frame, Append):
        return bool(frame.entries)
    return isinstance(frame, _BULK)


def encode_append(message: Append) -> bytes:
    """The append with as many of its first entries as one frame can hold.

    Leaving entries off an append is an append the leader might have sent; what follows is sent
    again once the shorter one is acknowledged (Raft §5.3). Raises WireError when not even one fits.
    """
    while True:  # bounded: the number of entries halves
        try:
            return encode(message)
        except WireError:
            if len(message.entries) <= 1:
                raise
            message = replace(message, entries=message.entries[: len(message.entries) // 2])


class FrameDecoder:
    """Cuts a byte stream into frame bodies; never holds more than one frame beyond its limit.

    `bytes_max` bounds one body; a longer announcement raises WireError before anything is buffered
    for it. After a WireError the stream is out of step: close the connection.
    """

    __slots__ = ("_buffer", "_bytes_max")

    def __init__(self, bytes_max: int = BODY_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every body completed by `data`, in order. Exhaust it before feeding again."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:  # bounded by the buffer
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 0 < length <= self._bytes_max:
                    raise WireError(f"announced frame of {length} bytes, limit {self._bytes_max}")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                body = bytes(memoryview(buffer)[start + _LENGTH.size : end])
                start = end
                yield body
        finally:
            del buffer[:start]

    def set_limit(self, bytes_max: int) -> None:
        """Raise or lower the bound for what comes next (a hello is held shorter than a frame)."""
        self._bytes_max = bytes_max


def part(data: bytes, sent: int) -> tuple[bytes, int]:
    """The next part of one encoded frame of which `sent` bytes have left, and how many have then.

    `sent` begins at 0; when it is the length of `data`, this was the last part.
    """
    offset = max(0, sent - _LENGTH.size)
    total = len(data) - _LENGTH.size
    chunk = memoryview(data)[_LENGTH.size + offset :][:PART_BYTES_MAX]
    length = _PART.size - _LENGTH.size + len(chunk)
    header = _PART.pack(length, VERSION, _PART_TAG, offset, total)
    return header + chunk, _LENGTH.size + offset + len(chunk)


class Assembly:
    """Puts parts together again; holds at most one frame of `BODY_BYTES_MAX`, and only what came.

    After a WireError the stream is out of step: close the connection.
    """

    __slots__ = ("_received", "_total")

    def __init__(self) -> None:
        self._received = bytearray()
        self._total = 0

    def take(self, body: bytes) -> bytes | None:
        """The body that is whole with this one: itself, or what its parts make; None: more to come.

        Raises WireError for a part that does not continue what came before.
        """
        if len(body) < _HEADER.size - _LENGTH.size or body[1] != _PART_TAG:
            return body
        if len(body) <= _PART.size - _LENGTH.size or body[0] != VERSION:
            raise WireError("a part without content, or of another version")
        offset, total = _OFFSETS.unpack_from(body, _HEADER.size - _LENGTH.size)
        chunk = memoryview(body)[_PART.size - _LENGTH.size :]
        known = self._total if self._received else total
        if offset != len(self._received) or total != known or offset + len(chunk) > total:
            raise WireError(f"a part at {offset} of {total}, after {len(self._received)} bytes")
        if total > BODY_BYTES_MAX:
            raise WireError(f"parts of a frame of {total} bytes, limit {BODY_BYTES_MAX}")
        self._total = total
        self._received += chunk
        if len(self._received) < total:
            return None
        whole = bytes(self._received)
        self._received = bytearray()
        return whole
