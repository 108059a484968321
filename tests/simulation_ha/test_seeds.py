"""Seeds of the simulated cluster: a storm, then calm, and no rule may break
(docs/simulation-ha.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.ha_run import Outcome, run_seed

SEEDS = 12
PER_TEST = 6
STORM_S = 25.0


def run(seed: int) -> Outcome:
    outcome = run_seed(seed, STORM_S)
    assert not outcome.failure, f"seed {seed}: {outcome.failure}"
    return outcome


@pytest.mark.parametrize("first", range(1, SEEDS, PER_TEST))
def test_seeds(first: int) -> None:
    """A simulation in which nothing happens would find nothing, so that is looked at, too."""
    tally: Counter[str] = Counter()
    for seed in range(first, first + PER_TEST):
        tally.update(run(seed).tally)
    assert tally["acknowledged"] > 1_000
    assert tally["promotions"] > 3
    assert tally["commits that waited"] > 100


def test_a_seed_is_one_run_in_every_process() -> None:
    """Whatever the process, its hash seed, and what it ran before."""
    here = run_seed(3, 8.0)
    program = "from tests.support.ha_run import run_seed; print(run_seed(3, 8.0).trace)"
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here.trace
