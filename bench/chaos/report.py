"""What a run found, for people and as JSON.

Lives here: rendering. Must not live here: judging (`verdict`), measuring (`availability`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.chaos.availability import Begun, Gap, available, before, by_fault, outages
from bench.chaos.history import History
from bench.chaos.verdict import Violation, late
from bench.figures import Series, load_average, machine, table

LONGEST_SHOWN = 5


@dataclass(slots=True, kw_only=True)
class Storm:
    """The faults; seconds are monotonic."""

    from_s: float = 0.0
    until_s: float = 0.0
    """When all was healthy after the last one."""
    faults: list[Begun] = field(default_factory=list)
    nothing: int = 0
    """Steps that found nobody to hit."""
    heals_s: list[float] = field(default_factory=list)
    """From the last undoing to health, where that was waited for."""


@dataclass(slots=True, kw_only=True)
class Around:
    """What else went on."""

    switchovers: dict[str, int] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    pgbench: int = 0


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything that a report shows beside the history; filled while the run goes on."""

    command: str
    storm: Storm = field(default_factory=Storm)
    around: Around = field(default_factory=Around)
    violations: list[Violation] = field(default_factory=list)
    excused: list[Violation] = field(default_factory=list)
    """Shown and no failure: losses with asynchronous replication."""
    failures: list[str] = field(default_factory=list)
    """What else went wrong: not healed, a daemon that ended by itself."""
    judged: bool = False
    """The servers' rows were read, so that a loss would have been seen."""

    @property
    def failed(self) -> bool:
        return bool(self.violations or self.failures) or not self.judged


def figures(findings: Findings, history: History) -> dict[str, Any]:
    """For JSON."""
    storm, around = findings.storm, findings.around
    times = [ack.received_s for ack in history.acks]
    lost = [one.count for one in (*findings.violations, *findings.excused) if one.rule == "lost"]
    return {
        "command": findings.command,
        "failed": findings.failed,
        "minutes": round((storm.until_s - storm.from_s) / 60, 1),
        "faults": len(storm.faults),
        "acknowledged": len(history.acks),
        "lost": sum(lost) if findings.judged else None,
        "unknown": len(history.unknown),
        "refused": history.refused,
        "late": late(history.acks),
        "pgbench": around.pgbench,
        "availability": round(available(times, storm.from_s, storm.until_s), 4),
        "outages_s": _series(_lengths(storm, history)),
        "healthy_after_s": _series(storm.heals_s),
        "switchovers": around.switchovers,
        "decisions": around.rules,
        "epochs": around.epochs,
        "timelines": len({ack.timeline for ack in history.acks}),
        "violations": [str(one) for one in findings.violations],
        "excused": [str(one) for one in findings.excused],
        "failures": findings.failures,
        "load": load_average(),
    }


def text(findings: Findings, history: History) -> str:
    """A page."""
    told = figures(findings, history)
    storm, around = findings.storm, findings.around
    by_work = Counter(ack.work.value for ack in history.acks)
    works = ", ".join(f"{count} {work}s" for work, count in by_work.items()) or "nothing"
    return f"""\
{told["minutes"]:g} minutes of faults: {told["faults"]} done, {storm.nothing} found nobody to hit
acknowledged: {told["acknowledged"]} ({works}), pgbench {told["pgbench"]};
without an answer {told["unknown"]}, refused {told["refused"]}, read late {told["late"]}
availability: {told["availability"]:.2%} of tenths of a second with an acknowledgement
outages: {_span(_lengths(storm, history))}
longest: {_longest(storm, history)}
healthy again after the last undoing: {_span(storm.heals_s)}
epochs: {told["epochs"]}, timelines: {told["timelines"]}
switchovers: {_counts(around.switchovers)}
decisions: {_counts(around.rules)}

{_fault_table(storm, history)}
{machine()}; load {load_average()}

""" + "\n".join(_verdict(findings))


def _verdict(findings: Findings) -> list[str]:
    lines = [f"VIOLATION {one}" for one in findings.violations]
    lines += [f"FAILED {one}" for one in findings.failures]
    lines += [f"seen, as may be with asynchronous replication: {one}" for one in findings.excused]
    if not findings.judged:
        lines.append("FAILED the rows at the end could not be read: losses would not be seen")
    if findings.failed:
        return [*lines, f"replay the plan: {findings.command}"]
    zero = "" if findings.excused else "nothing lost, "
    return [*lines, f"verdict: {zero}nothing acknowledged twice, all copies equal, all healed"]


def _fault_table(storm: Storm, history: History) -> str:
    heads = ("fault", "done", "outages", "median s", "p90", "max")
    done = Counter(fault.name for fault in storm.faults)
    caused = by_fault(_gaps(storm, history), storm.faults)
    rows = []
    for name in sorted({*done, *caused}):
        found = caused.get(name, [])
        cells = ["", "", ""]
        if found:
            series = Series.of(found)
            cells = [f"{v:.2f}" for v in (series.median, series.p90, series.highest)]
        rows.append([name or "before any", str(done[name]), str(len(found)), *cells])
    return table(heads, rows)


def _longest(storm: Storm, history: History) -> str:
    """With the steps they began after, to be looked up in the run's log."""
    gaps = sorted(_gaps(storm, history), key=lambda gap: -gap.seconds)[:LONGEST_SHOWN]
    told = []
    for gap in gaps:
        fault = before(gap, storm.faults)
        after = f" after {fault.number} ({fault.name})" if fault else ""
        told.append(f"{gap.seconds:.1f} s{after}")
    return ", ".join(told) or "none"


def _gaps(storm: Storm, history: History) -> list[Gap]:
    return outages([ack.received_s for ack in history.acks], storm.from_s, storm.until_s)


def _lengths(storm: Storm, history: History) -> list[float]:
    return [gap.seconds for gap in _gaps(storm, history)]


def _series(values: Sequence[float]) -> dict[str, float] | None:
    return Series.of(values).figures(2) if values else None


def _span(values: Sequence[float]) -> str:
    if not values:
        return "none"
    series = Series.of(values)
    return (
        f"n = {len(values)}, median {series.median:.2f}, p90 {series.p90:.2f},"
        f" max {series.highest:.2f} s"
    )


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items()) or "none"
