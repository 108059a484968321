"""Who waits for what: entries to be applied here, reads to be confirmed, a leader to appear.

Lives here: futures and their bounds. Must not live here: the core, the network.
Start reading at `Waiting.entry`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from typing import Any, Final

from pgraft.core.types import Config, Entry, Index, ReadDone, Snapshot, Term

WAITING_MAX: Final = 1024
"""Callers that wait, of each kind."""
_REMEMBERED: Final = 4096
"""Applied entries whose term is remembered: an answer about them may arrive after them."""

_SERIALS: Final = itertools.count(1)


class TooMany(Exception):
    """WAITING_MAX callers wait already."""


class _Past:
    """The terms of the last entries that were applied."""

    def __init__(self) -> None:
        self.terms: dict[Index, Term] = {}
        self._order: deque[Index] = deque()

    def note(self, index: Index, term: Term) -> None:
        self.terms[index] = term
        self._order.append(index)
        if len(self._order) > _REMEMBERED:
            del self.terms[self._order.popleft()]


class _Settled:
    """The last configuration that was applied and is not joint, and who waits for a later one."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[Config], Index] = {}
        self._last: tuple[Index, Config] | None = None

    def add(self, index: Index, future: asyncio.Future[Config]) -> None:
        if self._last is not None and self._last[0] >= index:
            future.set_result(self._last[1])
            return
        self.waiting[future] = index
        future.add_done_callback(lambda _: self.waiting.pop(future, None))

    def take(self, index: Index, config: Config) -> None:
        if config.outgoing:
            return
        self._last = (index, config)
        for future, wanted in list(self.waiting.items()):
            if wanted <= index and not future.done():
                future.set_result(config)


class Waiting:
    """Callers of one member, in one event loop. After `fail` every wait fails at once."""

    def __init__(self) -> None:
        self.applied = Index(0)
        self._entries: dict[Index, list[tuple[Term, asyncio.Future[bool]]]] = {}
        self._past = _Past()
        self._indexes: list[tuple[Index, int, asyncio.Future[None]]] = []
        self._reads: dict[int, asyncio.Future[Index | None]] = {}
        self._configs = _Settled()
        self._origins: dict[tuple[int, int], asyncio.Future[Index]] = {}
        self._failure: BaseException | None = None

    def entry(self, term: Term, index: Index) -> asyncio.Future[bool]:
        """True once this very entry is applied here; False once another stands in its place.

        A future that stays open for an entry applied too long ago to remember: the caller's
        deadline ends it, with an unknown outcome.
        """
        future = self._future(sum(map(len, self._entries.values())))
        known = self._past.terms.get(index)
        if known is not None and not future.done():
            future.set_result(known == term)
        elif not future.done():
            self._entries.setdefault(index, []).append((term, future))
            future.add_done_callback(lambda _: self._forget(index))
        return future

    def origin(self, session: int, serial: int) -> asyncio.Future[Index]:
        """The index at which the command of this origin is known to be applied here."""
        future: asyncio.Future[Index] = self._future(len(self._origins))
        key = (session, serial)
        if not future.done():
            self._origins[key] = future
            future.add_done_callback(lambda _: self._origins.pop(key, None))
        return future

    def settled(self, index: Index) -> asyncio.Future[Config]:
        """The first configuration applied here at or after `index` that is not joint."""
        future: asyncio.Future[Config] = self._future(len(self._configs.waiting))
        if not future.done():
            self._configs.add(index, future)
        return future

    def index(self, index: Index) -> asyncio.Future[None]:
        """Done once everything up to `index` is applied here."""
        future = self._future(len(self._indexes))
        if index <= self.applied and not future.done():
            future.set_result(None)
        elif not future.done():
            heapq.heappush(self._indexes, (index, next(_SERIALS), future))
        return future

    def read(self) -> tuple[int, asyncio.Future[Index | None]]:
        """A fresh context, and what the core answers to it."""
        future: asyncio.Future[Index | None] = self._future(len(self._reads))
        context = next(_SERIALS)
        if not future.done():
            self._reads[context] = future
            future.add_done_callback(lambda _: self._reads.pop(context, None))
        return context, future

    def on_applied(self, entry: Entry) -> None:
        """The host has applied this entry."""
        self.applied = entry.index
        self._past.note(entry.index, entry.term)
        for term, future in self._entries.pop(entry.index, ()):
            if not future.done():
                future.set_result(term == entry.term)
        if entry.origin.session:
            self._done(entry.origin.session, entry.origin.serial, entry.index)
        if entry.config is not None:
            self._configs.take(entry.index, entry.config)
        self._reached(entry.index)

    def on_restored(self, snapshot: Snapshot) -> None:
        """The host has taken the state of this snapshot. What the entries before it were is not
        known any more, but which commands are applied is."""
        self.applied = snapshot.index
        self._configs.take(snapshot.index, snapshot.config)
        done = {(s.session, serial) for s in snapshot.sessions for serial in s.done}
        floors = {s.session: s.floor for s in snapshot.sessions}
        for session, serial in list(self._origins):
            if serial <= floors.get(session, 0) or (session, serial) in done:
                self._done(session, serial, snapshot.index)
        self._reached(snapshot.index)

    def _done(self, session: int, serial: int, index: Index) -> None:
        future = self._origins.get((session, serial))
        if future is not None and not future.done():
            future.set_result(index)

    def _reached(self, index: Index) -> None:
        while self._indexes and self._indexes[0][0] <= index:
            done = heapq.heappop(self._indexes)[2]
            if not done.done():
                done.set_result(None)

    def on_read(self, answer: ReadDone) -> None:
        """The core answered a read."""
        future = self._reads.get(answer.context)
        if future is not None and not future.done():
            future.set_result(answer.index)

    def fail(self, error: BaseException) -> None:
        """Nothing will be applied here any more."""
        self._failure = error
        entries = [future for waiters in self._entries.values() for _, future in waiters]
        indexes = [future for _, _, future in self._indexes]
        pending: list[asyncio.Future[Any]] = [*entries, *indexes, *self._reads.values()]
        pending += [*self._origins.values(), *self._configs.waiting]
        for future in pending:
            if not future.done():
                future.set_exception(error)
        self._entries.clear()
        self._indexes.clear()

    def _forget(self, index: Index) -> None:
        # A caller that gave up must not keep its place until the entry is applied.
        left = [item for item in self._entries.get(index, ()) if not item[1].done()]
        if left:
            self._entries[index] = left
        else:
            self._entries.pop(index, None)

    def _future(self, waiting: int) -> asyncio.Future[Any]:
        if waiting >= WAITING_MAX:
            raise TooMany
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            future.set_exception(self._failure)
        return future
