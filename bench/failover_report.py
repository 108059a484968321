"""The comparison as a page for people and as JSON: one row for each stack and fault, and the aims.

Must not live here: measuring. Start reading at `Report`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.failover_rounds import AGENT, CRASH, FAULTS, FROZEN, KILLED, SWITCH, Sample, Terms
from bench.failover_stacks import RAMD, RAMD_FAST, STACKS
from bench.figures import Series, load_average, machine, table

OURS: Final = (RAMD, RAMD_FAST)
CRASH_AIM_MS: Final = 500.0
FLOORS_AIM: Final = 2.0
OVER_FLOORS_AIM_MS: Final = 200.0
OVER_LEASE_AIM_MS: Final = 500.0
SWITCH_AIM_MS: Final = 300.0
HEADS: Final = (
    "fault",
    "stack",
    "n",
    "outage median ms",
    "p90",
    "max",
    "rows lost",
    "acks of the old primary after the takeover",
    "two acknowledging s (max)",
    "rejoined s (max)",
    "load",
)


@dataclass(slots=True, kw_only=True)
class Facts:
    """What one stack is, and how long each time it took to form."""

    timing: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    formed_s: list[float] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Report:
    """Filled while the run goes on."""

    terms: Terms
    versions: dict[str, str]
    floor_ms: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, Facts] = field(default_factory=dict)
    load_before: list[float] = field(default_factory=load_average)
    together: bool = False
    """The stacks were measured at the same time."""

    def cell(self, stack: str, fault: str) -> list[Sample]:
        """The rounds of it that were measured."""
        return [
            one
            for one in self.samples
            if (one.stack, one.fault) == (stack, fault) and not one.failed
        ]

    def failures(self) -> list[Sample]:
        return [one for one in self.samples if one.failed]

    def add(self, part: str) -> None:
        """What another run of the same terms left as its JSON."""
        read = json.loads(part)
        self.samples += [Sample(**one) for one in read["rounds"]]
        self.facts |= {name: Facts(**facts) for name, facts in read["stacks"].items()}
        self.versions |= read["versions"]

    def text(self) -> str:
        """The page."""
        mode = "synchronous" if self.terms.synchronous else "asynchronous"
        parts = [f"# Failover: RAMD beside Patroni, {mode} replication\n"]
        if self.together:
            parts.append("The stacks shared the machine: all were measured at the same time.\n")
        parts.append(table(HEADS, self._rows()))
        parts.append("".join(f"- {line}\n" for line in self.verdicts()))
        parts.append(self._setting())
        failed = [f"- {one.stack}, {one.fault}: {one.failed}\n" for one in self.failures()]
        if failed:
            parts.append("Rounds without a figure:\n\n" + "".join(failed))
        return "\n".join(parts)

    def verdicts(self) -> list[str]:
        """Each aim of RAMD's, by its median, and whether this run met it."""
        lines = []
        for stack in OURS:
            for fault, aim_ms, why in self._aims(stack):
                if found := self.cell(stack, fault):
                    median = statistics.median(one.outage_ms for one in found)
                    met = "met" if median <= aim_ms else "MISSED"
                    lines.append(
                        f"{stack}, {fault}: {median:.0f} ms, aim {aim_ms:.0f} ({why}): {met}"
                    )
            if found := [one for one in self.samples if one.stack == stack and not one.failed]:
                lost = sum(one.lost for one in found)
                late = sum(one.late_acks for one in found)
                met = "met" if lost == late == 0 else "MISSED"
                lines.append(f"{stack}: {lost} rows lost, {late} acknowledged late, aim 0: {met}")
        return lines

    def json(self) -> str:
        """Everything, with each round."""
        return json.dumps(
            {
                "synchronous": self.terms.synchronous,
                "together": self.together,
                "frozen_s": {FROZEN: self.terms.node_s, AGENT: self.terms.agent_s},
                "versions": self.versions,
                "machine": machine(),
                "load": [self.load_before, load_average()],
                "floor_ms": [round(value, 1) for value in self.floor_ms],
                "stacks": {name: asdict(facts) for name, facts in self.facts.items()},
                "cells": self._cells(),
                "verdicts": self.verdicts(),
                "rounds": [one.figures() for one in self.samples],
            },
            indent=1,
        )

    def _aims(self, stack: str) -> Iterator[tuple[str, float, str]]:
        yield CRASH, CRASH_AIM_MS, "absolute"
        if self.floor_ms:
            aim_ms = FLOORS_AIM * statistics.median(self.floor_ms) + OVER_FLOORS_AIM_MS
            yield CRASH, aim_ms, "two floors and 200 ms"
        if stack in self.facts:
            lease_ms = self.facts[stack].timing["primary_lease_ttl_ms"]
            for fault in (KILLED, FROZEN):
                yield fault, lease_ms + OVER_LEASE_AIM_MS, "the lease and 500 ms"
        yield SWITCH, SWITCH_AIM_MS, "absolute"

    def _rows(self) -> Iterator[list[str]]:
        if self.floor_ms:
            yield ["promote floor", "", *_outage(self.floor_ms), *[""] * 5]
        for fault in FAULTS:
            for stack in STACKS:
                if found := self.cell(stack, fault):
                    overlaps = [one.overlap_s for one in found]
                    rejoins = Series.of(one.rejoin_s for one in found)
                    yield [
                        fault,
                        stack,
                        *_outage([one.outage_ms for one in found]),
                        str(sum(one.lost for one in found)),
                        str(sum(one.late_acks for one in found)),
                        f"{statistics.median(overlaps):.1f} ({max(overlaps):.1f})",
                        f"{rejoins.median:.1f} ({rejoins.highest:.1f})",
                        f"{statistics.median(one.load for one in found):.1f}",
                    ]

    def _cells(self) -> list[dict[str, Any]]:
        return [
            {
                "fault": fault,
                "stack": stack,
                "outage_ms": Series.of(one.outage_ms for one in found).figures(),
                "rejoin_s": Series.of(one.rejoin_s for one in found).figures(1),
                "rows_lost": sum(one.lost for one in found),
                "runs_with_rows_lost": sum(one.lost > 0 for one in found),
                "late_acks": sum(one.late_acks for one in found),
                "overlap_s": Series.of(one.overlap_s for one in found).figures(1),
            }
            for fault in FAULTS
            for stack in STACKS
            if (found := self.cell(stack, fault))
        ]

    def _setting(self) -> str:
        lines = [
            f"- {name}: {_words(of.timing)}, formed in {statistics.median(of.formed_s):.1f} s"
            f" (median); {_words(of.settings)}\n"
            for name, of in self.facts.items()
        ]
        return (
            f"Node frozen {self.terms.node_s:g} s, agent frozen {self.terms.agent_s:g} s."
            f" {_words(self.versions)}; {machine()};"
            f" load {self.load_before} before, {load_average()} after.\n\n" + "".join(lines)
        )


def _outage(values_ms: list[float]) -> list[str]:
    series = Series.of(values_ms)
    figures = (len(series.values), series.median, series.p90, series.highest)
    return [f"{figure:.0f}" for figure in figures]


def _words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
