"""What waits to be sent: bounded, control first, long frames in parts."""

import asyncio
from typing import cast

import pytest

from pgraft.net import outbox as outboxes
from pgraft.net.outbox import Outbox
from pgraft.wire import PART_BYTES_MAX, Assembly, Cast, FrameDecoder, encode


class Pipe:
    """Takes `room` writes, then asks to pause."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written: list[bytes] = []
        self.outbox = Outbox(cast(asyncio.WriteTransport, self))

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high > low

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.room -= 1
        if self.room == 0:
            self.outbox.pause()

    def drain(self, room: int) -> None:
        self.room = room
        self.outbox.resume()


def frame(size: int) -> bytes:
    return encode(Cast(method="m", payload=bytes(size)))


def bodies(pieces: list[bytes]) -> list[bytes]:
    """What the other side makes of it."""
    decoder, assembly = FrameDecoder(), Assembly()
    whole = (assembly.take(b) for piece in pieces for b in decoder.feed(piece))
    return [body for body in whole if body is not None]


def test_control_goes_between_the_parts_of_a_long_frame() -> None:
    pipe = Pipe(room=2)
    long, short = frame(5 * PART_BYTES_MAX), frame(10)
    assert pipe.outbox.push(long, bulk=True)
    assert len(pipe.written) == 2
    assert pipe.outbox.push(short, bulk=False)
    pipe.drain(1)
    assert pipe.written[2] == short
    pipe.drain(100)
    assert all(len(piece) <= PART_BYTES_MAX + 20 for piece in pipe.written)
    assert bodies(pipe.written) == [short[4:], long[4:]]


def test_long_frames_leave_one_after_the_other_and_an_answer_can_be_one() -> None:
    pipe = Pipe(room=1)
    frames = [frame(3 * PART_BYTES_MAX), frame(10), frame(2 * PART_BYTES_MAX)]
    for number, data in enumerate(frames):
        assert pipe.outbox.push(data, bulk=number != 2)
    pipe.drain(100)
    assert bodies(pipe.written) == [data[4:] for data in frames]


def test_both_lanes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "CONTROL_FRAMES_MAX", 3)
    monkeypatch.setattr(outboxes, "BULK_FRAMES_MAX", 3)
    monkeypatch.setattr(outboxes, "BULK_BYTES_MAX", 300_000)
    pipe = Pipe(room=1)
    assert pipe.outbox.push(frame(1), bulk=False)
    assert [pipe.outbox.push(frame(1), bulk=False) for _ in range(4)] == [True] * 3 + [False]
    assert [pipe.outbox.push(frame(1), bulk=True) for _ in range(4)] == [True] * 3 + [False]
    pipe.drain(100)
    pipe.outbox.pause()
    sizes = [pipe.outbox.push(frame(140_000), bulk=True) for _ in range(3)]
    assert sizes == [True, True, False]
    pipe.drain(100)
    assert pipe.outbox.push(frame(140_000), bulk=True), "what has left takes no room"
    assert len(bodies(pipe.written)) == 1 + 3 + 3 + 2 + 1
