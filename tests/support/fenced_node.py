"""A node whose server checks the lease itself, elected or leading."""

from __future__ import annotations

from pathlib import Path

from ramd.domain.decision import Lead
from ramd.domain.lsn import Lsn
from ramd.domain.model import StartMode
from ramd.execute.context import Situation
from ramd.execute.guard import PUBLISH_MS
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_fence import FakeFence
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import ME, Node

LEAD = Lead(epoch=2, timeline=2, start=StartMode.PROMOTE)
SHUT = (0, 0)
A_LOOK_S = 2 * PUBLISH_MS / 1000
"""After so long a renewal has reached the server."""


def elected(tmp_path: Path, *, loads: bool = True) -> tuple[Node, FakeFence]:
    """A replica that epoch 2 was granted to, and the fence inside it."""
    state = cluster(reign(1, 3), reign(2, ME, parent_timeline=1), system_id=SYSTEM_ID)
    node = Node(ME, FakeNet(), state, tmp_path)
    node.put(Situation.REPLICA)
    return node, FakeFence(node.server, loads=loads)


async def leading(tmp_path: Path) -> tuple[Node, FakeFence]:
    """A primary opened for epoch 2 by an earlier run of the daemon, not proven in this one."""
    node, _ = elected(tmp_path)
    second = reign(2, ME, parent_timeline=1, fork_lsn=Lsn(1000))
    node.consensus.cluster = cluster(reign(1, 3), second, system_id=SYSTEM_ID)
    async with node.store.opening(2):
        node.server.as_cluster(timeline=2).now_running(primary=True)
    return node, FakeFence(node.server)


def words_at(node: Node, fence: FakeFence) -> dict[str, tuple[int, int]]:
    """The lease word at the beginning of each kind of call, the last of its kind."""
    words: dict[str, tuple[int, int]] = {}

    def note(call: str) -> None:
        words[call] = fence.page.word

    node.server.on_call = note
    return words
