"""A crashed primary whose WAL has a hole is never started again: its own recovery would end at the
hole, and take pages of after it for consistent."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.domain.decision import Follow, Lead, StaySealed
from ramd.domain.lsn import Lsn
from ramd.domain.model import StartMode
from ramd.domain.observation import Attempt
from ramd.execute.context import Situation
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_server import SYSTEM_ID
from tests.support.ramd_node import ME, Node, make, streams
from tests.support.virtual_time import elapse, virtual

FILE = "000000010000000000000006"


def holed(tmp_path: Path) -> Node:
    node, _ = make(tmp_path, Situation.CRASHED)
    node.server.disk.wal_missing = FILE
    return node


def started(node: Node) -> bool:
    return any(call.startswith("start") for call in node.server.calls)


@virtual
async def test_a_replica_is_made_of_it_by_a_new_copy_alone(tmp_path: Path) -> None:
    node = holed(tmp_path)
    node.server.net.cut.add(2)
    async with node.running():
        node.executor.pursue(Follow(epoch=2, upstream=2))
        await elapse(30)
        assert not started(node)
        assert node.server.aside == []  # as long as nothing is there to be copied
        node.server.net.cut.clear()
        await node.until(lambda: node.executor.standing().settled)
        assert streams(node)
        assert len(node.server.aside) == 1
        assert node.server.calls.index("clone") < node.server.calls.index(
            "start as replica of None"
        )


@virtual
async def test_it_has_no_position_to_report(tmp_path: Path) -> None:
    node = holed(tmp_path)
    async with node.running():
        node.executor.pursue(StaySealed(epoch=2, attempt=Attempt(term=3, number=1)))
        await elapse(30)
        assert not started(node)
        assert node.executor.standing().sealed is None
        assert FILE in node.executor.standing().activity


@pytest.mark.parametrize("start", [StartMode.OPEN, StartMode.PROMOTE])
@virtual
async def test_it_does_not_lead(tmp_path: Path, start: StartMode) -> None:
    node = holed(tmp_path)
    again = reign(3, ME, parent_timeline=1, seal_lsn=Lsn(1000))
    node.consensus.cluster = cluster(reign(1, ME), reign(2, 2), again, system_id=SYSTEM_ID)
    async with node.running(lease=3):
        await node.reach(Lead(epoch=3, timeline=3, start=start))
        assert not started(node)
        assert node.store.released_epoch == 3
        assert FILE in node.executor.standing().activity
        assert node.server.aside == []
