"""What the host was given to write, and what it has confirmed as durable.

Lives here: tokens, the durable prefix of the log, messages to oneself that wait for a sync.
Must not live here: the entries (see `log`), any I/O. Start reading at `WriteQueue.take`.

An acknowledgement is matched by its token, and a truncation lowers what every batch still in
flight can prove. So an entry that was overwritten and then restored (same term, same index) is not
taken for durable on the word of the batch that wrote it the first time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pgraft.core.types import HardState, Index, Message, Nanos, NodeId, Snapshot, Term


@dataclass(slots=True, kw_only=True)
class _Flight:
    """One batch handed out and not durable yet; `last` is the last entry it will prove."""

    token: int
    last: Index
    taken_ns: Nanos
    loopback: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one Ready asks the host to write."""

    token: int | None = None
    snapshot: Snapshot | None = None
    hard_state: HardState | None = None
    truncate_from: Index | None = None
    first: Index = Index(0)
    """First log index to write; past the end of the log if there is none."""


NO_BATCH = Batch()
"""Nothing to write."""


class WriteQueue:
    """Batches in token order; `stable` is the last index of the log that is durable here."""

    def __init__(self, last: Index, hard_state: HardState) -> None:
        self.stable = last
        self._handed = last
        self._cut: Index | None = None
        self._snapshot: Snapshot | None = None
        self._flights: deque[_Flight] = deque()
        self._token = 0
        self._written = hard_state

    @property
    def in_flight(self) -> bool:
        """Whether a batch was handed out that is not durable yet."""
        return bool(self._flights)

    def stalled_ns(self, now: Nanos) -> Nanos:
        """How long the oldest batch has been waiting for its sync; 0 if none is."""
        return now - self._flights[0].taken_ns if self._flights else 0

    def cut(self, first: Index) -> None:
        """The log was truncated from `first` on: what lies there is neither handed nor durable."""
        if first <= self._handed:
            self._cut = first if self._cut is None else min(self._cut, first)
            self._handed = Index(first - 1)
        self._prove_at_most(Index(first - 1))

    def reset(self, commit: Index, snapshot: Snapshot) -> None:
        """The whole log was replaced by `snapshot`: of what was written before only what was
        committed still counts, and nothing is to be cut any more."""
        self._prove_at_most(commit)
        self._cut = None
        self._snapshot = snapshot
        self._handed = snapshot.index

    def needed(self, term: Term, vote: NodeId, last: Index) -> bool:
        """Whether something must be written: a snapshot, entries, a truncation, a term or vote.

        A commit index that moved alone is not worth a sync (Raft Figure 2 keeps it volatile).
        """
        return (
            last > self._handed
            or self._cut is not None
            or self._snapshot is not None
            or (term, vote) != (self._written.term, self._written.vote)
        )

    def take(
        self, hard_state: HardState, last: Index, now: Nanos, loopback: tuple[Message, ...]
    ) -> Batch:
        """Hand out everything up to `last` as one batch; `loopback` comes back when it is durable.

        Called only when it is `needed`: a batch is never empty.
        """
        self._token += 1
        write_hard_state = hard_state != self._written
        batch = Batch(
            token=self._token,
            snapshot=self._snapshot,
            hard_state=hard_state if write_hard_state else None,
            truncate_from=self._cut,
            first=Index(self._handed + 1),
        )
        if write_hard_state:
            self._written = hard_state
        self._cut = self._snapshot = None
        self._handed = last
        self._flights.append(_Flight(token=self._token, last=last, taken_ns=now, loopback=loopback))
        return batch

    def persisted(self, token: int) -> tuple[Message, ...]:
        """Batches up to `token` are durable; returns the messages to oneself that waited for them.

        A token seen before is ignored; ValueError for one that was never handed out.
        """
        if token > self._token:
            raise ValueError(f"token {token} was never handed out (last is {self._token})")
        loopback: list[Message] = []
        while self._flights and self._flights[0].token <= token:
            flight = self._flights.popleft()
            self.stable = max(self.stable, flight.last)
            loopback.extend(flight.loopback)
        return tuple(loopback)

    def _prove_at_most(self, last: Index) -> None:
        """What lies past `last` is neither durable nor becomes so by a batch in flight."""
        self.stable = min(self.stable, last)
        for flight in self._flights:
            flight.last = min(flight.last, last)
