"""Frames: what goes in comes out, whatever the chunks; garbage raises WireError only."""

import contextlib
import random
from dataclasses import replace
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft import wire
from pgraft.core import limits
from pgraft.core.types import (
    Append,
    Config,
    Entry,
    EntryKind,
    Grant,
    Heartbeat,
    Index,
    InstallSnapshot,
    Message,
    NodeId,
    Session,
    Snapshot,
    Term,
    VoteRequest,
)
from pgraft.wire import (
    APPLICATION_BYTES_MAX,
    CONTROL_BYTES_MAX,
    ENTRY_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    Call,
    CallError,
    Cast,
    FrameDecoder,
    Reply,
    WireError,
    decode,
    encode,
    encode_append,
)

NUMBERS = st.integers(0, 2**63 - 1)
st.register_type_strategy(int, NUMBERS)
NODES = st.frozensets(st.integers(1, 9).map(NodeId))
CONFIGS = st.builds(
    Config,
    voters=NODES,
    outgoing=NODES,
    learners=NODES,
    learners_next=NODES,
    auto_leave=st.booleans(),
)
GRANTS = st.builds(Grant, holder=NUMBERS, epoch=NUMBERS, ttl_ns=NUMBERS, payload=st.binary())
ENTRIES = st.builds(
    Entry,
    term=NUMBERS,
    index=NUMBERS,
    kind=st.sampled_from(EntryKind),
    data=st.binary(),
    config=st.none() | CONFIGS,
    grant=st.none() | GRANTS,
)
MESSAGES = st.one_of(
    [
        st.builds(kind, entries=st.lists(ENTRIES).map(tuple)) if kind is Append else st.builds(kind)
        for kind in get_args(Message)
    ]
)
APPLICATION = st.one_of(
    st.builds(Cast, method=st.text(), payload=st.binary()),
    st.builds(Call, id=NUMBERS, method=st.text(), payload=st.binary()),
    st.builds(Reply, id=NUMBERS, payload=st.binary()),
    st.builds(CallError, id=NUMBERS, code=st.text(), message=st.text()),
)
FRAMES: st.SearchStrategy[Any] = MESSAGES | APPLICATION


def entry(index: int, data: bytes = b"") -> Entry:
    return Entry(term=Term(1), index=Index(index), kind=EntryKind.COMMAND, data=data)


def append(*entries: Entry) -> Append:
    return Append(
        term=Term(1), prev_index=Index(0), prev_term=Term(0), commit=Index(0), entries=entries
    )


@given(FRAMES)
def test_every_frame_comes_back_equal(frame: wire.Frame) -> None:
    body = encode(frame)[4:]
    back = decode(body)
    assert back == frame
    assert type(back) is type(frame)


@given(st.lists(FRAMES, max_size=6), st.data())
def test_a_stream_cut_anywhere_yields_the_same_frames(
    frames: list[wire.Frame], data: st.DataObject
) -> None:
    stream = b"".join(encode(frame) for frame in frames)
    decoder = FrameDecoder()
    seen: list[wire.Frame] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        seen += [decode(body) for body in decoder.feed(stream[:size])]
        stream = stream[size:]
    assert seen == frames


