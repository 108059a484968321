"""Frames between members: values to bytes and back, and nothing else.

Lives here: the frame format, its version, its size limits, and the splitter that cuts a byte stream
into frames. Must not live here: sockets, the hello (`pgraft.net.hello`), queues, decisions.
Start reading at `encode` and `FrameDecoder`.

A frame is a 4-byte big-endian length of what follows, one byte of version, one byte of tag, and
msgpack. Tags below 64 are the core's messages, at most `CONTROL_BYTES_MAX` each; the others carry
what the application sends beside Raft, at most `APPLICATION_BYTES_MAX`. The sender is the
authenticated peer of the connection, so no frame names it.

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
APPLICATION_BYTES_MAX: Final = 4 << 20
"""Longest application frame, without its length prefix."""
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
_BULK: Final = (Append, Cast, Call)


def _limit(tag: int) -> int:
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
    """Whether other frames may overtake it: an append that carries entries, casts and calls."""
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

    def __init__(self, bytes_max: int = APPLICATION_BYTES_MAX) -> None:
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
