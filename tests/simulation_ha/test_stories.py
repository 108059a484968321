"""Each interleaving ends well with the rules, and breaks one without its own."""

from __future__ import annotations

import pytest

from tests.simulation_ha.cases import CASES, PLACED, Case, Placed, told
from tests.support.ha_run import run_story
from tests.support.ha_world import World


@pytest.mark.parametrize("case", CASES + PLACED, ids=str)
def test_ends_well(case: Case | Placed) -> None:
    told(case)


@pytest.mark.parametrize("case", [case for case in CASES if case.breaks], ids=str)
def test_breaks_without_its_rule(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    async def weakened(world: World) -> None:
        case.without(monkeypatch, world)
        await case.story(world)

    with pytest.raises(AssertionError, match=case.breaks):
        run_story(weakened, **case.plan)
