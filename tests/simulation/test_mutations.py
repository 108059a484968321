"""Can the checkers fail? Classic bugs are put into the core; each must be noticed.

Most are noticed by the simulation within a few seeds. A few need an interleaving so rare that a
test written for it has to notice; then that test is named here.
"""

from collections.abc import Callable

import pytest

from pgraft.core.types import SafetyViolation
from tests.simulation.gate import GATE, hunt
from tests.simulation.mutations import MUTATIONS
from tests.unit.pgraft.core import (
    test_attacks,
    test_paper_replication,
    test_read_index,
    test_writes,
)

NOTICED_BY_TEST: dict[str, Callable[[], None]] = {
    "old_acks_count": test_paper_replication.test_5_3_an_ack_of_an_older_term_moves_nothing,
    "round_of_one": test_read_index.test_one_answer_of_five_confirms_no_round,
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
    "release_does_not_latch": test_attacks.test_c4a_an_answer_in_flight_does_not_undo_a_fence,
    "renew_after_release": (
        test_attacks.test_c4b_an_old_release_read_late_meets_a_daemon_that_kept_its_word
    ),
}


def test_every_mutation_is_asked_for() -> None:
    assert sorted([*GATE, *NOTICED_BY_TEST]) == sorted(MUTATIONS)


@pytest.mark.parametrize("name", GATE)
def test_the_simulation_notices(name: str) -> None:
    verdict = hunt(name)
    assert verdict.found_by, f"{name} survived {verdict.seeds} seeds"


@pytest.mark.parametrize("name", NOTICED_BY_TEST)
def test_a_test_notices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    NOTICED_BY_TEST[name]()
    MUTATIONS[name](monkeypatch)
    with pytest.raises((AssertionError, SafetyViolation)):
        NOTICED_BY_TEST[name]()
