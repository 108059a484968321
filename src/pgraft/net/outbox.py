"""What waits to be sent on one connection, and in which order.

Lives here: the bounded queue and the cutting of long frames. Must not live here: sockets.
Start reading at `Outbox`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from pgraft.wire import PART_BYTES_MAX, part

CONTROL_FRAMES_MAX: Final = 1024
BULK_FRAMES_MAX: Final = 128
BULK_BYTES_MAX: Final = 8 << 20
_WRITE_BUFFER_HIGH: Final = 64 << 10
_WRITE_BUFFER_LOW: Final = 16 << 10


class Outbox:
    """What waits to be sent on one connection: control ahead of bulk, newest dropped when full.

    A frame longer than `PART_BYTES_MAX` is bulk whatever it is, and leaves in parts, so that what
    is urgent waits for one part of it at most. One frame is in parts at a time.
    """

    __slots__ = ("_bulk", "_bulk_bytes", "_control", "_paused", "_sent", "transport")

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_HIGH, low=_WRITE_BUFFER_LOW)
        self.transport = transport
        self._paused = False
        self._control: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._bulk_bytes = 0
        self._sent = 0
        """How much of the first bulk frame has left in parts."""

    def push(self, data: bytes, *, bulk: bool) -> bool:
        """Send now or as soon as the socket takes more. False: the queue is full, it was dropped.

        An append that is dropped will be sent again by Raft; a dropped beat is followed by another.
        """
        if bulk or len(data) > PART_BYTES_MAX:
            if len(self._bulk) >= BULK_FRAMES_MAX or self._bulk_bytes + len(data) > BULK_BYTES_MAX:
                return False
            self._bulk.append(data)
            self._bulk_bytes += len(data)
        elif len(self._control) >= CONTROL_FRAMES_MAX:
            return False
        else:
            self._control.append(data)
        self._pump()
        return True

    def pause(self) -> None:
        """The socket takes no more for now."""
        self._paused = True

    def resume(self) -> None:
        """The socket takes more: send what waits until it is full again."""
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        while not self._paused and (self._control or self._bulk):  # bounded by the queues
            if self._control:
                self.transport.write(self._control.popleft())
            else:
                self._send_bulk(self._bulk[0])

    def _send_bulk(self, data: bytes) -> None:
        if len(data) <= PART_BYTES_MAX:
            self._sent = len(data)
            piece = data
        else:
            piece, self._sent = part(data, self._sent)
        if self._sent == len(data):
            self._bulk.popleft()
            self._bulk_bytes -= len(data)
            self._sent = 0
        self.transport.write(piece)
