"""When a transition runs: one at a time, backoff, interruption, refresh, and how bugs end it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.decision import Follow, GiveUp, Leave, StaySealed, Wait, Withdraw
from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Attempt, DataKind
from ramd.execute.context import Situation
from ramd.execute.local import Unproven
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import Node, primary_of
from tests.support.virtual_time import clock_ns, elapse, virtual

ME = 1
FOLLOW = Follow(epoch=2, upstream=2)


def make(tmp_path: Path, situation: Situation) -> Node:
    net = FakeNet()
    primary_of(net, 2, timeline=2, fork=1000, end=1100)
    second = reign(2, 2, parent_timeline=1, fork_lsn=Lsn(1000), seal_lsn=Lsn(1000))
    node = Node(ME, net, cluster(reign(1, 3), second, system_id=SYSTEM_ID), tmp_path)
    node.put(situation)
    return node


def event(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    return [r for r in caplog.records if getattr(r, "event", "") == name]


@virtual
async def test_equal_goal_does_not_begin_again(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.ABSENT)
    async with node.running():
        for _ in range(50):
            node.executor.pursue(FOLLOW)
            await elapse(0.05)
        await node.until(lambda: node.executor.standing().settled)
        assert node.server.calls.count("clone") == 1
        assert node.server.calls.count("start") == 1


@virtual
async def test_step_that_must_not_be_cut_ends_before_the_next_goal(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.STOPPED)
    node.server.faults.extra_s["start"] = 5.0
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "start" in node.server.calls)
        node.executor.pursue(Wait(reason="something else"))
        await elapse(4.0)
        assert not node.executor.standing().settled
        await node.until(lambda: node.executor.standing().settled, within_s=2.0)
        assert node.server.running, "the start was not cut"
        assert "follow 2" not in node.server.calls


@virtual
async def test_wait_does_not_cut_a_clone_short(tmp_path: Path) -> None:
    """A coordinator that changes is a moment of Wait: hours of cloning must survive it."""
    node = make(tmp_path, Situation.ABSENT)
    node.server.faults.extra_s["clone"] = 60.0
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "clone" in node.server.calls)
        for _ in range(3):
            node.executor.pursue(Wait(reason="no coordinator is heard"))
            await elapse(0.05)
            node.executor.pursue(FOLLOW)
            await elapse(5.0)
        await node.until(lambda: node.executor.standing().settled, within_s=70)
        assert node.server.calls.count("clone") == 1
        assert node.server.running


@virtual
async def test_seal_cuts_a_clone_short_also_after_a_wait(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.ABSENT)
    node.server.faults.extra_s["clone"] = 60.0
    seal = StaySealed(epoch=2, attempt=Attempt(term=4, number=1))
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "clone" in node.server.calls)
        node.executor.pursue(Wait(reason="no coordinator is heard"))
        await elapse(0.05)
        node.executor.pursue(seal)
        await node.until(lambda: node.executor.standing().settled, within_s=5.0)
        assert node.executor.goal == seal
        assert "start" not in node.server.calls


@virtual
async def test_backoff_doubles_up_to_its_bound_and_is_spread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = make(tmp_path, Situation.ABSENT)
    node.server.fail("clone", *[PostgresError("no")] * 12)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: node.executor.standing().failures == 11, within_s=400)
        assert "no" in node.executor.standing().activity
    retries = [r.retry_ms for r in event(caplog, "transition_failed")][:11]
    for failures, retry_ms in enumerate(retries):
        full_ms = min(30_000, 200 * 2**failures)
        assert full_ms / 2 <= retry_ms <= full_ms
    assert len({retry_ms % 100 for retry_ms in retries}) > 3


@virtual
async def test_waiting_for_the_source_of_a_clone_is_no_failure(tmp_path: Path) -> None:
    """The others are there long before the first primary is: no backoff may grow meanwhile."""
    node = make(tmp_path, Situation.ABSENT)
    node.server.net.cut.add(2)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await elapse(60)
        assert node.executor.standing().failures == 0
        assert "clone" not in node.server.calls
        assert "not reachable" in node.executor.standing().activity
        node.server.net.cut.clear()
        await elapse(0.5)
        assert "clone" in node.server.calls
        await node.until(lambda: node.executor.standing().settled)


@virtual
async def test_new_goal_does_not_wait_for_the_backoff_of_the_old(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.ABSENT)
    node.server.fail("clone", *[PostgresError("no")] * 9)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: node.executor.standing().failures == 9, within_s=400)
        await node.reach(Wait(reason="something else"), within_s=0.2)
        assert node.executor.standing().failures == 0


@virtual
async def test_a_wait_in_between_forgets_no_failure(tmp_path: Path) -> None:
    """A coordinator that comes and goes: the node tries no more often for that."""
    node = make(tmp_path, Situation.FOREIGN)
    attempt = Attempt(term=5, number=0)
    async with node.running():
        node.executor.pursue(FOLLOW, attempt=attempt)
        await node.until(lambda: node.executor.standing().failures == 6, within_s=400)
        for _ in range(4):
            await node.reach(Wait(reason="no coordinator is heard"), within_s=0.2)
            assert node.executor.standing().activity == "no coordinator is heard"
            node.executor.pursue(FOLLOW, attempt=attempt)
            await elapse(0.2)
        assert node.executor.standing().failures == 6
        node.executor.pursue(Wait(reason="no coordinator is heard"))
        await elapse(0.2)
        # Another attempt may be what was missing.
        node.executor.pursue(FOLLOW, attempt=Attempt(term=6, number=0))
        await node.until(lambda: node.executor.standing().failures == 7, within_s=0.2)
        assert "failed 7 times: the data directory" in node.executor.standing().activity


@virtual
async def test_a_wait_in_between_keeps_no_second_directory_aside(tmp_path: Path) -> None:
    """A copy that does not start either: the disk is not filled with one after the other."""
    node = make(tmp_path, Situation.STOPPED)
    node.server.on_call = fails_to_start
    async with node.running():
        for _ in range(6):
            node.executor.pursue(FOLLOW)
            await elapse(600)
            node.executor.pursue(Wait(reason="no coordinator is heard"))
            await elapse(1)
        assert len(node.server.aside) == 1
        assert node.server.calls.count("clone") == 1
        node.executor.pursue(Follow(epoch=2, upstream=3))
        await elapse(0.05)
        assert node.executor.standing().failures == 1, "another goal is another matter"


def fails_to_start(call: str) -> None:
    if call == "start":
        raise PostgresError("the server did not start")


@virtual
async def test_success_forgets_the_failures(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.ABSENT)
    node.server.fail("clone", PostgresError("no"))
    async with node.running():
        await node.reach(FOLLOW)
        assert node.executor.standing().failures == 0
        assert "failed" not in node.executor.standing().activity


@virtual
async def test_exit_of_the_server_is_acted_on_at_once(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.STOPPED)
    async with node.running():
        await node.reach(FOLLOW)
        node.server.crash()
        begun_ns = clock_ns()
        node.executor.pursue(FOLLOW)
        await node.until(lambda: node.server.running)
        assert clock_ns() - begun_ns < 0.3e9


@virtual
async def test_activity_says_what_is_done_and_that_it_is_rejoining(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.ABSENT)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "clone" in node.server.calls)
        standing = node.executor.standing()
        assert standing.activity == "cloning from node 2"
        assert standing.rejoining
        await node.until(lambda: node.executor.standing().settled)
        assert not node.executor.standing().rejoining
        assert node.executor.standing().activity == "following node 2"


@virtual
async def test_every_end_of_work_is_announced(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.STOPPED)
    async with node.running():
        before = node.changes
        await node.reach(FOLLOW)
        assert node.changes > before


@virtual
async def test_steps_in_a_circle_are_a_failure(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.STOPPED)

    def dies(call: str) -> None:
        if call == "probe" and node.server.running:
            node.server.crash()

    node.server.on_call = dies
    async with node.running():
        node.executor.pursue(GiveUp(epoch=2, reason="test"))
        await node.until(lambda: node.executor.standing().settled)
        node.executor.pursue(FOLLOW)
        await node.until(lambda: node.executor.standing().failures >= 2)


@virtual
async def test_bug_ends_the_executor(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.STOPPED)
    node.server.fail("start", AssertionError("a bug"))
    node.executor.pursue(FOLLOW)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(node.executor.run(), 10)
    assert caught.group_contains(AssertionError)


@virtual
async def test_cancelled_executor_leaves_no_task(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.ABSENT)
    node.server.faults.extra_s["clone"] = 3600.0
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "clone" in node.server.calls)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_a_removed_primary_is_fenced_and_never_resumes(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.PRIMARY)
    async with node.running():
        await node.reach(Withdraw())
        assert "stop immediate" in node.server.calls
        assert node.server.aside == []
        assert node.server.disk.kind is DataKind.CLUSTER


@virtual
async def test_a_directory_of_unknown_past_is_kept_aside_and_cloned_anew(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.STOPPED)
    await node.store.mark(Unproven.FOUND)
    async with node.running():
        await node.reach(FOLLOW)
    assert node.server.calls.count("clone") == 1
    assert len(node.server.aside) == 1
    assert node.store.record.unproven is Unproven.NO


@virtual
async def test_leave_removes_only_when_asked(tmp_path: Path) -> None:
    node = make(tmp_path, Situation.REPLICA)
    async with node.running():
        await node.reach(Leave(remove_data=True))
        assert "remove_data" in node.server.calls
        assert node.server.aside == []
        assert node.executor.goal == Leave(remove_data=True)
