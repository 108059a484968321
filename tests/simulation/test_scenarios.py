"""Every attack fails while the rules stand, and succeeds when the one it is about is taken out."""

import pytest

from pgraft.core.types import SafetyViolation
from tests.simulation import mutations_lease  # noqa: F401 - lists its mutations
from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenarios import ATTACKS, NotSetUp

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
