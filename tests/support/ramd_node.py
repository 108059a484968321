"""One node's guard and executor over the fakes, driven by virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.decision import Goal
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import Attempt, DataKind
from ramd.domain.server import ControlState, Upstream
from ramd.execute.context import Ports, Situation, Timing
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard
from ramd.execute.local import LocalStore
from tests.support.fake_consensus import FakeConsensus, cluster, member, reign
from tests.support.fake_server import SYSTEM_ID, FakeNet, FakeServer
from tests.support.virtual_time import clock_ns

TTL_MS = 3_000
NS_PER_MS = 1_000_000


def upstream(node_id: int) -> Upstream:
    """Where the harness's cluster state says that `node_id` is."""
    known = member(node_id)
    return Upstream(node_id=node_id, host=known.hostname, port=known.postgresql_port)


class Node:
    """A node under test. `lease` and `keep_lease` play the coordinator."""

    def __init__(self, node_id: int, net: FakeNet, state: ClusterState, state_dir: Path) -> None:
        self.server = FakeServer(node_id, net)
        self.consensus = FakeConsensus(node_id, state)
        self.store = LocalStore.load(state_dir)
        self.changes = 0
        self.unsynced: Callable[[int], str] = lambda epoch: ""
        self.ports = Ports(
            me=node_id,
            server=self.server,
            consensus=self.consensus,
            store=self.store,
            clock=clock_ns,
            changed=self._changed,
            timing=Timing(),
            reachable=net.reachable,
            unsynced=self._unsynced,
        )
        self.guard = Guard(self.ports, ttl_ms=TTL_MS)
        self.executor = Executor(self.ports, self.guard, rng=random.Random(1))

    def _unsynced(self, epoch: int) -> str:
        return self.unsynced(epoch)

    def _changed(self) -> None:
        self.changes += 1

    def lease(self, epoch: int, ms: int = TTL_MS) -> int:
        """A lease of `epoch` that ends in `ms`; returns its deadline."""
        held = self.consensus.held
        held.epoch, held.deadline_ns = epoch, clock_ns() + ms * NS_PER_MS
        return held.deadline_ns

    async def keep_lease(self, epoch: int) -> None:
        """Renew as a coordinator does, until cancelled."""
        while True:
            self.lease(epoch)
            await asyncio.sleep(0.3)

    @asynccontextmanager
    async def running(
        self, *more: Coroutine[Any, Any, None], lease: int = 0
    ) -> AsyncIterator[Node]:
        """Guard and executor run within, and `more`; with `lease` it is renewed all the time."""
        lives = [self.guard.run(), self.executor.run(), *more]
        if lease:
            self.lease(lease)
            lives.append(self.keep_lease(lease))
        tasks = [asyncio.create_task(life) for life in lives]
        try:
            yield self
            for task in tasks:
                assert not task.done(), f"ended by itself: {task}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def reach(
        self, goal: Goal, *, attempt: Attempt | None = None, within_s: float = 60.0
    ) -> None:
        """Pursue `goal` until it is reached."""
        self.executor.pursue(goal, attempt=attempt)
        await self.until(lambda: self.executor.standing().settled, within_s=within_s)

    async def until(self, condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
        """Virtual time passes until `condition` holds."""
        end_ns = clock_ns() + round(within_s * 1e9)
        while not condition():
            assert clock_ns() < end_ns, f"not reached: {self.executor.standing()}"
            await asyncio.sleep(0.01)

    def put(self, situation: Situation) -> None:
        """Bring server and directory into `situation`, with WAL of timeline 1 up to 1000."""
        server = self.server
        if situation is Situation.ABSENT:
            return
        server.as_cluster()
        match situation:
            case Situation.PARTIAL:
                server.disk.kind = DataKind.PARTIAL
            case Situation.FOREIGN:
                server.disk.kind = DataKind.FOREIGN
            case Situation.CRASHED:
                server.disk.control = ControlState.IN_RECOVERY
                server.disk.standby_signal = True
                server.orphans = True
            case Situation.STARTING:
                server.now_running(primary=False)
                assert server.process is not None
                server.process.accepts_at = asyncio.get_running_loop().time() + 1.0
            case Situation.REPLICA:
                server.now_running(primary=False)
            case Situation.PRIMARY:
                server.now_running(primary=True)


def primary_of(net: FakeNet, node_id: int, *, timeline: int, fork: int, end: int) -> FakeServer:
    """Another node that runs as primary on `timeline`, which left timeline 1 at `fork`."""
    server = FakeServer(node_id, net).as_cluster(timeline=timeline, end=end)
    server.disk.history = ((1, fork),) if timeline > 1 else ()
    assert server.disk.system_id == SYSTEM_ID
    return server.now_running(primary=True)


# --- node 1 that follows node 2 ---------------------------------------------------------------

ME = 1
FORK = 1000


def led_by_node_2(*, fork: int | None = FORK, seal: int = FORK, first: int = 3) -> ClusterState:
    """Epoch 1 by `first`, epoch 2 by node 2, whose timeline 2 left timeline 1 at `fork`."""
    recorded = None if fork is None else Lsn(fork)
    second = reign(2, 2, parent_timeline=1, fork_lsn=recorded, seal_lsn=Lsn(seal))
    return cluster(reign(1, first), second, system_id=SYSTEM_ID)


def make(
    tmp_path: Path,
    situation: Situation,
    *,
    end: int = FORK,
    state: ClusterState | None = None,
) -> tuple[Node, FakeServer]:
    """This node in `situation` with WAL to `end`, and node 2, which leads epoch 2."""
    net = FakeNet()
    primary = primary_of(net, 2, timeline=2, fork=FORK, end=1100)
    node = Node(ME, net, state or led_by_node_2(), tmp_path)
    node.put(situation)
    node.server.disk.end = end
    return node, primary


def event(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    """The log records of the events `name`, in order."""
    return [r for r in caplog.records if getattr(r, "event", "") == name]


def streams(node: Node) -> bool:
    """It has everything that node 2 has, on its timeline."""
    node.server.stream()
    source = node.server.net.servers[2]
    return node.server.disk.timeline == 2 and node.server.disk.end == source.disk.end
