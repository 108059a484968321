"""A node's name and tags stand in its own file and reach the group by a command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramd.domain.model import ClusterState
from ramd.state.apply import apply, refusal
from ramd.state.commands import DescribeMember
from tests.support.fake_consensus import cluster, reign


@pytest.fixture
def led() -> ClusterState:
    return cluster(reign(1, 1))


def test_a_member_is_described_by_its_own_file(led: ClusterState) -> None:
    said = DescribeMember(node_id=2, name="paris", priority=90, nofailover=True)
    described = apply(led, said, 9)
    found, before = described.member(2), led.member(2)
    assert found is not None
    assert before is not None
    assert found == replace(before, name="paris", priority=90, nofailover=True)
    assert described.member(1) == led.member(1)


@pytest.mark.parametrize(
    ("node_id", "name", "priority"),
    [(9, "paris", 50), (2, "node1", 50), (2, "", 50), (2, "paris", 101), (2, "paris", -1)],
)
def test_a_description_that_does_not_fit_changes_nothing(
    led: ClusterState, node_id: int, name: str, priority: int
) -> None:
    described = DescribeMember(node_id=node_id, name=name, priority=priority, nofailover=False)
    assert refusal(led, described)
    assert apply(led, described, 9).members == led.members
