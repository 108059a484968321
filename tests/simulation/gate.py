"""Bugs that were put in on purpose, and how many seeds may pass before one is noticed.

Lives here: which storm each is looked for in, and the search. Must not live here: the bugs (see
`mutations`), printing (tools/mutants.py). Start reading at `GATE`, then `hunt`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import pytest

from pgraft.core.types import SafetyViolation
from tests.simulation import mutations_lease  # noqa: F401 - lists its mutations
from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenarios import ATTACKS, NotSetUp
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


STAGED: dict[str, Look] = {name: Look(seeds=5) for name in ATTACKS}
"""Bugs that need a certain order of events: each has an attack of its own (see `scenarios`)."""
STAGED["old_acks_count"] = Look(number=6, seeds=5)
STAGED["holder_counts_from_the_answer"] = Look(number=21, seeds=5)
STAGED["contact_is_forgotten_at_start"] = Look(number=21, seeds=5)


def hunt(name: str) -> Verdict:
    """Run seeds with the bug in place until one fails; which one is the same every time."""
    look = GATE.get(name) or STAGED[name]
    logging.disable(logging.ERROR)
    try:
        with pytest.MonkeyPatch.context() as patch:
            MUTATIONS[name](patch)
            for seed in range(1, look.seeds + 1):
                found_by, text = _storm(name, seed) if name in GATE else _attack(name, seed)
                if found_by:
                    return Verdict(
                        name=name, number=look.number, seeds=seed, found_by=found_by, text=text
                    )
    finally:
        logging.disable(logging.NOTSET)
    return Verdict(name=name, number=look.number, seeds=look.seeds, found_by="", text="")


def _storm(name: str, seed: int) -> tuple[str, str]:
    look = GATE[name]
    drawn_plan = drawn(seed, chaos=look.chaos)
    plan = replace(drawn_plan, menu=look.menu, size=3, timing=QUICK, churn=True)
    try:
        run_plan(plan, f"make mutants MUTANT={name}")
    except RunFailed as failure:
        return failure.found_by, str(failure)
    return "", ""


def _attack(name: str, seed: int) -> tuple[str, str]:
    try:
        ATTACKS[name](seed)
    except NotSetUp:
        return "", ""
    except (AssertionError, SafetyViolation) as failure:
        return f"the attack {ATTACKS[name].__name__}", str(failure)
    return "", ""
