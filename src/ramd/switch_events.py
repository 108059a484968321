"""Events of a switchover. Must not live here: anything but values. See `ramd.events`."""

from __future__ import annotations

from dataclasses import dataclass

from ramd.events import WARNING, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldBegun(Event):
    template = "switchover of epoch {epoch}: fenced; open transactions have {drain_ms} ms to end"
    epoch: int
    drain_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Yielded(Event):
    template = (
        "switchover of epoch {epoch}: released, all WAL to {end} is confirmed ({phases}); the"
        " server stands by"
    )
    epoch: int
    end: str
    phases: str


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldFailed(Event):
    level = WARNING
    template = "switchover of epoch {epoch} given up: {why}; the server stands by to resume"
    epoch: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResumed(Event):
    template = "the server goes on in epoch {epoch}, after {fenced_ms} ms without writes"
    epoch: int
    fenced_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryMoved(Event):
    template = "the primary of epoch {epoch} takes writes: {phases}"
    epoch: int
    phases: str
