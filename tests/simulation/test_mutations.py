"""Can the checkers fail? Classic bugs are put into the core; each must be noticed.

Most are noticed by the simulation within a few seeds. A few need an interleaving so rare that a
test written for it has to notice; then that test is named here.
"""

from collections.abc import Callable

import pytest

from pgraft.core.types import SafetyViolation
from tests.simulation.gate import GATE, hunt
from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenarios import ATTACKS
from tests.unit.pgraft.core import (
    test_read_index,
    test_writes,
)

NOTICED_BY_TEST: dict[str, Callable[[], None]] = {
    "round_of_one": test_read_index.test_one_answer_of_five_confirms_no_round,
    "restored_tail_taken_for_durable": (
        test_writes.test_a_restored_tail_is_not_durable_by_the_word_of_its_first_write
    ),
}


def test_every_mutation_is_asked_for() -> None:
    assert sorted([*GATE, *ATTACKS, *NOTICED_BY_TEST]) == sorted(MUTATIONS)


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
