"""What a leader knows of one peer's log.

Lives here: match and next index, the flow of Appends and snapshots to one peer. Must not live here:
messages, quorums. Start reading at `Progress`.

        probe  --ack-->  replicate
          ^  |               |
          |  +--too old--> snapshot --ack--> replicate
          +-----reject-------+

probe: one Append at a time, next index uncertain. replicate: next runs ahead of the acks, at most
`INFLIGHT_APPENDS_MAX` Appends unacknowledged. snapshot: one is under way, and nothing else is sent;
it ends with its ack, with the link, or when it has taken too long. `next > match` always.
"""

from __future__ import annotations

from collections import deque

from pgraft.core.limits import INFLIGHT_APPENDS_MAX
from pgraft.core.types import Index, Nanos

NOTHING = (Index(0), 0)


class Progress:
    """`match`: durable on the peer; `next`: the entry to send next; `heard_ns`: its last reply;
    `told`: the newest commit index that was sent to it; `installing`: index of the snapshot under
    way and until when it may take, `NOTHING` if there is none.
    """

    def __init__(self, next_index: Index, now: Nanos) -> None:
        self.match = Index(0)
        self.next = next_index
        self.told = Index(0)
        self.heard_ns = now
        self.probing = True
        self.installing: tuple[Index, Nanos] = NOTHING
        self._paused = False
        self._inflight: deque[Index] = deque()

    @property
    def blocked(self) -> bool:
        """Whether an Append has to wait for an answer to an earlier message."""
        if self.installing is not NOTHING:
            return True
        return self._paused if self.probing else len(self._inflight) >= INFLIGHT_APPENDS_MAX

    def sent(self, last: Index | None, commit: Index) -> None:
        """An Append left; `last` is its last entry, None if it carried none."""
        self.told = commit
        if self.probing:
            self._paused = True
        elif last is not None:
            self.next = Index(last + 1)
            self._inflight.append(last)

    def sent_snapshot(self, index: Index, until_ns: Nanos) -> None:
        """A snapshot left; nothing follows before it is answered, or given up at `until_ns`."""
        self.probing = True
        self.installing = (index, until_ns)

    def acked(self, match: Index) -> bool:
        """The peer holds everything up to `match`; False if that was known (or is stale)."""
        while self._inflight and self._inflight[0] <= match:
            self._inflight.popleft()
        moved = match > self.match
        self.match = max(self.match, match)
        if self.installing is not NOTHING and match >= self.installing[0]:
            self.installing = NOTHING
        # An ack of exactly match proves that a probe found the place, even if nothing moved.
        if self.probing and match == self.match and self.installing is NOTHING:
            self.probing = False
            self._paused = False
            self._inflight.clear()
            self.next = Index(self.match + 1)
        self.next = max(self.next, Index(self.match + 1))
        return moved

    def rejected(self, at: Index, hint: Index) -> bool:
        """The peer refused an Append whose previous entry was `at`; False if that is stale.

        Going back never goes below what the peer has acknowledged. A peer that refuses even that
        has lost what it had promised: asking again at once would go on without end.
        """
        if at <= self.match or self.installing is not NOTHING:
            return False
        if not self.probing:
            self.probe()
            return True
        if at != self.next - 1:
            return False
        self.next = max(min(at, Index(hint + 1)), Index(self.match + 1))
        self._paused = False
        return True

    def probe(self) -> None:
        """Forget what is in flight; what was sent ahead of the acks is sent again."""
        if not self.probing:
            self.next = Index(self.match + 1)
        self.probing = True
        self.installing = NOTHING
        self._paused = False
        self._inflight.clear()

    def resume(self, now: Nanos) -> None:
        """The peer answered a heartbeat: it is alive, so lost messages must not block for ever."""
        self._paused = False
        if len(self._inflight) >= INFLIGHT_APPENDS_MAX:
            self._inflight.popleft()
        if now >= self.installing[1]:
            self.installing = NOTHING
