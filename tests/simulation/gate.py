"""Bugs that were put in on purpose, and how many seeds may pass before one is noticed.

Lives here: which storm each is looked for in, and the search. Must not live here: the bugs (see
`mutations`), printing (tools/mutants.py). Start reading at `GATE`, then `hunt`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.support.raft_group import RunFailed, run_plan
from tests.support.raft_world import QUICK, drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where to look for a bug: `seeds` storms made of `menu` (None: drawn) and as long as `chaos`.

    `number`: of the list of bugs known from other implementations, 0 if it is our own.
    """

    number: int = 0
    seeds: int = 40
    menu: tuple[str, ...] | None = None
    chaos: int = 20
    size: int = 3
    churn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`found_by` is "" if all seeds passed."""

    name: str
    number: int
    seeds: int
    found_by: str
    text: str


GATE: dict[str, Look] = {
    "vote_not_durable": Look(number=1),
    "acks_do_not_wait": Look(number=2),
    "leader_counts_itself_early": Look(number=2),
    "second_vote_in_a_term": Look(number=3, seeds=80),
    "votes_counted_by_message": Look(number=4),
    "commit_counts_old_terms": Look(number=5, seeds=80),
    "append_cuts_what_agrees": Look(number=7),
    "follower_commits_unverified": Look(number=9),
    "learners_campaign": Look(number=14),
    "votes_ignore_the_log": Look(number=16),
    "read_before_commit_in_term": Look(number=19),
    "read_without_a_round": Look(number=19, seeds=80),
    "wiped_disk_keeps_its_id": Look(number=26),
    "retried_commands_are_applied_again": Look(number=27),
    "new_coordinator_does_not_wait": Look(),
    "epoch_moves_too_early": Look(),
    "drift_is_forgotten": Look(seeds=80, menu=("hunt", "isolate_holder")),
    "renew_without_a_round": Look(seeds=80),
}


def hunt(name: str) -> Verdict:
    """Run seeds with the bug in place until one fails; which one is the same every time."""
    look = GATE[name]
    logging.disable(logging.ERROR)
    try:
        with pytest.MonkeyPatch.context() as patch:
            MUTATIONS[name](patch)
            for seed in range(1, look.seeds + 1):
                plan = replace(
                    drawn(seed, chaos=look.chaos),
                    menu=look.menu,
                    size=look.size,
                    timing=QUICK,
                    churn=look.churn,
                )
                try:
                    run_plan(plan, f"make mutants MUTANT={name}")
                except RunFailed as failure:
                    return Verdict(
                        name=name,
                        number=look.number,
                        seeds=seed,
                        found_by=failure.found_by,
                        text=str(failure),
                    )
    finally:
        logging.disable(logging.NOTSET)
    return Verdict(name=name, number=look.number, seeds=look.seeds, found_by="", text="")
