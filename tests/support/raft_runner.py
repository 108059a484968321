"""Many seeds of the simulation on all cores; a seed is the same run wherever it is done.

Lives here: one seed as a task, adding up. Must not live here: printing (tools/sim.py), processes
(`workers`). Start reading at `run_many`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.raft_group import RunFailed, run_seed
from tests.support.workers import in_processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One seed, with what is not drawn from it."""

    seed: int
    wal: bool | None = None
    chaos: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a task. `failure`: the text of what broke, "" if nothing did."""

    seed: int
    counts: dict[str, int]
    trace: int = 0
    cpu_s: float = 0.0
    failure: str = ""


@dataclass(slots=True)
class Totals:
    """Results added up; what is a maximum stays one."""

    counts: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    cpu_s: float = 0.0

    def add(self, result: Result) -> None:
        """One more result."""
        self.runs += 1
        self.cpu_s += result.cpu_s
        for name, count in result.counts.items():
            if name.startswith("worst"):
                self.counts[name] = max(self.counts[name], count)
            else:
                self.counts[name] += count


def run_task(task: Task) -> Result:
    """Run one seed in this process."""
    logging.disable(logging.ERROR)  # the storage says what it repaired; here that is everyday life
    started = time.process_time()
    try:
        outcome = run_seed(task.seed, wal=task.wal, chaos=task.chaos)
    except RunFailed as failure:
        return Result(seed=task.seed, counts={}, failure=str(failure))
    finally:
        logging.disable(logging.NOTSET)
    return Result(
        seed=task.seed,
        counts=outcome.counts,
        trace=outcome.trace,
        cpu_s=time.process_time() - started,
    )


def run_many(
    tasks: Iterator[Task], jobs: int, more: Callable[[], bool] = lambda: True
) -> Iterator[Result]:
    """Results as they come; no task is begun any more once `more()` is false."""
    return in_processes(run_task, tasks, jobs, more)
