"""Every attack fails while the rules stand, and succeeds when the one it is about is taken out."""

import pytest

from pgraft.core.types import SafetyViolation
from tests.simulation import mutations_lease  # noqa: F401 - lists its mutations
from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenarios import (
    ATTACKS,
    NotSetUp,
    m1_a_slow_holder_found_out_late,
)
from tests.support.raft_world import MS

SEEDS = range(1, 6)


def tries(rule: str) -> list[str]:
    """What became of each seed: "held", "broken", or "not set up"."""
    became = []
    for seed in SEEDS:
        try:
            ATTACKS[rule](seed)
        except NotSetUp:
            became.append("not set up")
        except (AssertionError, SafetyViolation) as failure:
            became.append(f"broken: {failure}")
        else:
            became.append("held")
    return became


@pytest.mark.parametrize("rule", ATTACKS)
def test_with_its_rule_it_fails(rule: str) -> None:
    became = tries(rule)
    assert not [one for one in became if one.startswith("broken")], became
    assert "held" in became


@pytest.mark.parametrize("rule", ATTACKS)
def test_without_its_rule_it_succeeds(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[rule](monkeypatch)
    became = tries(rule)
    assert [one for one in became if one.startswith("broken")], became


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clock_that_runs_off_must_be_noticed_within_a_second_or_so(seed: int) -> None:
    """With the shipped times; later than that nothing can make up for it."""
    m1_a_slow_holder_found_out_late(seed, 1200 * MS)
    with pytest.raises(AssertionError, match="beside epoch"):
        m1_a_slow_holder_found_out_late(seed, 2500 * MS)
