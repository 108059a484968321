"""Opening, promoting and staying primary."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.decision import Lead
from ramd.domain.errors import OutcomeUnknown, PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, StartMode
from ramd.domain.server import Promotion
from ramd.execute.context import Situation
from ramd.execute.local import LocalStore, OwnFork
from ramd.state.commands import RecordFork, RecordSystem
from tests.support.fake_consensus import cluster, member, reign
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import Node
from tests.support.virtual_time import clock_ns, elapse, virtual

ME = 1
OPEN = Lead(epoch=1, timeline=1, start=StartMode.OPEN)
PROMOTE = Lead(epoch=2, timeline=2, start=StartMode.PROMOTE)


def first_epoch() -> ClusterState:
    return cluster(reign(1, ME))


def second_epoch() -> ClusterState:
    second = reign(2, ME, parent_timeline=1, seal_lsn=Lsn(1000))
    return cluster(reign(1, 3), second, system_id=SYSTEM_ID)


def make(state: ClusterState, situation: Situation, tmp_path: Path) -> Node:
    node = Node(ME, FakeNet(), state, tmp_path)
    node.put(situation)
    return node


async def opened(node: Node, epoch: int) -> None:
    """The server was opened for `epoch` by an earlier run."""
    async with node.store.opening(epoch):
        pass


# --- open ------------------------------------------------------------------------------------


@virtual
async def test_first_primary_is_made_and_owes_nothing(tmp_path: Path) -> None:
    node = make(first_epoch(), Situation.ABSENT, tmp_path)
    noted: list[int] = []

    def at(call: str) -> None:
        if call == "start":
            noted.append(LocalStore.load(tmp_path).record.opened_epoch)

    node.server.on_call = at
    async with node.running(lease=1):
        await node.reach(OPEN)
        assert node.server.primary
        assert noted == [1], "the epoch is noted durably before the server is opened"
        assert node.consensus.proposed == [RecordSystem(system_id=SYSTEM_ID)]
        assert node.server.slots == (True, (2, 3))
        assert "ensure_roles" in node.server.calls
        assert node.guard.watching == 1


@virtual
async def test_existing_directory_is_opened_as_it_is(tmp_path: Path) -> None:
    node = make(first_epoch(), Situation.STOPPED, tmp_path)
    async with node.running(lease=1):
        await node.reach(OPEN)
        assert "initdb" not in node.server.calls
        assert node.server.disk.end == 1000


@pytest.mark.parametrize("situation", [Situation.PRIMARY, Situation.REPLICA, Situation.STARTING])
@virtual
async def test_running_server_is_reopened_under_our_configuration(
    tmp_path: Path, situation: Situation
) -> None:
    node = make(first_epoch(), situation, tmp_path)
    async with node.running(lease=1):
        await node.reach(OPEN)
        assert "stop fast" in node.server.calls
        assert "start as primary" in node.server.calls
        assert node.server.primary


@pytest.mark.parametrize("goal", [OPEN, PROMOTE], ids=["open", "promote"])
@virtual
async def test_nothing_is_opened_without_the_lease(tmp_path: Path, goal: Lead) -> None:
    if goal is OPEN:
        node = make(first_epoch(), Situation.STOPPED, tmp_path)
    else:
        node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running():
        node.executor.pursue(goal)
        await node.until(lambda: node.executor.standing().failures >= 3)
        assert "lease" in node.executor.standing().activity
        assert not node.server.primary
        assert node.store.record.opened_epoch == 0


@virtual
async def test_lease_that_ends_during_initdb_opens_nothing(tmp_path: Path) -> None:
    node = make(first_epoch(), Situation.ABSENT, tmp_path)
    node.server.faults.extra_s["initdb"] = 10.0
    node.lease(1)
    async with node.running():
        node.executor.pursue(OPEN)
        await node.until(lambda: node.executor.standing().failures >= 1)
        assert "start" not in node.server.calls


@virtual
async def test_lease_that_ends_during_the_start_leaves_no_server(tmp_path: Path) -> None:
    node = make(first_epoch(), Situation.STOPPED, tmp_path)
    node.server.faults.extra_s["start"] = 10.0
    deadline_ns = node.lease(1)
    async with node.running():
        node.executor.pursue(OPEN)
        await node.until(lambda: bool(node.consensus.released))
        assert clock_ns() < deadline_ns
        await elapse(15)
        assert not node.server.running


@virtual
async def test_server_that_does_not_open_gives_the_epoch_back(tmp_path: Path) -> None:
    node = make(first_epoch(), Situation.STOPPED, tmp_path)
    node.server.fail("start", PostgresError("could not bind port"))
    async with node.running(lease=1):
        node.executor.pursue(OPEN)
        await node.until(lambda: bool(node.consensus.released))
        assert node.store.record.opened_epoch == 1
        await elapse(5)
        assert not node.server.running, "an epoch never resumes"


@virtual
async def test_opening_is_not_reported_before_it_is_over(tmp_path: Path) -> None:
    node = make(first_epoch(), Situation.STOPPED, tmp_path)
    seen: list[int] = []
    node.server.on_call = lambda call: (
        seen.append(node.executor.standing().opened_epoch) if call == "start" else None
    )
    async with node.running(lease=1):
        await node.reach(OPEN)
        assert seen == [0]
        assert node.executor.standing().opened_epoch == 1


# --- promote ---------------------------------------------------------------------------------


@virtual
async def test_promotion_is_noted_before_and_recorded_after(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    noted: list[int] = []

    def at(call: str) -> None:
        if call == "promote":
            noted.append(LocalStore.load(tmp_path).record.opened_epoch)
            noted.append(node.guard.watching)

    node.server.on_call = at
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        assert noted == [2, 2]
        assert node.server.disk.timeline == 2
        fork = RecordFork(epoch=2, parent_timeline=1, fork_lsn=Lsn(1000))
        assert node.consensus.proposed == [fork]
        reign_now = node.consensus.cluster.reign
        assert reign_now is not None
        assert reign_now.fork_lsn == 1000
    assert any(getattr(r, "event", "") == "promoted" for r in caplog.records)


@virtual
async def test_stopped_directory_starts_as_a_replica_to_be_promoted(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.STOPPED, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        assert "start as replica of None" in node.server.calls
        assert "start as primary" not in node.server.calls
        assert node.server.disk.timeline == 2


@pytest.mark.parametrize("fault", ["other timeline", "error", "other parent"])
@virtual
async def test_promotion_that_differs_is_stopped_and_given_back(tmp_path: Path, fault: str) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    if fault == "other timeline":
        node.server.faults.promote_to = 3
    elif fault == "error":
        node.server.fail("promote", PostgresError("timed out"))
    else:
        node.server.disk.timeline = 4
    async with node.running(lease=2):
        node.executor.pursue(PROMOTE)
        await node.until(lambda: bool(node.consensus.released))
        assert not node.server.running
        assert "stop immediate" in node.server.calls
        assert "kill_remains" in node.server.calls
        assert LocalStore.load(tmp_path).released_epoch == 2
        assert node.consensus.proposed == []


@virtual
async def test_fork_is_proposed_until_it_is_recorded(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    node.consensus.failures.extend([OutcomeUnknown("no answer"), OutcomeUnknown("no answer")])
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        assert len(node.consensus.proposed) == 1
        assert node.server.calls.count("promote") == 1


@virtual
async def test_restarted_daemon_goes_on_proposing_the_fork(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.PRIMARY, tmp_path)
    await opened(node, 2)
    done = Promotion(timeline=2, parent_timeline=1, fork_lsn=Lsn(900))
    await node.store.note_fork(OwnFork(epoch=2, promotion=done))
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        assert node.consensus.proposed == [
            RecordFork(epoch=2, parent_timeline=1, fork_lsn=Lsn(900))
        ]


@virtual
async def test_primary_whose_fork_nobody_noted_gives_the_epoch_back(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.PRIMARY, tmp_path)
    await opened(node, 2)
    async with node.running(lease=2):
        node.executor.pursue(PROMOTE)
        await node.until(lambda: bool(node.consensus.released))
        assert not node.server.running


@virtual
async def test_promotion_cut_short_by_the_daemons_end_is_not_repeated(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    await opened(node, 2)
    async with node.running(lease=2):
        node.executor.pursue(PROMOTE)
        await node.until(lambda: bool(node.consensus.released))
        assert "promote" not in node.server.calls
        assert not node.server.running


@virtual
async def test_primary_of_an_earlier_epoch_is_stopped_before_it_is_promoted(
    tmp_path: Path,
) -> None:
    node = make(second_epoch(), Situation.PRIMARY, tmp_path)
    await opened(node, 1)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        assert "stop immediate" in node.server.calls
        assert node.store.released_epoch == 1
        assert node.server.disk.timeline == 2


# --- staying primary -------------------------------------------------------------------------


@virtual
async def test_slots_follow_the_members_at_once(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        state = node.consensus.cluster
        node.consensus.cluster = replace(state, members=(*state.members, member(4)))
        node.executor.pursue(PROMOTE)
        await node.until(lambda: node.server.slots == (True, (2, 3, 4)), within_s=1.0)


@virtual
async def test_slots_are_left_alone_while_the_list_may_be_an_old_one(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        state = node.consensus.cluster
        node.consensus.unread = True
        node.consensus.cluster = replace(state, members=state.members[:2])
        node.executor.pursue(PROMOTE)
        await elapse(6.0)
        assert node.server.slots == (True, (2, 3))
        node.consensus.unread = False
        await node.until(lambda: node.server.slots == (True, (2,)), within_s=6.0)


@virtual
async def test_reached_goal_is_refreshed_slowly_and_changes_nothing(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        node.server.calls.clear()
        for _ in range(600):
            node.executor.pursue(PROMOTE)
            await elapse(0.1)
        assert 10 <= node.server.calls.count("ensure_slots") <= 13
        assert set(node.server.calls) == {"probe", "ensure_roles", "ensure_slots"}
