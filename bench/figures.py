"""Figures of repeated measurements, and how they are shown: for people, as a table, as JSON.

Lives here: order statistics and rendering. Must not live here: measuring. Start at `Series`.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One quantity measured n times, in one unit; never empty."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Series:
        """Raises ValueError if there is no value: nothing was measured."""
        found = tuple(values)
        if not found:
            raise ValueError("nothing was measured")
        return cls(values=found)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p90(self) -> float:
        """The smallest value that at least nine of ten do not exceed (nearest rank)."""
        return sorted(self.values)[math.ceil(0.9 * len(self.values)) - 1]

    @property
    def highest(self) -> float:
        return max(self.values)

    def figures(self, digits: int = 0) -> dict[str, float]:
        """For JSON: n, median, p90, max."""
        shown = {"median": self.median, "p90": self.p90, "max": self.highest}
        return {"n": len(self.values)} | {name: round(v, digits) for name, v in shown.items()}

    def text(self, unit: str, digits: int = 0) -> str:
        """`median 800, p90 900, max 950 ms (n = 10)`."""
        parts = ((name, getattr(self, name)) for name in ("median", "p90", "highest"))
        shown = ", ".join(f"{name} {value:.{digits}f}" for name, value in parts)
        return f"{shown.replace('highest', 'max')} {unit} (n = {len(self.values)})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def load_average() -> list[float]:
    """The host's 1, 5 and 15 minute averages: a figure means little without them."""
    return [round(value, 2) for value in os.getloadavg()]


def machine() -> str:
    """Cores, kernel and Python, on one line."""
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}"
    )


def revision() -> str:
    """Which state of this working tree is measured: its commit, and whether files differ."""
    asked = ["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(RESULTS.parent), *words],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "of an unknown commit"
    return f"{commit[:12]} with changes" if changes else commit[:12]


def save(name: str, text: str) -> Path:
    """Keep a report under `bench/results`; returns its path, which is this process's alone."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.md"
    path.write_text(text)
    return path
