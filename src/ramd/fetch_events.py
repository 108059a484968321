"""Events of fetching WAL in a failover. Must not live here: anything but values.

See `ramd.events`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.events import WARNING, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class WalFetched(Event):
    template = "fetched WAL from node {source}: all that it had, to {upto}, in {duration_ms} ms"
    source: int
    upto: str
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalNotFetched(Event):
    level = WARNING
    template = "fetching WAL from node {source} failed: {why}"
    source: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalLent(Event):
    template = "handing WAL of timeline {timeline} to {upto} to node {taker}"
    taker: int
    timeline: int
    upto: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalDoubted(Event):
    level = WARNING
    template = "the WAL of epoch {epoch} is handed to nobody: {why}"
    epoch: int
    why: str
