"""Every rule of the coordinator and every transition of the executor is reached by some test."""

from __future__ import annotations

from pathlib import Path

from tests.simulation_ha.reached import BY_SEEDS, UNIT_ONLY, by_stories
from tests.support.ha_runner import everything

ROOT = Path(__file__).parents[2]


def test_every_rule_and_transition_is_reached() -> None:
    reached = by_stories()
    never = {name for name in everything() if not reached[name]}
    assert never <= set(UNIT_ONLY) | BY_SEEDS, "reached by no story: add one"
    assert all((ROOT / test).exists() for test in UNIT_ONLY.values())
