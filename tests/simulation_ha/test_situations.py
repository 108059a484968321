"""Every entry of the table of transitions is reached in a simulated cluster, and ends well."""

from __future__ import annotations

from typing import Any

import pytest

from ramd.execute.context import Situation
from tests.simulation_ha import stories_of_situations as told
from tests.simulation_ha.stories import ASYNC, SYNC
from tests.support.ha_run import run_story

FIVE = {"settings": ASYNC, "size": 5, "nofailover": (2,)}
PLANS: dict[str, dict[str, Any]] = {
    "sealed": {"settings": SYNC, "size": 5},
    "elected": FIVE,
    "yielding": FIVE,
}
RUNNING = (Situation.STARTING, Situation.REPLICA, Situation.PRIMARY)
STORIES = (
    told.begins,
    told.sealed,
    told.removed,
    told.destroyed,
    told.elected,
    told.yielding,
    told.gives_up,
)


@pytest.mark.parametrize("situation", Situation)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_ends_well(story: Any, situation: Situation) -> None:
    plan = PLANS.get(story.__name__, {"settings": ASYNC})
    if story is told.gives_up and situation in RUNNING:
        plan = {**plan, "extension": False}  # one that checks the lease itself just waits for it
    run_story(lambda world: story(world, situation), **plan)
