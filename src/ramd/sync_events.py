"""The events of synchronous replication and of copies, declared as those in `ramd.events`.

Must not live here: any other event. `ramd.events.emit` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.events import ERROR, WARNING, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingTakenBack(Event):
    level = ERROR
    template = "{setting} was set by ALTER SYSTEM over what ramd keeps there: taken back"
    setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProposed(Event):
    template = "synchronous set, change {generation}: {reason}"
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProven(Event):
    template = (
        "synchronous set {generation} of epoch {epoch} is proven: every process of the server goes"
        " by it, and enough members hold all WAL to {upto}"
    )
    epoch: int
    generation: int
    upto: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncWaits(Event):
    level = WARNING
    template = "synchronous set {generation} is not proven yet: {why}"
    generation: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStands(Event):
    template = "synchronous set {generation} stands, and can be neither seen nor changed now: {why}"
    generation: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyNamed(Event):
    template = "the data directory is copy {copy}: {why}"
    copy: str
    why: str
