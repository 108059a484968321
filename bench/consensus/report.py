"""The comparison as a page for people and as JSON.

Lives here: tables, ratios, aims. Must not live here: measuring. Start reading at `Report`.
A ratio is pgraft over etcd: below 1, pgraft is faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bench.consensus.measure import (
    FOLLOWER,
    HOP,
    KILLED,
    LEADER,
    WINDOW,
    Rounds,
    Sample,
    pooled,
)
from bench.figures import Series, load_average, machine, table

OURS: Final = "pgraft"
THEIRS: Final = "etcd"
COMMIT_AIM: Final = 2.0
SILENCE_AIM: Final = 0.5
DEFAULTS: Final = "defaults"


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """What one kind of fault cost at one timing; ms by group."""

    kind: str
    timing: str
    setting: str
    took_ms: Mapping[str, list[float]]

    def ratio(self) -> float:
        """Of the medians."""
        return Series.of(self.took_ms[OURS]).median / Series.of(self.took_ms[THEIRS]).median

    def cells(self) -> list[str]:
        """For a table."""
        both = [Series.of(self.took_ms[name]) for name in (OURS, THEIRS)]
        shown = [f"{s.median:.0f} / {s.p90:.0f} / {s.highest:.0f} ms" for s in both]
        return [self.kind, self.setting, str(len(both[0].values)), *shown, f"{self.ratio():.2f}"]


@dataclass(slots=True, kw_only=True)
class Report:
    """Filled while the run goes on."""

    versions: dict[str, str]
    setting: dict[str, Any]
    load_before: list[float]
    load_after: list[float] = field(default_factory=list)
    rounds: Rounds = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)

    def overall(self, kind: str) -> dict[str, Sample]:
        """All rounds as one, by group."""
        return {name: pooled([done[name][kind] for done in self.rounds]) for name in (OURS, THEIRS)}

    def ended(self) -> None:
        """Nothing more is measured."""
        self.load_after = load_average()

    def text(self) -> str:
        """The page."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        setting = ", ".join(f"{name}: {value}" for name, value in self.setting.items())
        parts = ["# Consensus: pgraft against etcd\n"]
        if self.rounds:
            parts.append(table(_COMMIT_HEADS, self._commit_rows()))
        if self.silences:
            parts.append(table(_SILENCE_HEADS, [silence.cells() for silence in self.silences]))
        parts.append("".join(f"- {line}\n" for line in self.verdicts()))
        parts.append(
            f"{versions}; {setting}; {machine()};"
            f" load {self.load_before} before, {self.load_after} after.\n"
        )
        return "\n".join(parts)

    def verdicts(self) -> list[str]:
        """Each aim, and whether this run met it."""
        lines = []
        if self.rounds:
            both = self.overall(LEADER)
            for name in ("p50", "p99"):
                ratio = getattr(both[OURS], name) / getattr(both[THEIRS], name)
                lines.append(_verdict(f"commit at the leader, {name}", ratio, COMMIT_AIM))
            lines.append(self._without_hop())
        lines += [
            _verdict("SIGKILL at the defaults, median", silence.ratio(), SILENCE_AIM)
            for silence in self.silences
            if silence.kind == KILLED and silence.timing == DEFAULTS
        ]
        return lines

    def json(self) -> str:
        """Everything, with each fault's silence."""
        return json.dumps(
            {
                "versions": self.versions,
                "setting": self.setting,
                "machine": machine(),
                "load": [self.load_before, self.load_after],
                "rounds": [_figures(done) for done in self.rounds],
                "overall": {kind: _both(self.overall(kind)) for kind in _KINDS if self.rounds},
                "silences": [
                    {
                        "kind": silence.kind,
                        "timing": silence.timing,
                        "setting": silence.setting,
                        "ratio": round(silence.ratio(), 3),
                        "ms": {
                            name: [round(each, 1) for each in took]
                            for name, took in silence.took_ms.items()
                        },
                    }
                    for silence in self.silences
                ],
                "verdicts": self.verdicts(),
            },
            indent=1,
        )

    def _without_hop(self) -> str:
        """What is left of the commit when the client's way, dear with gRPC, is taken off."""
        commit, hop = self.overall(LEADER), self.overall(HOP)
        ours, theirs = (commit[name].p50 - hop[name].p50 for name in (OURS, THEIRS))
        shown = f"{ours:.2f} against {theirs:.2f} ms, {ours / theirs:.2f} ×"
        return f"the same less the client's way, p50 (no aim): {shown}"

    def _commit_rows(self) -> list[list[str]]:
        rows = []
        for kind in _KINDS:
            for number, done in enumerate(self.rounds, 1):
                both = {name: done[name][kind] for name in (OURS, THEIRS)}
                rows.append([kind, str(number), *_cells(both)])
            rows.append([kind, "all", *_cells(self.overall(kind))])
        return rows


_KINDS: Final = (LEADER, FOLLOWER, WINDOW, HOP)
_COMMIT_HEADS: Final = (
    "commits",
    "round",
    "pgraft p50 / p99",
    "ops/s",
    "etcd p50 / p99",
    "ops/s",
    "ratio p50",
    "ratio p99",
)
_SILENCE_HEADS: Final = (
    "leader lost by",
    "heartbeat/election, ms",
    "n",
    "pgraft median / p90 / max",
    "etcd median / p90 / max",
    "ratio of medians",
)


def _cells(both: Mapping[str, Sample]) -> list[str]:
    ours, theirs = both[OURS], both[THEIRS]
    shown: list[str] = []
    for sample in (ours, theirs):
        shown += [f"{sample.p50:.2f} / {sample.p99:.2f} ms", f"{sample.per_second:.0f}"]
    return [*shown, f"{ours.p50 / theirs.p50:.2f}", f"{ours.p99 / theirs.p99:.2f}"]


def _both(both: Mapping[str, Sample]) -> dict[str, Any]:
    ours, theirs = both[OURS], both[THEIRS]
    return {
        OURS: ours.figures(),
        THEIRS: theirs.figures(),
        "ratio": {
            "p50": round(ours.p50 / theirs.p50, 3),
            "p99": round(ours.p99 / theirs.p99, 3),
        },
    }


def _figures(done: Mapping[str, Mapping[str, Sample]]) -> dict[str, Any]:
    return {kind: _both({name: done[name][kind] for name in (OURS, THEIRS)}) for kind in _KINDS}


def _verdict(what: str, ratio: float, aim: float) -> str:
    said = "met" if ratio <= aim else "MISSED"
    return f"{what}: {ratio:.2f} × etcd's, aim at most {aim:g}: {said}"
