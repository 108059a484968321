"""Clients of one run of a simulated member: commands by session, retried; linearizable reads.

Lives here: what is asked, when it is asked again, when it is given up. Must not live here: what an
answer means for the history (see `raft_history`). Start reading at `Client.propose`.

A command goes to whoever is believed to lead. When no outcome shows it goes out again, under the
same serial of the same session, perhaps to another leader while the first is still under way.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from pgraft.core.types import Entry, EntryKind, Index, Origin, ReadDone
from tests.simulation.linearizability import Operation
from tests.support.raft_history import Histories
from tests.support.raft_machine import Machine, command


class Daemon(Protocol):
    """The process whose clients these are."""

    def ask_leader(self, data: bytes, origin: Origin) -> None:
        """Send a command to whoever is believed to lead."""
        ...

    def ask_read(self, context: int) -> None:
        """Ask the core for a linearizable read."""
        ...

    def true_now(self) -> int:
        """True time, ns."""
        ...

    def after(self, delay_ns: int, serial: int) -> None:
        """Call `Client.again(serial)` later."""
        ...


@dataclass(slots=True)
class _Call:
    key: int
    operation: Operation
    data: bytes
    give_up_at: int


class Client:
    """One session. `machine` is the state its commands are applied to."""

    def __init__(
        self, daemon: Daemon, histories: Histories, rng: random.Random, patience_ns: int
    ) -> None:
        self.machine = Machine()
        self._daemon = daemon
        self._histories = histories
        self._rng = rng
        self._patience_ns = patience_ns
        self._session = (rng.getrandbits(62) | 1, 0)
        self._calls: dict[int, _Call] = {}
        self._reads: dict[int, tuple[int, Operation, Index | None]] = {}

    def propose(self, padding: int) -> None:
        """A new command."""
        now = self._daemon.true_now()
        key, operation = self._histories.begin(now, read=False)
        session, serial = self._session[0], self._session[1] + 1
        self._session = (session, serial)
        data = command(key, operation, padding)
        self._calls[serial] = _Call(key, operation, data, now + self._patience_ns)
        self.again(serial)

    def again(self, serial: int) -> None:
        """Send a command, for the first time or once more, unless its time is over."""
        call = self._calls.get(serial)
        if call is None:
            return
        if self._daemon.true_now() >= call.give_up_at:
            del self._calls[serial]
            self._histories.end(call.key, call.operation, None)
            return
        self._daemon.after(self._rng.randrange(self._patience_ns // 8, self._patience_ns), serial)
        floor = min(self._calls) - 1
        self._daemon.ask_leader(
            call.data, Origin(session=self._session[0], serial=serial, floor=floor)
        )

    def read(self) -> None:
        """A new read."""
        key, operation = self._histories.begin(self._daemon.true_now(), read=True)
        context = self._rng.getrandbits(40)
        self._reads[context] = (key, operation, None)
        self._daemon.ask_read(context)

    def read_done(self, read: ReadDone) -> None:
        """The core answers a read; its value is taken once all up to its index is applied."""
        key, operation, _ = self._reads[read.context]
        if read.index is None:
            del self._reads[read.context]
            self._histories.end(key, operation, None)
            return
        self._reads[read.context] = (key, operation, read.index)
        self.serve_reads()

    def serve_reads(self) -> None:
        """Answer the reads whose index is applied now."""
        applied = self.machine.applied
        for context, (key, operation, index) in list(self._reads.items()):
            if index is not None and index <= applied:
                del self._reads[context]
                value = self.machine.values.get(key, 0)
                self._histories.end(key, operation, self._daemon.true_now(), value)

    def apply(self, entry: Entry) -> None:
        """Apply an entry; if it is one of ours, its outcome is known now."""
        result = self.machine.apply(entry)
        origin = entry.origin
        if origin.session != self._session[0] or origin.serial not in self._calls:
            return
        call = self._calls.pop(origin.serial)
        # What comes out without effect took effect before, where a snapshot hid its result.
        known = entry.kind is EntryKind.COMMAND
        now = self._daemon.true_now() if known else None
        self._histories.end(call.key, call.operation, now, result)

    def end(self) -> None:
        """The process is gone: nobody will ever be told."""
        for call in self._calls.values():
            self._histories.end(call.key, call.operation, None)
        for key, operation, _ in self._reads.values():
            self._histories.end(key, operation, None)
        self._calls.clear()
        self._reads.clear()
