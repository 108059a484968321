"""Questions asked of a configuration."""

from itertools import pairwise

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.config import (
    all_members,
    all_voters,
    describe,
    enter_joint,
    founding,
    is_joint,
    is_member,
    is_voter,
    leave_joint,
    refusal,
    simple,
    touches_voters,
)
from pgraft.core.limits import REMOVED_MAX
from pgraft.core.quorum import VoteResult, vote_result
from pgraft.core.types import Change, Config, Index, NodeId, PeerRecord
from tests.support.raft_member import changed, halves, learning, record

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


def members(
    voters: tuple[int, ...], learners: tuple[int, ...] = (), removed: tuple[str, ...] = ()
) -> Config:
    """A configuration whose members all have records."""
    nodes = (*voters, *learners)
    return Config(
        voters=frozenset(NodeId(n) for n in voters),
        learners=frozenset(NodeId(n) for n in learners),
        peers=tuple(record(n) for n in sorted(nodes)),
        removed=removed,
    )


def uuids(config: Config) -> set[str]:
    return {peer.uuid for peer in config.peers}


def with_(uuid: str = "new", address: str = "new:1", node: int = 9) -> Change:
    return Change(add_learners=(PeerRecord(node=NodeId(node), uuid=uuid, address=address),))


@pytest.mark.parametrize(
    ("config", "change", "why"),
    [
        (members((1, 2)), Change(), "nothing_to_change"),
        (members((1, 2)), with_(node=2), "used_id"),
        (members((1,), (2,)), with_(node=2), "used_id"),
        (members((1,)), with_(node=0), "used_id"),
        (members((1, 2)), with_(address="host2:1"), "used_address"),
        (members((1, 2)), with_(uuid="uuid-2"), "used_uuid"),
        (members((1,), removed=("old",)), with_(uuid="old"), "used_uuid"),
        (
            members((1,)),
            Change(add_learners=with_(node=8).add_learners + with_(node=9).add_learners),
            "used_address",
        ),
        (members((1, 2)), changed(remove=[9]), "unknown_member"),
        (members((1, 2)), changed(promote=[9]), "unknown_member"),
        (members((1, 2)), changed(add=[9], promote=[9]), "unknown_member"),
        (members((1, 2)), changed(demote=[9]), "unknown_member"),
        (members((1, 2)), changed(promote=[2]), "not_a_learner"),
        (members((1,), (2,)), changed(promote=[2], remove=[2]), "not_a_learner"),
        (members((1,), (2,)), changed(demote=[2]), "not_a_voter"),
        (members((1, 2)), changed(demote=[2], remove=[2]), "not_a_voter"),
        (members((1, 2)), changed(remove=[1, 2]), "last_voter"),
        (members((1,)), changed(demote=[1]), "last_voter"),
        (members((1, 2, 3, 4, 5, 6, 7), (8,)), changed(promote=[8]), "too_many_voters"),
        (members((1, 2, 3, 4, 5, 6, 7), (8, 9)), with_(node=10), "too_many_members"),
        (members((1, 2)), with_(), ""),
        (members((1, 2, 3), (4,)), changed(promote=[4], remove=[3]), ""),
        (members((1, 2, 3, 4, 5, 6, 7), (8,)), changed(promote=[8], remove=[7]), ""),
        (members((1, 2)), changed(demote=[2]), ""),
        (members((1,), (2,)), changed(remove=[2], add=[3]), ""),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(config: Config, change: Change, why: str) -> None:
    assert refusal(config, change) == why


@pytest.mark.parametrize(
    ("change", "touches"),
    [
        (changed(add=[9]), False),
        (changed(remove=[4]), False),
        (changed(remove=[3]), True),
        (changed(promote=[4]), True),
        (changed(demote=[1]), True),
    ],
)
def test_only_voters_need_a_joint_change(change: Change, touches: bool) -> None:
    assert touches_voters(members((1, 2, 3), (4,)), change) is touches


def test_a_simple_change_brings_and_takes_learners() -> None:
    config = simple(members((1, 2), (3,)), changed(add=[4], remove=[3]), Index(7))
    assert (halves(config)[0], learning(config)[0]) == ({1, 2}, {4})
    assert uuids(config) == {"uuid-1", "uuid-2", "uuid-4"}
    assert [peer.since for peer in config.peers] == [0, 0, 7], "since when is the core's to say"
    assert config.removed == ("uuid-3",)
    assert not is_joint(config)


def test_a_joint_change_keeps_both_halves_until_it_is_left() -> None:
    joint = enter_joint(
        members((1, 2, 3), (4, 5)), changed(promote=[4], demote=[2], remove=[3, 5]), Index(7)
    )
    assert halves(joint) == ({1, 4}, {1, 2, 3})
    assert learning(joint) == (set(), {2})
    assert is_joint(joint)
    assert joint.auto_leave
    assert uuids(joint) == {"uuid-1", "uuid-2", "uuid-3", "uuid-4"}, "who leaves is still dialed"
    assert joint.removed == ("uuid-5",)
    left = leave_joint(joint)
    assert halves(left) == ({1, 4}, set())
    assert learning(left) == ({2}, set())
    assert not left.auto_leave
    assert uuids(left) == {"uuid-1", "uuid-2", "uuid-4"}
    assert left.removed == ("uuid-5", "uuid-3")


def test_the_removed_are_remembered_up_to_a_bound_newest_last() -> None:
    old = tuple(f"old-{n}" for n in range(REMOVED_MAX))
    config = simple(members((1,), (2,), removed=old), changed(remove=[2]), Index(5))
    assert len(config.removed) == REMOVED_MAX
    assert (config.removed[0], config.removed[-1]) == ("old-1", "uuid-2")


def test_a_configuration_in_words() -> None:
    assert describe(JOINT) == "voters 1 2, before 2 3, learners 4, learners next 3"
    assert describe(members((2, 1))) == "voters 1 2"


@st.composite
def changes(draw: st.DrawFn) -> tuple[Config, Change]:
    """Any configuration that is not joint, and a change that makes sense for it."""
    nodes = range(1, 8)
    voters = draw(st.sets(st.sampled_from(nodes), min_size=1, max_size=5))
    learners = draw(st.sets(st.sampled_from(nodes), max_size=3)) - voters
    config = members(tuple(sorted(voters)), tuple(sorted(learners)))
    some = st.sets(st.sampled_from(nodes), max_size=4)
    change = changed(
        promote=draw(some) & learners,
        demote=draw(some) & voters,
        remove=draw(some) & (voters | learners),
        add=draw(st.sets(st.sampled_from(range(8, 10)), max_size=1)),
    )
    hypothesis.assume(refusal(config, change) == "")
    return config, change


def steps(config: Config, change: Change) -> list[Config]:
    """The configurations a change leads through."""
    if not touches_voters(config, change):
        return [config, simple(config, change, Index(9))]
    joint = enter_joint(config, change, Index(9))
    return [config, joint, leave_joint(joint)]


@given(changes())
def test_quorums_of_configurations_that_follow_each_other_meet(case: tuple[Config, Change]) -> None:
    """Thesis §4.3, Figure 4.2: no two disjoint majorities at any moment of a change."""
    path = steps(*case)
    for before, after in pairwise(path):
        nodes = sorted(all_voters(before) | all_voters(after))
        for bits in range(1 << len(nodes)):
            some = {node: bool(bits >> i & 1) for i, node in enumerate(nodes)}
            rest = {node: not granted for node, granted in some.items()}
            assert not (
                vote_result(before, some) is VoteResult.WON
                and vote_result(after, rest) is VoteResult.WON
            )


@given(changes())
def test_a_change_ends_where_it_was_meant_to(case: tuple[Config, Change]) -> None:
    config, change = case
    end = steps(config, change)[-1]
    added = {peer.node for peer in change.add_learners}
    assert end.voters == (config.voters | change.promote) - change.demote - change.remove
    assert end.learners == (
        (config.learners - change.promote - change.remove) | change.demote | added
    )
    assert not end.voters & end.learners
    assert {peer.node for peer in end.peers} == all_members(end)
    assert set(end.removed) == {f"uuid-{node}" for node in change.remove}


def test_what_the_callers_must_not_do() -> None:
    with pytest.raises(AssertionError):
        simple(members((1, 2)), changed(remove=[2]), Index(1))
    with pytest.raises(AssertionError):
        enter_joint(JOINT, changed(remove=[2]), Index(1))
    with pytest.raises(AssertionError):
        leave_joint(members((1,)))
