"""Many seeds of the simulated cluster on all cores, and what they reached together.

Lives here: adding up, what was never reached. Must not live here: processes (`workers`), printing
(tools/sim_ha.py). Start reading at `run_many`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from ramd.execute.transitions import TRANSITIONS
from ramd.policy.rules import RULES
from tests.support.ha_run import Outcome, run_seed
from tests.support.workers import in_processes


@dataclass(slots=True)
class Totals:
    """Outcomes added up."""

    tally: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    cpu_s: float = 0.0

    def add(self, outcome: Outcome, cpu_s: float) -> None:
        self.runs += 1
        self.cpu_s += cpu_s
        self.tally.update(outcome.tally)


def rules_reached(tally: Counter[str]) -> dict[str, int]:
    """How often a coordinator came to each rule of the table."""
    return {rule.name: tally[f"rule {rule.name}"] for rule in RULES}


def transitions_reached(tally: Counter[str]) -> dict[str, int]:
    """How often each entry of the table of transitions was begun."""
    return {
        f"{situation} {goal.__name__}": tally[f"transition {situation} {goal.__name__}"]
        for situation, goal in TRANSITIONS
    }


def everything() -> list[str]:
    """Every rule and transition by the name under which runs count it."""
    rules = [f"rule {rule.name}" for rule in RULES]
    return rules + [f"transition {at} {goal.__name__}" for at, goal in TRANSITIONS]


def timed(seed: int, storm_s: float | None) -> tuple[Outcome, float]:
    """One seed, and the processor time that it took."""
    begun_s = time.process_time()
    return run_seed(seed, storm_s), time.process_time() - begun_s


def run_many(
    seeds: Iterator[int],
    jobs: int,
    *,
    storm_s: float | None = None,
    more: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[Outcome, float]]:
    """Outcomes as they come; no seed is begun any more once `more()` is false."""
    return in_processes(partial(timed, storm_s=storm_s), seeds, jobs, more)
