"""Majorities: tables by hand, then properties against a slow but obvious definition."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.quorum import VoteResult, committed_index, vote_result
from pgraft.core.types import Config, NodeId

NODES = [NodeId(n) for n in range(1, 8)]
some_voters = st.frozensets(st.sampled_from(NODES), min_size=1)
configs = st.builds(Config, voters=some_voters, outgoing=st.just(frozenset()) | some_voters)
acks = st.dictionaries(st.sampled_from(NODES), st.integers(0, 20))
ballots = st.dictionaries(st.sampled_from(NODES), st.booleans())


def of(*voters: int, outgoing: tuple[int, ...] = ()) -> Config:
    return Config(
        voters=frozenset(NodeId(v) for v in voters),
        outgoing=frozenset(NodeId(v) for v in outgoing),
    )


@pytest.mark.parametrize(
    ("voters", "acked", "committed"),
    [
        ((1,), {1: 5}, 5),
        ((1, 2), {1: 5, 2: 3}, 3),
        ((1, 2), {1: 5}, 0),
        ((1, 2, 3), {1: 5, 2: 3}, 3),
        ((1, 2, 3), {1: 5, 2: 3, 3: 9}, 5),
        ((1, 2, 3, 4), {1: 5, 2: 5, 3: 4, 4: 1}, 4),
        ((1, 2, 3, 4, 5), {1: 9, 2: 8, 3: 7, 4: 1}, 7),
        ((1, 2, 3), {4: 9, 5: 9, 1: 2}, 0),
        ((), {1: 9}, 0),
    ],
)
def test_committed_index_of_a_majority(
    voters: tuple[int, ...], acked: dict[int, int], committed: int
) -> None:
    assert committed_index(of(*voters), {NodeId(n): i for n, i in acked.items()}) == committed


@pytest.mark.parametrize(
    ("votes", "result"),
    [
        ({}, VoteResult.PENDING),
        ({1: True}, VoteResult.PENDING),
        ({1: True, 2: True}, VoteResult.WON),
        ({1: True, 2: False}, VoteResult.PENDING),
        ({1: False, 2: False}, VoteResult.LOST),
        ({1: True, 4: True, 5: True}, VoteResult.PENDING),
        ({1: True, 2: False, 3: True}, VoteResult.WON),
    ],
)
def test_votes_of_three(votes: dict[int, bool], result: VoteResult) -> None:
    assert vote_result(of(1, 2, 3), {NodeId(n): v for n, v in votes.items()}) is result


def test_half_of_an_even_group_is_no_majority() -> None:
    assert vote_result(of(1, 2), {NodeId(1): True}) is VoteResult.PENDING
    assert vote_result(of(1, 2), {NodeId(1): False}) is VoteResult.LOST


def test_nobody_can_be_elected_without_voters() -> None:
    assert vote_result(of(), {NodeId(1): True}) is VoteResult.LOST


@pytest.mark.parametrize(
    ("votes", "result"),
    [
        ({1: True, 2: True}, VoteResult.PENDING),
        ({1: True, 2: True, 4: True}, VoteResult.PENDING),
        ({1: True, 2: True, 4: True, 5: True}, VoteResult.WON),
        ({1: True, 2: True, 4: False, 5: False}, VoteResult.LOST),
        ({1: False, 2: False, 4: True, 5: True}, VoteResult.LOST),
        ({4: True, 5: True}, VoteResult.PENDING),
    ],
)
def test_a_joint_configuration_needs_both_halves(
    votes: dict[int, bool], result: VoteResult
) -> None:
    config = of(1, 2, 3, outgoing=(4, 5, 6))
    assert vote_result(config, {NodeId(n): v for n, v in votes.items()}) is result


@given(config=configs, acked=acks)
def test_committed_is_what_some_quorum_holds(config: Config, acked: dict[NodeId, int]) -> None:
    """Slow definition: the largest value that every member of some majority has reached."""

    def of_half(voters: frozenset[NodeId]) -> int:
        needed = len(voters) // 2 + 1
        return max(
            min(acked.get(voter, 0) for voter in majority)
            for majority in combinations(sorted(voters), needed)
        )

    halves = [half for half in (config.voters, config.outgoing) if half]
    assert committed_index(config, acked) == min(of_half(half) for half in halves)


@given(config=configs, votes=ballots)
def test_a_won_election_stays_won_and_a_lost_one_lost(
    config: Config, votes: dict[NodeId, bool]
) -> None:
    result = vote_result(config, votes)
    open_voters = (config.voters | config.outgoing) - votes.keys()
    all_yes = vote_result(config, votes | dict.fromkeys(open_voters, True))
    all_no = vote_result(config, votes | dict.fromkeys(open_voters, False))
    if result is VoteResult.PENDING:
        assert all_yes is VoteResult.WON
        assert all_no is VoteResult.LOST
    else:
        assert all_yes is result
        assert all_no is result


@given(config=configs, votes=ballots)
def test_two_candidates_never_both_win(config: Config, votes: dict[NodeId, bool]) -> None:
    other = {voter: not granted for voter, granted in votes.items()}
    results = (vote_result(config, votes), vote_result(config, other))
    assert results != (VoteResult.WON, VoteResult.WON)


@given(config=configs, acked=acks)
def test_who_has_acknowledged_the_committed_index_can_elect(
    config: Config, acked: dict[NodeId, int]
) -> None:
    committed = committed_index(config, acked)
    holders = {node: True for node in NODES if acked.get(node, 0) >= committed}
    assert vote_result(config, holders) is VoteResult.WON