@given(st.binary(max_size=200))
def test_garbage_raises_wire_error_or_is_a_frame(body: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(body)


@given(FRAMES, st.data())
def test_a_damaged_frame_raises_wire_error_or_is_a_frame(
    frame: wire.Frame, data: st.DataObject
) -> None:
    body = bytearray(encode(frame)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    with contextlib.suppress(WireError):
        decode(bytes(body[:cut]))


@given(st.binary(max_size=300), st.integers(1, 100))
def test_a_stream_of_garbage_never_raises_anything_else(data: bytes, bytes_max: int) -> None:
    decoder = FrameDecoder(bytes_max)
    try:
        for body in decoder.feed(data):
            assert 0 < len(body) <= bytes_max
    except WireError:
        pass


def test_deep_nesting_raises_wire_error() -> None:
    body = bytes([wire.VERSION, 5]) + b"\x81\xa1x" + b"\x91" * 100_000
    with pytest.raises(WireError):
        decode(body)


def test_a_missing_field_takes_its_default_and_an_unknown_one_is_skipped() -> None:
    fields = {"term": 3, "last_index": 4, "last_term": 2, "of_tomorrow": [1, 2]}
    body = bytes([wire.VERSION, 1]) + msgspec.msgpack.encode(fields)
    assert decode(body) == VoteRequest(term=Term(3), last_index=Index(4), last_term=Term(2))


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02\x05\x80", b"\x01\xc8\x80", b"\x01\x05\x80"])
def test_short_foreign_unknown_and_incomplete_frames_are_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        decode(body)


def test_an_announced_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    decoder = FrameDecoder()
    with pytest.raises(WireError, match="announced"):
        list(decoder.feed((APPLICATION_BYTES_MAX + 1).to_bytes(4, "big")))
    with pytest.raises(WireError, match="announced"):
        list(FrameDecoder().feed(bytes(4)))


def test_a_control_frame_over_its_limit_is_refused_both_ways() -> None:
    big = append(entry(1, bytes(CONTROL_BYTES_MAX)))
    with pytest.raises(WireError, match="exceeds"):
        encode(big)
    body = bytes([wire.VERSION, 3]) + msgspec.msgpack.encode(big)
    with pytest.raises(WireError, match="exceeds"):
        decode(body)


def test_the_longest_payload_and_the_longest_entry_fit() -> None:
    frame = Call(id=2**63, method="m" * wire.NAME_CHARS_MAX, payload=bytes(PAYLOAD_BYTES_MAX))
    assert decode(encode(frame)[4:]) == frame
    one = append(entry(1, bytes(ENTRY_BYTES_MAX)))
    assert decode(encode(one)[4:]) == one
    with pytest.raises(WireError):
        encode(Call(id=1, method="m", payload=bytes(APPLICATION_BYTES_MAX)))


def test_a_number_beyond_64_bits_cannot_be_encoded() -> None:
    with pytest.raises(WireError):
        encode(Heartbeat(term=Term(2**64), commit=Index(0), round=0))


def test_a_long_append_is_shortened_to_a_prefix_that_fits() -> None:
    entries = tuple(entry(index, bytes(300_000)) for index in range(1, 9))
    sent = decode(encode_append(append(*entries))[4:])
    assert isinstance(sent, Append)
    assert 1 <= len(sent.entries) < 8
    assert sent.entries == entries[: len(sent.entries)]
    with pytest.raises(WireError):
        encode_append(append(entry(1, bytes(CONTROL_BYTES_MAX))))


def test_beats_and_votes_overtake_appends_with_entries_but_not_each_other() -> None:
    assert wire.is_bulk(append(entry(1)))
    assert not wire.is_bulk(append())
    assert not wire.is_bulk(Heartbeat(term=Term(1), commit=Index(0), round=0))
    assert wire.is_bulk(Cast(method="m", payload=b""))


def parts_of(data: bytes) -> list[bytes]:
    """The bodies of all parts of one encoded frame."""
    sent, bodies = 0, []
    while sent < len(data):
        piece, sent = wire.part(data, sent)
        (body,) = FrameDecoder(wire.TRAVELLING_BYTES_MAX).feed(piece)
        bodies.append(body)
    return bodies


LONG = encode(Cast(method="m", payload=random.Random(1).randbytes(200_000)))


@given(st.integers(1, 4 * wire.PART_BYTES_MAX))
def test_a_frame_in_parts_comes_back_equal(size: int) -> None:
    data = encode(Cast(method="m", payload=bytes(size)))
    assembly = wire.Assembly()
    bodies = parts_of(data)
    assert len(bodies) == -(-(len(data) - 4) // wire.PART_BYTES_MAX)
    assert [assembly.take(body) for body in bodies] == [None] * (len(bodies) - 1) + [data[4:]]


def test_whole_frames_may_come_between_parts() -> None:
    assembly = wire.Assembly()
    beat = encode(Heartbeat(term=Term(1), commit=Index(0), round=1))[4:]
    seen = []
    for body in parts_of(LONG):
        seen += [assembly.take(beat), assembly.take(body)]
    assert seen == [beat, None] * 3 + [beat, LONG[4:]]
    assert assembly.take(beat) == beat


@pytest.mark.parametrize("order", [(1,), (0, 0), (0, 2), (0, 1, 1), (0, 1, 0)])
def test_parts_that_do_not_continue_each_other_are_refused(order: tuple[int, ...]) -> None:
    assembly, bodies = wire.Assembly(), parts_of(LONG)
    *good, bad = order
    for number in good:
        assert assembly.take(bodies[number]) is None
    with pytest.raises(WireError, match="a part at"):
        assembly.take(bodies[bad])


def part_body(offset: int, total: int, chunk: bytes) -> bytes:
    numbers = offset.to_bytes(4, "big") + total.to_bytes(4, "big")
    return bytes([wire.VERSION, 32]) + numbers + chunk


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (part_body(0, 10, b""), "without content"),
        (bytes([9]) + part_body(0, 10, b"x")[1:], "another version"),
        (part_body(0, 2, b"xyz"), "a part at 0 of 2"),
        (part_body(0, wire.BODY_BYTES_MAX + 1, b"x"), "parts of a frame of"),
        (part_body(0, 1, b"x")[:9], "without content"),
    ],
)
def test_a_part_that_is_none_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(WireError, match=text):
        wire.Assembly().take(body)


def test_another_length_in_a_later_part_is_refused() -> None:
    assembly = wire.Assembly()
    assert assembly.take(part_body(0, 5, b"ab")) is None
    with pytest.raises(WireError, match="a part at 2 of 6, after 2 bytes"):
        assembly.take(part_body(2, 6, b"c"))


def test_a_part_is_no_frame() -> None:
    with pytest.raises(WireError, match="unknown frame tag 32"):
        decode(part_body(0, 1, b"x"))


def test_the_largest_snapshot_fits_and_no_larger_one() -> None:
    sessions = tuple(
        Session(session=2**64 - 1 - n, floor=2**62, done=tuple(range(2**62, 2**62 + 1024)))
        for n in range(limits.SESSIONS_MAX)
    )
    snapshot = Snapshot(
        index=Index(2**62),
        term=Term(2**62),
        config=Config(voters=frozenset({NodeId(1)})),
        sessions=sessions,
        data=bytes(limits.SNAPSHOT_BYTES_MAX),
    )
    message = InstallSnapshot(term=Term(1), snapshot=snapshot)
    assert decode(encode(message)[4:]) == message
    assert wire.is_bulk(message)
    with pytest.raises(WireError, match="exceeds"):
        encode(replace(message, snapshot=replace(snapshot, data=bytes(wire.SNAPSHOT_BYTES_MAX))))


def test_a_stream_split_at_every_byte_yields_the_same() -> None:
    vote = encode(VoteRequest(term=Term(1), last_index=Index(1), last_term=Term(1)))
    cast = encode(Cast(method="m", payload=bytes(40)))
    for cut in range(len(vote + cast) + 1):
        decoder = FrameDecoder()
        bodies = [*decoder.feed((vote + cast)[:cut]), *decoder.feed((vote + cast)[cut:])]
        assert bodies == [vote[4:], cast[4:]]
