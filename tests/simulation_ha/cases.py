"""Every directed story with the world that it begins in, its rule, and what breaks without it.

Must not live here: what happens (`stories` and the like), how a rule is taken out (`without`).
Start reading at `CASES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pgraft.core.types import Timing
from ramd.execute.context import Situation
from tests.simulation_ha import stories, without
from tests.simulation_ha import stories_of_lives as lives
from tests.simulation_ha import stories_of_people as people
from tests.simulation_ha import stories_of_situations as situations
from tests.simulation_ha import stories_of_tails as tails
from tests.simulation_ha.stories import ASYNC, LOOSE, SYNC
from tests.simulation_ha.without import Without
from tests.support.ha_run import run_story
from tests.support.ha_world import World

Story = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A story, the world that it begins in, the rule that is taken out, and what then breaks;
    '' where other rules still hold it, however it is taken out."""

    story: Story
    without: Without
    breaks: str = ""
    plan: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.story.__name__}-{self.without.__name__}"


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
    Case(
        story=people.late_report,
        without=without.nothing,
        plan={**FIVE, "nofailover": (2,), "timing": Timing(lease_ttl_ns=800_000_000)},
    ),
    Case(
        story=people.weak_sessions,
        without=without.raised_commits,
        breaks="S4",
        plan={"settings": SYNC},
    ),
    Case(
        story=people.cancelled_waits,
        without=without.checked_waits,
        breaks="S4",
        plan={"settings": SYNC},
    ),
    Case(story=people.suspended, without=without.nothing, plan={"settings": SYNC}),
    Case(story=people.coordinator_paused, without=without.nothing, plan={"settings": ASYNC}),
    Case(
        story=people.member_removed,
        without=without.kept_until_it_counts_no_more,
        breaks="no primary takes writes",
        plan=FIVE,
    ),
    Case(story=people.first_directory_lost, without=without.nothing, plan={"settings": ASYNC}),
    Case(story=people.members_come_and_go, without=without.nothing, plan={"settings": ASYNC}),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A situation that a node is in when a goal of this kind is reached for."""

    story: Callable[[World, Situation], Awaitable[None]]
    situation: Situation

    def __str__(self) -> str:
        return f"{self.story.__name__}-{self.situation}"

    @property
    def plan(self) -> dict[str, Any]:
        name = self.story.__name__
        if name in ("elected", "yielding"):
            return {"settings": ASYNC, "size": 5, "nofailover": (2,)}
        return {"settings": SYNC, "size": 5} if name == "sealed" else {"settings": ASYNC}


PLACED = tuple(
    Placed(story=story, situation=situation)
    for story in (
        situations.begins,
        situations.sealed,
        situations.removed,
        situations.destroyed,
        situations.elected,
        situations.yielding,
        situations.gives_up,
    )
    for situation in Situation
    if story is not situations.gives_up or situation is Situation.CRASHED
)


@cache
def told(case: Case | Placed) -> Counter[str]:
    """The story with all rules, once in this process. What happened how often."""
    if isinstance(case, Placed):
        placed = case
        return run_story(lambda world: placed.story(world, placed.situation), **placed.plan)
    return run_story(case.story, **case.plan)
