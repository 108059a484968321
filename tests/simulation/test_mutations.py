"""Can the checkers fail? Classic bugs are put into the core; each must be noticed.

Most are noticed by the simulation within a few seeds. A few need an interleaving so rare that a
test written for it has to notice; then that test is named here.
"""

from collections.abc import Callable

import pytest

from pgraft.core.types import SafetyViolation
from tests.simulation.mutations import MUTATIONS
from tests.support.raft_group import RunFailed, run_seed
from tests.unit.pgraft.core import (
    test_attacks,
    test_lease_granter,
    test_lease_holder,
    test_paper_elections,
    test_paper_replication,
    test_paper_safety,
    test_read_index,
    test_writes,
)

SEEDS = 40
NOTICED_BY_SIMULATION = [
    "vote_not_durable",
    "acks_do_not_wait",
    "leader_counts_itself_early",
    "append_cuts_what_agrees",
    "follower_commits_unverified",
    "votes_ignore_the_log",
    "read_without_a_round",
    "new_coordinator_does_not_wait",
    "epoch_moves_too_early",
]
RENEWAL = test_lease_granter.TestRenewal()
READ = test_read_index.TestReadIndex()
NOTICED_BY_TEST: dict[str, Callable[[], None]] = {
    "commit_counts_old_terms": (
        test_paper_safety.test_5_4_2_an_entry_of_an_older_term_is_not_committed_by_counting
    ),
    "old_acks_count": test_paper_replication.test_5_3_an_ack_of_an_older_term_moves_nothing,
    "votes_counted_by_message": test_paper_elections.test_5_2_votes_are_counted_once_per_voter,
    "second_vote_in_a_term": (
        test_paper_elections.test_5_2_a_vote_may_be_repeated_to_the_same_candidate_only
    ),
    "round_of_one": test_read_index.test_one_answer_of_five_confirms_no_round,
    "renew_without_a_round": RENEWAL.test_without_a_quorum_there_is_no_answer,
    "renew_after_grant_appended": (
        test_attacks.test_c1a_a_late_renewal_meets_the_next_grant_in_the_log
    ),
    "renew_before_own_entry_applied": (
        test_attacks.test_c1b_a_new_coordinator_does_not_renew_before_its_own_entry_is_applied
    ),
    "holder_counts_from_the_answer": (
        test_attacks.test_c1_a_slow_answer_does_not_lengthen_the_lease
    ),
    "restored_tail_taken_for_durable": (
        test_writes.test_a_restored_tail_is_not_durable_by_the_word_of_its_first_write
    ),
    "read_before_commit_in_term": READ.test_a_new_leader_waits_for_a_commit_of_its_own_term,
    "drift_is_forgotten": test_lease_holder.test_the_drift_is_rounded_against_the_holder,
    "release_does_not_latch": test_attacks.test_c4a_an_answer_in_flight_does_not_undo_a_fence,
    "renew_after_release": (
        test_attacks.test_c4b_an_old_release_read_late_meets_a_daemon_that_kept_its_word
    ),
}


def test_every_mutation_is_asked_for() -> None:
    assert sorted([*NOTICED_BY_SIMULATION, *NOTICED_BY_TEST]) == sorted(MUTATIONS)


@pytest.mark.parametrize("name", NOTICED_BY_SIMULATION)
def test_the_simulation_notices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    with pytest.raises(RunFailed, match=r"again: python -m tools\.sim --seed \d+"):
        _run_all()


def _run_all() -> None:
    for seed in range(1, SEEDS + 1):
        run_seed(seed)


@pytest.mark.parametrize("name", NOTICED_BY_TEST)
def test_a_test_notices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    NOTICED_BY_TEST[name]()
    MUTATIONS[name](monkeypatch)
    with pytest.raises((AssertionError, SafetyViolation)):
        NOTICED_BY_TEST[name]()
