"""Which seeds a run of a simulation takes: one, some, or as many as fit into some minutes."""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator


def parser_of_seeds(doc: str | None) -> argparse.ArgumentParser:
    """A command line with --seed, --runs, --minutes and --jobs."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--seed", type=int, help="first seed; without --runs and --minutes the one")
    parser.add_argument("--runs", type=int, help="how many seeds, counting up")
    parser.add_argument("--minutes", type=float, help="as many seeds as can be begun in this time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


class Seeds:
    """What such a command line asks for, from a first seed that the clock chooses if it names none;
    for a minute if it says nothing at all."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        minutes, runs = chosen.minutes, chosen.runs
        if minutes is None and runs is None:
            minutes, runs = (1.0, None) if chosen.seed is None else (None, 1)
        self.first: int = chosen.seed if chosen.seed is not None else int(time.time())
        self.single = runs == 1
        self._runs: int | None = runs
        self._minutes: float | None = minutes
        self._started = time.monotonic()

    def __iter__(self) -> Iterator[int]:
        if self._runs is None:
            return itertools.count(self.first)
        return iter(range(self.first, self.first + self._runs))

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def time_left(self) -> bool:
        """One more may be begun."""
        return self._minutes is None or self.took_s < 60 * self._minutes
