"""Giving an epoch back: proof of death, latch, release, and what follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ramd.domain.decision import GiveUp, Lead, StaySealed, Yield
from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, StartMode
from ramd.domain.observation import Attempt, DataKind, Position
from ramd.execute.context import Situation
from ramd.execute.local import LocalStore
from tests.support.fake_consensus import cluster, reign
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


@virtual
async def test_yield_stops_cleanly_and_says_where_it_ends(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        node.server.write(500)
        await node.reach(Yield(epoch=2))
        assert "stop fast" in node.server.calls
        epoch, evidence = node.consensus.released[0]
        assert (epoch, evidence.reason) == (2, "yielded")
        assert evidence.end == Position(timeline=2, lsn=Lsn(1000 + 10 + 500 + 1))
        assert node.guard.watching == 0


@virtual
async def test_yield_that_hangs_is_ended_by_force(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        node.server.faults.extra_s["stop"] = 3600.0
        begun_ns = clock_ns()
        await node.reach(Yield(epoch=2))
        assert "sigkill" in node.server.calls
        assert clock_ns() - begun_ns < 15e9


@virtual
async def test_crash_is_released_with_its_end_after_the_orphans_are_dead(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        orphans: list[bool] = []
        node.consensus.on_release = lambda epoch: orphans.append(node.server.orphans)
        node.server.crash()
        begun_ns = clock_ns()
        await node.reach(GiveUp(epoch=2, reason="the server has crashed"))
        assert orphans == [False]
        epoch, evidence = node.consensus.released[0]
        assert (epoch, evidence.reason) == (2, "the server has crashed")
        assert evidence.end == Position(timeline=2, lsn=Lsn(1010))
        assert clock_ns() - begun_ns < 0.5e9
        assert LocalStore.load(tmp_path).released_epoch == 2


@virtual
async def test_another_directory_says_nothing_of_where_the_epoch_ended(tmp_path: Path) -> None:
    """Somebody put an older copy in the place of the primary's while its daemon was down: what it
    ends with would pass for everything that was acknowledged (attacks C7)."""
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    await node.executor.startup()
    async with node.running(lease=2):
        await node.reach(PROMOTE)
    node.server.process = None
    aside, node.server.disk = node.server.disk, type(node.server.disk)()
    assert aside is not node.server.disk
    node.put(Situation.STOPPED)
    async with node.running():
        await node.reach(GiveUp(epoch=2, reason="the server has stopped"))
        assert node.consensus.released[0][1].end is None
        assert LocalStore.load(tmp_path).record.opened_copy not in ("", node.store.record.copy)


@virtual
async def test_release_does_not_wait_for_a_slow_scan(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        node.server.crash()
        node.server.faults.extra_s["end_of_wal"] = 60.0
        begun_ns = clock_ns()
        await node.reach(GiveUp(epoch=2, reason="the server has crashed"))
        assert clock_ns() - begun_ns < 0.5e9
        assert node.consensus.released[0][1].end is None


@virtual
async def test_no_release_before_the_death_is_proven(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        node.server.crash()
        node.server.fail("kill_remains", *[PostgresError("still attached")] * 3)
        node.executor.pursue(GiveUp(epoch=2, reason="the server has crashed"))
        await node.until(lambda: node.executor.standing().failures == 3)
        assert node.consensus.released == []
        assert node.store.released_epoch == 2
        await node.until(lambda: bool(node.consensus.released))


@virtual
async def test_epoch_that_was_never_opened_is_given_back_without_a_stop(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(GiveUp(epoch=2, reason="not wanted"))
        assert node.server.running
        assert node.consensus.released[0][1].end is None


@virtual
async def test_released_epoch_is_never_led_again(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        await node.reach(GiveUp(epoch=2, reason="asked"))
        node.executor.pursue(PROMOTE)
        await elapse(5)
        assert not node.server.running
        assert "given back" in node.executor.standing().activity


@virtual
async def test_restart_in_place_under_the_next_epoch(tmp_path: Path) -> None:
    node = make(second_epoch(), Situation.REPLICA, tmp_path)
    async with node.running(lease=2):
        await node.reach(PROMOTE)
        node.server.crash()
        await node.reach(GiveUp(epoch=2, reason="the server has crashed"))
        attempt = Attempt(term=5, number=1)
        await node.reach(StaySealed(epoch=2, attempt=attempt))
        sealed = node.executor.standing().sealed
        assert sealed is not None
        assert sealed.position == Position(timeline=2, lsn=Lsn(1010))
    third = reign(3, ME, parent_timeline=2, seal_lsn=Lsn(1010))
    node.consensus.cluster = replace(
        node.consensus.cluster, reigns=(*node.consensus.cluster.reigns, third)
    )
    async with node.running(lease=3):
        await node.reach(Lead(epoch=3, timeline=3, start=StartMode.PROMOTE))
        assert node.server.primary
        assert node.server.disk.timeline == 3
        assert node.store.record.opened_epoch == 3
        assert node.server.disk.kind is DataKind.CLUSTER
