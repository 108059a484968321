"""What stands in the records of the log, and the rules that each keeps with what came before it.

Lives here: `WalBatch`, the base of a segment, their encoding, the ledger. Must not live here:
files, segments. Start reading at `Ledger.after`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pgraft.core.types import NO_NODE, Entry, HardState, Index, Snapshot, Term

_NOTHING: Final = HardState()


@dataclass(frozen=True, slots=True, kw_only=True)
class WalBatch:
    """One step of the core, in the order in which it takes effect: snapshot, cut, append, hard
    state. A snapshot takes the place of the whole log; `entries` begin after it."""

    snapshot: Snapshot | None = None
    truncate_from: Index | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Where the log stood when a segment was begun: its last entry, and the hard state.

    `restart`: a snapshot of (`index`, `term`) had taken the place of everything before.
    """

    index: Index = Index(0)
    term: Term = Term(0)
    hard_state: HardState = _NOTHING
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A batch as it is written. Its snapshot is a file, which the base of a segment points to."""

    truncate_from: Index | None = None
    entries: tuple[Entry, ...] = ()
    hard_state: HardState | None = None


_ENCODER: Final = msgspec.msgpack.Encoder()
_BATCHES: Final = msgspec.msgpack.Decoder(tuple[_Stored, ...])
_BASE: Final = msgspec.msgpack.Decoder(Base)


class Garbage(Exception):
    """A record whose checksum is right and whose payload means nothing."""


def encode_batches(batches: Sequence[WalBatch]) -> bytes:
    """The payload of one record of kind BATCH."""
    return _ENCODER.encode(
        tuple(
            _Stored(
                truncate_from=batch.truncate_from,
                entries=batch.entries,
                hard_state=batch.hard_state,
            )
            for batch in batches
        )
    )


def encode_base(base: Base) -> bytes:
    """The payload of one record of kind BASE."""
    return _ENCODER.encode(base)


def decode_batches(payload: bytes) -> tuple[WalBatch, ...]:
    """The batches of one record. Raises Garbage."""
    try:
        stored = _BATCHES.decode(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Garbage(str(error)) from error
    return tuple(
        WalBatch(
            truncate_from=batch.truncate_from, entries=batch.entries, hard_state=batch.hard_state
        )
        for batch in stored
    )


def decode_base(payload: bytes) -> Base:
    """The base of a segment. Raises Garbage."""
    try:
        return _BASE.decode(payload)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Garbage(str(error)) from error


_RUNS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The end of the log and the hard state, with the rules every batch keeps when it is written
    and when it is read. `runs`: where each of the last terms begins, as (index, term)."""

    last_index: Index = Index(0)
    runs: tuple[tuple[Index, Term], ...] = ()
    hard_state: HardState = _NOTHING

    @property
    def last_term(self) -> Term:
        """Term of the last entry; 0 if there is none, or if a cut went back behind all `runs`."""
        return self.runs[-1][1] if self.runs else Term(0)

    def fault(self, batch: WalBatch) -> str | None:
        """Why this batch may not follow, None if it may."""
        last = self.last_index
        old = self.hard_state
        if batch.truncate_from is not None:
            if not old.commit < batch.truncate_from <= last + 1:
                return f"cut from {batch.truncate_from} with commit {old.commit}, last {last}"
            last = Index(batch.truncate_from - 1)
        for entry in batch.entries:
            if entry.index != last + 1:
                return f"entry {entry.index} after {last}"
            last = entry.index
        new = batch.hard_state
        if new is None:
            return None
        if new.term < old.term or new.commit < old.commit:
            return f"hard state goes back from {old} to {new}"
        if new.term == old.term and old.vote not in (NO_NODE, new.vote):
            return f"second vote in term {new.term}: {old.vote}, then {new.vote}"
        if new.commit > last:
            return f"commit {new.commit} beyond the last entry {last}"
        return None

    def after(self, batch: WalBatch) -> Ledger:
        """The ledger once this batch, which `fault` found nothing wrong with, has taken effect."""
        last, runs = self.last_index, self.runs
        if batch.truncate_from is not None:
            last = Index(batch.truncate_from - 1)
            runs = tuple(run for run in runs if run[0] <= last)
        for entry in batch.entries:
            last = entry.index
            if not runs or runs[-1][1] != entry.term:
                runs = (*runs[-_RUNS_MAX:], (entry.index, entry.term))
        return Ledger(last_index=last, runs=runs, hard_state=batch.hard_state or self.hard_state)

    def restarted(self, snapshot: Snapshot) -> Ledger:
        """The ledger once a snapshot stands for everything before.

        The term is not below the snapshot's. This member has not voted in that one if its own was
        lower: what it had promised was durable before.
        """
        old = self.hard_state
        hard_state = replace(old, commit=max(old.commit, snapshot.index))
        if old.term < snapshot.term:
            hard_state = replace(hard_state, term=snapshot.term, vote=NO_NODE)
        runs = ((snapshot.index, snapshot.term),)
        return Ledger(last_index=snapshot.index, runs=runs, hard_state=hard_state)

    def base(self, *, restart: bool = False) -> Base:
        """What the next segment begins with."""
        return Base(
            index=self.last_index, term=self.last_term, hard_state=self.hard_state, restart=restart
        )

    @staticmethod
    def of(base: Base) -> Ledger:
        """The ledger where a segment begins."""
        runs = ((base.index, base.term),) if base.index else ()
        return Ledger(last_index=base.index, runs=runs, hard_state=base.hard_state)
