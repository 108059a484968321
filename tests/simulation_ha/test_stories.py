"""Each interleaving ends well with the rules, and breaks one without its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.simulation_ha import stories, without
from tests.simulation_ha import stories_of_lives as lives
from tests.simulation_ha import stories_of_tails as tails
from tests.simulation_ha.stories import ASYNC, LOOSE, SYNC
from tests.simulation_ha.without import Without
from tests.support.ha_run import run_story
from tests.support.ha_world import World

Story = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A story, the world that it begins in, the rule that is taken out, and what then breaks;
    '' where other rules still hold it, however it is taken out."""

    story: Story
    without: Without
    breaks: str = ""
    plan: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.story.__name__


FIVE = {"size": 5, "settings": SYNC}
CASES = (
    Case(story=stories.wider_by_one, without=without.joint_record, breaks="S4", plan=FIVE),
    Case(story=stories.narrower_by_one, without=without.joint_record, breaks="S4", plan=FIVE),
    Case(
        story=stories.member_that_lags,
        without=without.proof,
        breaks="S4",
        plan={"size": 5, "settings": LOOSE},
    ),
    Case(story=stories.another_copy, without=without.copies, breaks="S4", plan=FIVE),
    Case(story=stories.counted_twice, without=without.slots, breaks="S4", plan=FIVE),
    Case(
        story=lives.two_in_a_second,
        without=without.numbered_timelines,
        breaks="S6: timeline 2",
        plan={"size": 5, "settings": ASYNC},
    ),
    Case(
        story=lives.behind_a_fork,
        without=without.forks,
        breaks="S4",
        plan={"size": 5, "settings": ASYNC},
    ),
    Case(
        story=lives.behind_an_unrecorded_fork,
        without=without.forks,
        breaks="S4",
        plan={"size": 5, "settings": ASYNC},
    ),
    Case(story=stories.nobody_streams_yet, without=without.proven_start, breaks="S5", plan=FIVE),
    Case(story=stories.unreplayed, without=without.replayed, breaks="S4", plan=FIVE),
    Case(
        story=stories.furthest_is_tagged,
        without=without.furthest,
        breaks="S4",
        plan={**FIVE, "nofailover": (2,)},
    ),
    Case(
        story=stories.dead_branch,
        without=without.lineage,
        breaks="S4",
        plan={**FIVE, "nofailover": (5,)},
    ),
    Case(
        story=lives.orphans,
        without=without.dead_sessions,
        breaks="S2",
        plan={"extension": False, "settings": ASYNC},
    ),
    Case(
        story=lives.sealed_and_left,
        without=without.unsealing,
        breaks="does not stream|no primary",
        plan={"settings": ASYNC, "size": 5},
    ),
    Case(story=lives.started_by_hand, without=without.seal, breaks="H2", plan={"settings": ASYNC}),
    Case(story=lives.recovered_by_itself, without=without.proven_start, breaks="S5", plan=FIVE),
    Case(story=lives.recovered_by_itself, without=without.start_numbers, breaks="S5", plan=FIVE),
    Case(
        story=stories.half_way_to_alone,
        without=without.two_entries,
        breaks="no primary takes writes",
        plan={"settings": LOOSE, "size": 5},
    ),
    Case(
        story=tails.only_on_the_crashed_primary,
        without=without.fetched,
        breaks="a write is lost",
        plan={"settings": ASYNC},
    ),
    Case(
        story=tails.only_on_a_tagged_replica,
        without=without.fetched,
        breaks="nothing is fetched",
        plan={"settings": ASYNC, "nofailover": (2,)},
    ),
    Case(story=lives.handed_over, without=without.latch, breaks="S2", plan={"settings": ASYNC}),
    Case(story=lives.target_lost, without=without.nothing, plan={"settings": ASYNC}),
    Case(
        story=lives.target_cut_off,
        without=without.confirmed_end,
        breaks="S4",
        plan={"settings": ASYNC},
    ),
    Case(story=lives.destroyed, without=without.kept_aside, breaks="S7", plan={"settings": ASYNC}),
    Case(
        story=stories.impossible_set, without=without.checked_sets, breaks="can satisfy", plan=FIVE
    ),
    Case(
        story=lives.quorum_lost_and_back,
        without=without.waiting_fenced,
        breaks="another node|another server",
        plan={"settings": SYNC},
    ),
    Case(
        story=lives.quorum_back_here,
        without=without.time_to_renew,
        breaks="another",
        plan={"settings": ASYNC},
    ),
    Case(
        story=lives.quorum_back_elsewhere,
        without=without.time_to_renew,
        breaks="another",
        plan={"size": 5, "settings": ASYNC},
    ),
    Case(
        story=lives.daemon_back_late,
        without=without.fed_receivers,
        breaks="another",
        plan={"settings": SYNC},
    ),
    Case(story=lives.daemon_gone, without=without.nothing, plan={"settings": ASYNC}),
    Case(story=lives.host_gone, without=without.nothing, plan={"settings": ASYNC}),
)


def names(case: Case) -> str:
    return f"{case}-{case.without.__name__}"


@pytest.mark.parametrize("case", CASES, ids=names)
def test_ends_well(case: Case) -> None:
    run_story(case.story, **case.plan)


@pytest.mark.parametrize("case", [case for case in CASES if case.breaks], ids=names)
def test_breaks_without_its_rule(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    async def told(world: World) -> None:
        case.without(monkeypatch, world)
        await case.story(world)

    with pytest.raises(AssertionError, match=case.breaks):
        run_story(told, **case.plan)
