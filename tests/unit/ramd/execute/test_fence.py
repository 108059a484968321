"""A server that checks the lease itself: when it is told one, and when never again."""

from __future__ import annotations

from pathlib import Path

from ramd.domain.decision import GiveUp, Lead, Wait
from ramd.domain.lsn import Lsn
from ramd.domain.model import StartMode
from ramd.domain.server import Promotion
from ramd.execute.context import Situation
from ramd.execute.guard import Guard
from ramd.execute.local import OwnFork
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_fence import FakeFence
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import TTL_MS, Node
from tests.support.virtual_time import clock_ns, elapse, virtual

ME = 1
LEAD = Lead(epoch=2, timeline=2, start=StartMode.PROMOTE)
STATE = cluster(reign(1, 3), reign(2, ME, parent_timeline=1), system_id=SYSTEM_ID)


def fenced_node(tmp_path: Path) -> tuple[Node, FakeFence]:
    node, fence = Node(ME, FakeNet(), STATE, tmp_path), FakeFence()
    node.server.inside = fence
    return node, fence


async def leading(tmp_path: Path) -> tuple[Node, FakeFence]:
    """A node whose server has been opened for epoch 2 and proven."""
    node, fence = fenced_node(tmp_path)
    async with node.store.opening(2):
        node.server.as_cluster(timeline=2).now_running(primary=True)
    done = Promotion(timeline=2, parent_timeline=1, fork_lsn=Lsn(1000))
    await node.store.note_fork(OwnFork(epoch=2, promotion=done))
    node.guard.watch(2)
    node.lease(2)
    node.guard.open(2)
    return node, fence


@virtual
async def test_server_is_left_alone_when_its_lease_ends_and_written_to_when_it_returns(
    tmp_path: Path,
) -> None:
    node, fence = await leading(tmp_path)
    async with node.running():
        await elapse(2 * TTL_MS / 1000)
        assert not fence.open(clock_ns())
        assert node.server.primary
        assert "stop" not in node.server.calls
        node.lease(2)
        await elapse(0.2)
        assert fence.open(clock_ns())


@virtual
async def test_nothing_is_published_before_the_server_is_proven(tmp_path: Path) -> None:
    node, fence = fenced_node(tmp_path)
    node.server.as_cluster(timeline=1).now_running(primary=False)
    node.guard.watch(2)
    async with node.running(lease=2):
        await elapse(1)
        assert "publish" not in fence.journal
        await node.reach(LEAD)
        assert fence.open(clock_ns())


@virtual
async def test_promotion_onto_another_timeline_is_never_given_a_lease(tmp_path: Path) -> None:
    node, fence = fenced_node(tmp_path)
    node.put(Situation.REPLICA)
    node.server.faults.promote_to = 9
    async with node.running(lease=2):
        node.executor.pursue(LEAD)
        await node.until(lambda: bool(node.consensus.released))
        await elapse(1)
    assert "publish" not in fence.journal
    assert fence.latched == 2


@virtual
async def test_renewal_on_its_way_opens_nothing_that_was_shut(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    async with node.running(lease=2):
        node.guard.shut(2)
        await elapse(2)
        assert not fence.open(clock_ns())
        assert fence.journal[-1] == "shut 2"
        node.guard.open(2)
        assert not fence.open(clock_ns())


@virtual
async def test_new_daemon_publishes_only_to_what_it_has_proven(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    successor = Guard(node.ports, ttl_ms=TTL_MS)
    fence.journal.clear()
    node.guard = successor
    successor.adopt(2)
    async with node.running(lease=2):
        await elapse(1)
        assert fence.journal == []
        successor.open(2)
        await elapse(0.1)
        assert fence.open(clock_ns())


@virtual
async def test_another_start_of_the_server_is_proven_again_first(tmp_path: Path) -> None:
    """It began anew by itself after a crash of one of its processes."""
    node, fence = await leading(tmp_path)
    async with node.running(lease=2):
        fence.number, fence.word = 2, (0, 0)
        await elapse(0.5)
        assert not fence.open(clock_ns())
        await node.reach(LEAD)
        assert fence.open(clock_ns())
        assert fence.word[1] == 2


@virtual
async def test_word_falls_before_anything_else_when_the_epoch_is_given_back(
    tmp_path: Path,
) -> None:
    node, fence = await leading(tmp_path)
    node.server.on_call = fence.journal.append
    async with node.running(lease=2):
        node.server.crash()
        node.executor.pursue(GiveUp(epoch=2, reason="the server has crashed"))
        await node.until(lambda: bool(node.consensus.released))
    assert fence.journal.index("shut 2") < fence.journal.index("kill_remains")
    assert fence.latched == 2


@virtual
async def test_word_falls_with_a_server_that_ended(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    async with node.running(lease=2):
        node.server.crash()
        node.guard.shut(0)
        await elapse(1)
        assert fence.word == (0, 0)
    assert fence.latched == 0


@virtual
async def test_another_epoch_closes_the_last_one(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    node.guard.watch(3)
    assert fence.word == (0, 0)
    assert not node.guard.opened
    node.guard.rest()
    assert node.guard.watching == 0


@virtual
async def test_server_that_turns_out_to_check_nothing_is_stopped_in_time(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    fence.number = 0
    async with node.running():
        node.executor.pursue(Wait(reason="the lease ends"))
        await node.until(lambda: bool(node.consensus.released))
    assert not node.server.primary
