"""What the core wants to leave: messages, answers to reads, events.

Lives here: collecting between two calls of `ready()`. Must not live here: decisions. Messages to
this node itself never leave; they wait in `local` and are stepped by the core.
"""

from __future__ import annotations

from collections import deque

from pgraft.core.limits import AFTER_SYNC_MAX
from pgraft.core.types import CoreEvent, Message, NodeId, Outgoing, ReadDone


class Outbox:
    """Ways out: `now`, after a sync (with what it depends on durable), and `local`."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._after_sync: list[Outgoing] = []
        self._loopback: list[Message] = []
        self.now: list[Outgoing] = []
        self.local: deque[Message] = deque()
        self.reads: list[ReadDone] = []
        self.events: list[CoreEvent] = []

    @property
    def empty(self) -> bool:
        """Whether nothing may leave now (what waits for a sync aside)."""
        return not (self.now or self.reads or self.events)

    def send(self, to: NodeId, message: Message) -> None:
        """Send without waiting for the disk."""
        if to == self._node:
            self.local.append(message)
        else:
            self.now.append(Outgoing(to=to, message=message))

    def send_after_sync(self, to: NodeId, message: Message) -> None:
        """Send once everything this node has decided so far is durable.

        Behind a disk that hangs the queue is bounded; Raft repairs what is dropped.
        """
        if to == self._node:
            self._loopback.append(message)
        elif len(self._after_sync) < AFTER_SYNC_MAX:
            self._after_sync.append(Outgoing(to=to, message=message))

    def take_after_sync(self) -> tuple[Outgoing, ...]:
        """What may leave with the next batch, or at once if none is in flight."""
        taken, self._after_sync = tuple(self._after_sync), []
        return taken

    def take_loopback(self) -> tuple[Message, ...]:
        """Messages to oneself that wait for the next batch."""
        taken, self._loopback = tuple(self._loopback), []
        return taken

    def clear(self) -> None:
        """What may leave now was handed out."""
        for queue in (self.now, self.reads, self.events):
            queue.clear()
