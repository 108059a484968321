"""The coordinator's hand: one step at a time, tried again, and given up where the group says no."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.consensus import MemberChange
from ramd.domain.decision import Voting
from ramd.domain.errors import Refused, Unavailable
from ramd.domain.model import Departure
from ramd.domain.service import AddNodeRequest
from ramd.members import orders
from ramd.members.steward import AGAIN_NS, Steward
from ramd.state.apply import apply
from ramd.state.member_commands import AdmitMember, DropMember, RemoveMember
from tests.support.member_desk import NOW_MS, Office, local


class Coordinator:
    """A steward over an office's book; `beat` lets it take at most one step."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.now_ns = 0
        self.granting = False
        self.now_ms = NOW_MS
        self.spawned: list[Coroutine[Any, Any, None]] = []
        self.steward = Steward(
            office.book,
            spawn=self.spawned.append,
            granting=lambda: self.granting,
            clock=lambda: self.now_ns,
            unix_ms=lambda: self.now_ms,
        )

    async def beat(self) -> bool:
        """Whether a step was taken."""
        self.steward.turn(self.office.view())
        taken, self.spawned[:] = list(self.spawned), []
        for work in taken:
            await work
        return bool(taken)

    async def settle(self) -> None:
        """Beat until there is nothing to do."""
        for _ in range(10):
            if not await self.beat():
                return
        raise AssertionError("it never comes to rest")


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(Office(local(), tmp_path))


def joins(office: Office, node_id: int = 4) -> None:
    """The node has been let into the group, as a learner."""
    office.book.voting = replace(office.book.voting, learners=(node_id,))


async def test_from_an_invitation_to_a_vote(coordinator: Coordinator) -> None:
    office = coordinator.office
    await orders.add_node(office.desk, AddNodeRequest())
    assert not await coordinator.beat()
    joins(office)
    office.behind = {4}
    await coordinator.settle()
    assert office.book.cluster.member(4) is not None
    assert office.book.voting.learners == (4,)
    office.behind = set()
    await coordinator.settle()
    assert office.book.voting == Voting(voters=(1, 2, 3, 4), settled=True)


async def test_replacing_a_dead_member_is_one_change(coordinator: Coordinator) -> None:
    office = coordinator.office
    office.silent = {3}
    await orders.add_node(office.desk, AddNodeRequest(replaces=3))
    joins(office)
    await coordinator.settle()
    assert office.book.changes == [MemberChange(promote=(4,), remove=(3,))]
    assert [m.node_id for m in office.book.cluster.members] == [1, 2, 4]
    assert office.book.cluster.departures == ()


async def test_an_invitation_that_has_run_out_is_withdrawn(coordinator: Coordinator) -> None:
    office = coordinator.office
    await orders.add_node(office.desk, AddNodeRequest())
    coordinator.now_ms += orders.INVITATION_MS
    await coordinator.settle()
    assert office.book.cluster.invitations == ()
    assert office.book.cluster.decisions[-1].reason == "node 4 may join no more: it has run out"


async def test_a_removal_that_would_break_the_group_is_given_up(coordinator: Coordinator) -> None:
    office = coordinator.office
    office.book.cluster = apply(office.book.cluster, RemoveMember(node_id=2), 90)
    office.silent = {3}
    await coordinator.settle()
    assert office.book.changes == []
    assert office.book.cluster.departures == ()
    assert "remove a dead one instead" in office.book.cluster.decisions[-1].reason


@pytest.mark.parametrize("keep_fails", [False, True])
async def test_what_the_group_itself_refuses_is_given_up(
    coordinator: Coordinator, keep_fails: bool
) -> None:
    office = coordinator.office
    office.book.cluster = apply(office.book.cluster, RemoveMember(node_id=2), 90)
    office.book.failures.append(Refused("the group refuses it: nobody who votes would be left"))
    if keep_fails:
        office.book.failures.append(Unavailable("no quorum"))
    assert await coordinator.beat()
    left = office.book.cluster.departures
    assert left == ((Departure(node_id=2),) if keep_fails else ())


async def test_a_step_that_was_lost_is_tried_again_a_little_later(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    office = coordinator.office
    office.book.cluster = apply(office.book.cluster, RemoveMember(node_id=2), 90)
    office.book.failures.append(Unavailable("not now: not ready"))
    with caplog.at_level(logging.INFO, "ramd"):
        assert await coordinator.beat()
        assert not await coordinator.beat()
        coordinator.now_ns += AGAIN_NS
        await coordinator.settle()
    assert office.book.cluster.member(2) is None
    assert isinstance(office.book.proposed[-1], DropMember)
    said = [getattr(record, "event", "") for record in caplog.records]
    assert "member_step_failed" in said


async def test_nobody_is_taken_out_while_a_grant_is_on_its_way(coordinator: Coordinator) -> None:
    office = coordinator.office
    office.book.cluster = apply(office.book.cluster, RemoveMember(node_id=2), 90)
    coordinator.granting = True
    assert await coordinator.beat()
    assert office.book.changes == []
    assert office.book.cluster.departures == (Departure(node_id=2),)
    coordinator.granting = False
    coordinator.now_ns += AGAIN_NS
    await coordinator.settle()
    assert office.book.cluster.member(2) is None


async def test_one_step_at_a_time(coordinator: Coordinator) -> None:
    office = coordinator.office
    await orders.add_node(office.desk, AddNodeRequest())
    joins(office)
    coordinator.steward.turn(office.view())
    coordinator.steward.turn(office.view())
    assert len(coordinator.spawned) == 1
    await coordinator.spawned.pop()
    assert isinstance(office.book.proposed[-1], AdmitMember)


async def test_that_a_node_stays_a_learner_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = Coordinator(Office(local(8), tmp_path))
    voters = tuple(range(1, 8))
    coordinator.office.book.voting = Voting(voters=voters, learners=(8,), settled=True)
    with caplog.at_level(logging.INFO, "ramd"):
        for _ in range(3):
            assert not await coordinator.beat()
    said = [r for r in caplog.records if getattr(r, "event", "") == "learner_stays"]
    assert len(said) == 1
    await asyncio.sleep(0)
