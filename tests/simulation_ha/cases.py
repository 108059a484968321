"""Every directed story with the world that it begins in, its rule, and what breaks without it.

Must not live here: what happens (`stories` and the like), how a rule is taken out (`without`).
Start reading at `CASES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from pgraft.core.types import Timing
from ramd.execute.context import Situation
from tests.simulation_ha import stories, without
from tests.simulation_ha import stories_of_lives as lives
from tests.simulation_ha import stories_of_people as people
from tests.simulation_ha import stories_of_rules as rules
from tests.simulation_ha import stories_of_situations as situations
from tests.simulation_ha import stories_of_tails as tails
from tests.simulation_ha.stories import ASYNC, LOOSE, SYNC
from tests.simulation_ha.without import Without
from tests.support.ha_run import run_story
from tests.support.ha_world import World

Story = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A story, the world that it begins in, the rule that is taken out, and what then breaks.

    Several rules: each of them alone still holds it, and it breaks without all of them. None: the
    story is told for what it reaches.
    """

    story: Story
    without: Without | tuple[Without, ...] = ()
    breaks: str = ""
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def rules(self) -> tuple[Without, ...]:
        """What is taken out."""
        return self.without if isinstance(self.without, tuple) else (self.without,)

    def __str__(self) -> str:
        return "-".join([self.story.__name__, *(rule.__name__ for rule in self.rules)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A case of several rules in which only `rule` of them is left in."""

    case: Case
    rule: Without

    @property
    def out(self) -> tuple[Without, ...]:
        """What is taken out."""
        return tuple(rule for rule in self.case.rules if rule is not self.rule)

    def __str__(self) -> str:
        return f"{self.case.story.__name__}-but-{self.rule.__name__}"


FIVE = {"size": 5, "settings": SYNC}
LATE = {**FIVE, "nofailover": (2,), "timing": Timing(lease_ttl_ns=800_000_000)}
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
    Case(
        story=tails.recycled_behind_the_end,
        without=without.scanned,
        breaks="no primary can be chosen",
        plan={"settings": SYNC},
    ),
    Case(
        story=tails.half_a_record_behind_the_end,
        without=without.whole_records,
        breaks="it is not fetched",
        plan={"settings": ASYNC, "nofailover": (2,)},
    ),
    Case(
        story=tails.flush_that_failed,
        without=(without.doubt_told, without.doubt_kept),
        breaks="WAL whose flush failed lives on",
        plan={"settings": ASYNC},
    ),
    Case(story=lives.handed_over, without=without.latch, breaks="S2", plan={"settings": ASYNC}),
    Case(
        story=lives.target_lost,
        without=(
            without.undone_before_the_grant,
            without.resumes_what_is_present,
            without.stood_by_for_it,
            without.stopped_if_not_for_it,
        ),
        breaks="S4: node 1 goes on",
        plan={"settings": ASYNC},
    ),
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
    Case(story=lives.daemon_gone, plan={"settings": ASYNC}),
    Case(story=lives.host_gone, plan={"settings": ASYNC}),
    Case(
        story=people.late_report,
        without=without.this_attempt,
        breaks="S4",
        plan=LATE,
    ),
    Case(
        story=people.late_report_of_a_silent_node,
        without=(without.this_attempt, without.present_word),
        breaks="S4",
        plan=LATE,
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
    Case(story=people.suspended, without=without.seal, breaks="S2", plan={"settings": SYNC}),
    Case(
        story=people.coordinator_paused,
        without=without.heard_first,
        breaks="a needless failover",
        plan={
            "settings": ASYNC,
            "timing": Timing(lease_ttl_ns=1_000_000_000, election_ns=3_000_000_000),
        },
    ),
    Case(
        story=people.member_removed,
        without=without.kept_until_it_counts_no_more,
        breaks="no primary takes writes",
        plan=FIVE,
    ),
    Case(story=people.first_directory_lost, plan={"settings": ASYNC}),
    Case(story=people.members_come_and_go, plan={"settings": ASYNC}),
    Case(story=rules.one_is_not_heard, plan={"settings": ASYNC}),
    Case(story=rules.target_is_gone, plan={"settings": ASYNC}),
    Case(story=rules.winner_does_not_start, plan={"settings": ASYNC, "size": 5}),
    Case(story=rules.power_cut, plan={"settings": replace(ASYNC, startup_grace_ms=10_000)}),
    Case(story=rules.failover_is_off, plan={"settings": ASYNC}),
    Case(story=rules.ended_while_it_waits, plan={"settings": ASYNC}),
)


KEPT = tuple(
    Kept(case=case, rule=rule) for case in CASES if len(case.rules) > 1 for rule in case.rules
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
