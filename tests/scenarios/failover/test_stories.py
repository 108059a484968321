"""Every failover story still comes out as it is written down, and every rule has its story.

Refresh with `python -m tests.support.policy_script --rewrite`, and read the difference.
"""

from pathlib import Path

import pytest

from ramd.policy.explain import rule_table
from ramd.policy.rules import RULES
from tests.support.policy_script import PAGE, STORIES, retold

NAMES = sorted(path.name for path in STORIES.glob("*.txt"))
UNTOLD = {"unformed", "being_removed", "coordinator_not_ready"}
"""Rules without a story: nothing happens in them. The unit tests have them."""


@pytest.mark.parametrize("name", NAMES)
def test_story(name: str) -> None:
    written = (STORIES / name).read_text()
    assert retold(written, name) == written


def test_every_rule_has_a_story() -> None:
    told = "".join((STORIES / name).read_text() for name in NAMES)
    untold = {rule.name for rule in RULES if f"    {rule.name}: " not in told}
    assert untold == UNTOLD


def test_a_story_says_why_it_is_told() -> None:
    for name in NAMES:
        assert (STORIES / name).read_text().startswith("# "), name


def test_a_broken_command_names_its_line() -> None:
    with pytest.raises(AssertionError, match=r"tale:2: fly 3"):
        retold("cluster 3\nfly 3\n", "tale")


def test_the_page_of_rules_is_the_table() -> None:
    assert Path(PAGE).read_text() == rule_table()
