"""Every rule of the coordinator and every transition of the executor is reached by some test."""

from __future__ import annotations

import importlib

import pytest

from tests.simulation_ha.reached import UNIT_ONLY, by_stories
from tests.support.ha_runner import everything


def test_stories_reach_every_rule_and_transition_but_those_of_unit_tests() -> None:
    reached = by_stories()
    never = {name for name in everything() if not reached[name]}
    assert never - set(UNIT_ONLY) == set(), "reached by no story: add one"
    assert set(UNIT_ONLY) - never == set(), "no such thing, or a story reaches it: take it out"


def parameters(test: str) -> set[str]:
    """What a test is parametrized with: words as they are, everything else also by its type."""
    module, _, function = test.partition(":")
    marks = getattr(importlib.import_module(module), function).pytestmark
    sets = [value for mark in marks if mark.name == "parametrize" for value in mark.args[1]]
    values = [one for value in sets for one in (value if isinstance(value, tuple) else (value,))]
    return {str(value) for value in values} | {type(value).__name__ for value in values}


@pytest.mark.parametrize("name", UNIT_ONLY)
def test_a_unit_test_names_what_no_story_reaches(name: str) -> None:
    _kind, *words = name.split()
    assert set(words) <= parameters(UNIT_ONLY[name])
