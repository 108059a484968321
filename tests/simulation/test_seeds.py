"""Two hundred seeds of the simulation: chaos, then peace, and no property may break."""

import pytest

from tests.support.raft_group import run_seed

SEEDS = 200
PER_TEST = 10


@pytest.mark.parametrize("first", range(1, SEEDS, PER_TEST))
def test_seeds(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        run_seed(seed)


def test_a_seed_is_one_run() -> None:
    assert run_seed(7) == run_seed(7)


def test_the_storm_is_one() -> None:
    """A simulation in which nothing happens would find nothing."""
    totals: dict[str, int] = {}
    for seed in range(1, 26):
        for name, count in run_seed(seed).counts.items():
            totals[name] = totals.get(name, 0) + count
    for name in ("crashes", "elections", "grants", "partitions", "pauses", "reads", "renewals"):
        assert totals.get(name, 0) >= 10, f"{name} hardly ever happens: {totals}"
