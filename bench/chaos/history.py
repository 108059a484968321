"""What clients were told: values only, in the clients' own monotonic seconds.

Lives here: the record that `clients` writes and `verdict` judges. Must not live here: connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Work(StrEnum):
    """What a client does all the time."""

    INSERT = "insert"
    """One row by one statement that commits itself."""
    TRANSACTION = "transaction"
    """Two rows by BEGIN, two statements, COMMIT."""
    COUNT = "count"
    """Add one to a counter and return what it is now."""


PARTS = {Work.INSERT: 1, Work.TRANSACTION: 2, Work.COUNT: 0}
"""Rows of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """An acknowledged commit. `sent_s` is before the last statement was sent, `received_s` after
    its answer was read, so the acknowledgement was given between the two."""

    client: int
    number: int
    work: Work
    node: int
    timeline: int
    """Of the server, as it said itself in the same transaction."""
    sent_s: float
    received_s: float
    counter: int = 0
    value: int = 0
    """Of the counter after it."""


@dataclass(slots=True)
class History:
    """Everything the clients saw. One thread appends; others read, which lists allow."""

    acks: list[Ack] = field(default_factory=list)
    unknown: dict[tuple[int, int], Work] = field(default_factory=dict)
    """By (client, number): sent, and no answer that says what became of it."""
    refused: int = 0
    """Answered by an error that PostgreSQL gives only when it has undone the transaction."""
    unreached: int = 0
    """Connections that were not made in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What one server holds at the end, when nobody writes any more."""

    node: int
    timeline: int
    lineage: str
    """Its timeline's history file."""
    sums: tuple[tuple[str, int, str], ...]
    """(table, rows, sum of hashes of all rows)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The primary's rows and counters, every server's copy, and pgbench's own balance."""

    primary: int
    rows: dict[tuple[int, int, int], int]
    """How often (client, number, part) is there."""
    counters: dict[int, int]
    copies: tuple[Copy, ...]
    balances: tuple[int, ...] = ()
    """Sums over pgbench's accounts, tellers, branches and history: all the same, by its rules."""
