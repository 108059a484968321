"""Seeds of the simulation: a storm, then calm, and no property may break (docs/simulation.md)."""

import os
import subprocess
import sys

from tests.support.raft_runner import Result, Task, Totals, run_many, run_task

SEEDS = 40
CHAOS = 20


def run(seed: int) -> Result:
    result = run_task(Task(seed=seed, chaos=CHAOS))
    assert not result.failure, result.failure
    return result


def test_a_seed_is_one_run_in_every_process() -> None:
    """Whatever the process, its hash seed, and what it ran before."""
    here = run(7)
    program = (
        "from tests.support.raft_runner import Task, run_task; "
        f"print(run_task(Task(seed=7, chaos={CHAOS})).trace)"
    )
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(there.stdout) == here.trace


def test_seeds_on_several_cores_are_the_same_runs() -> None:
    results = {r.seed: r for r in run_many((Task(seed=s, chaos=10) for s in (1, 2, 3)), jobs=2)}
    assert sorted(results) == [1, 2, 3]
    for seed, result in results.items():
        alone = run_task(Task(seed=seed, chaos=10))
        assert (alone.trace, alone.counts) == (result.trace, result.counts)


def test_nothing_breaks_and_the_storm_is_one() -> None:
    """A simulation in which nothing happens would find nothing."""
    totals = Totals()
    for seed in range(1, SEEDS + 1):
        totals.add(run(seed))
    for name in (
        "configurations",
        "crashes",
        "elections",
        "grants",
        "hunts",
        "partitions",
        "pauses",
        "reads",
        "renewals",
        "repeats without effect",
        "snapshots installed",
        "ttl changes",
    ):
        assert totals.counts[name] >= 5, f"{name} hardly ever happens: {totals.counts}"
    assert totals.counts["commits"] > 10_000
