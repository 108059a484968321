"""Questions asked of a configuration."""

import pytest

from pgraft.core.config import all_members, all_voters, founding, is_member, is_voter
from pgraft.core.types import Config, NodeId

ONE, TWO, THREE, FOUR, FIVE = (NodeId(n) for n in range(1, 6))
JOINT = Config(
    voters=frozenset({ONE, TWO}),
    outgoing=frozenset({TWO, THREE}),
    learners=frozenset({FOUR}),
    learners_next=frozenset({THREE}),
)


def test_voters_of_both_halves_vote() -> None:
    assert all_voters(JOINT) == {ONE, TWO, THREE}
    assert [is_voter(JOINT, node) for node in (ONE, TWO, THREE, FOUR)] == [True, True, True, False]


def test_learners_are_members() -> None:
    assert all_members(JOINT) == {ONE, TWO, THREE, FOUR}
    assert is_member(JOINT, FOUR)
    assert not is_member(JOINT, FIVE)


def test_a_learner_to_be_is_a_member() -> None:
    config = Config(voters=frozenset({ONE}), learners_next=frozenset({TWO}))
    assert is_member(config, TWO)
    assert not is_voter(config, TWO)


def test_founding_group() -> None:
    assert founding([THREE, ONE]) == Config(voters=frozenset({ONE, THREE}))


@pytest.mark.parametrize("nodes", [[], [0, 1], [-1]])
def test_a_group_without_voters_or_with_a_bad_id_is_refused(nodes: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one voter"):
        founding(NodeId(n) for n in nodes)
