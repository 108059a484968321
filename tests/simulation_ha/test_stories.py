"""Each interleaving ends well with the rules, and breaks one without its own.

Where several rules hold it, it ends well as long as one of them is left.
"""

from __future__ import annotations

import pytest

from tests.simulation_ha.cases import CASES, KEPT, PLACED, Case, Kept, Placed, told
from tests.simulation_ha.without import Without
from tests.support.ha_run import run_story
from tests.support.ha_world import World


def told_without(case: Case, out: tuple[Without, ...], patch: pytest.MonkeyPatch) -> None:
    async def weakened(world: World) -> None:
        for rule in out:
            rule(patch, world)
        await case.story(world)

    run_story(weakened, **case.plan)


@pytest.mark.parametrize("case", CASES + PLACED, ids=str)
def test_ends_well(case: Case | Placed) -> None:
    told(case)


@pytest.mark.parametrize("case", [case for case in CASES if case.rules], ids=str)
def test_breaks_without_its_rules(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert case.breaks, "what breaks is not named"
    with pytest.raises(AssertionError, match=case.breaks):
        told_without(case, case.rules, monkeypatch)


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_each_of_several_rules_holds_it(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    told_without(kept.case, kept.out, monkeypatch)
