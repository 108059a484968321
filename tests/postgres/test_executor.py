"""The executor on real servers: a first primary, clones, a crash, a promotion, rejoin by rewind.

Consensus is in memory; what is real is every server, every file and every clock.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from ramd.domain.decision import Follow, GiveUp, Goal, Lead, StaySealed, Yield
from ramd.domain.model import ClusterState, Member, Reign, StartMode
from ramd.domain.observation import Attempt, SealReport
from ramd.execute.context import Ports
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard
from ramd.execute.local import LocalStore
from tests.postgres.conftest import Nodes
from tests.support.fake_consensus import FakeConsensus
from tests.support.postgres import ask, postmaster_pid
from tests.support.wait import wait_for_async

REACH_S = 60.0
TTL_MS = 3000


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Daemon:
    """Guard and executor of one node, with what a daemon would hold of the group."""

    def __init__(self, nodes: Nodes, node_id: int, group: Group) -> None:
        self.site = nodes.site(node_id)
        self.site.prepare()
        self.nodes, self.node_id, self.group = nodes, node_id, group
        self.consensus = FakeConsensus(node_id, group.state)
        self.leased = 0

    async def run(self) -> None:
        self.server = await self.nodes.open(self.node_id)
        store = LocalStore.load(self.site.options.state_dir)
        self.ports = Ports(
            me=self.node_id,
            server=self.server,
            consensus=self.consensus,
            store=store,
            clock=boot_ns,
            changed=lambda: None,
        )
        guard = Guard(self.ports, ttl_ms=TTL_MS)
        self.executor = Executor(self.ports, guard, rng=random.Random(self.node_id))
        await self.executor.startup()
        async with asyncio.TaskGroup() as tasks:
            for life in (guard.run(), self.executor.run(), self._renew()):
                tasks.create_task(life)

    async def _renew(self) -> None:
        while True:
            held = self.consensus.held
            if self.leased:
                held.epoch, held.deadline_ns = self.leased, boot_ns() + TTL_MS * 1_000_000
            await asyncio.sleep(0.1)

    async def reach(self, goal: Goal, *, attempt: Attempt | None = None) -> None:
        def reached() -> bool:
            self.executor.pursue(goal, attempt=attempt)
            return self.executor.standing().settled

        self.executor.pursue(goal, attempt=attempt)
        await wait_for_async(reached, REACH_S, f"node {self.node_id}: {goal}")

    async def sealed(self, epoch: int, attempt: Attempt) -> SealReport:
        await self.reach(StaySealed(epoch=epoch, attempt=attempt))
        report = self.executor.standing().sealed
        assert report is not None
        return report


class Group:
    """Three daemons that share one state."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.state = ClusterState(
            cluster_id="c1",
            members=tuple(
                Member(
                    node_id=n,
                    name=f"node{n}",
                    hostname="127.0.0.1",
                    postgresql_port=nodes.site(n).options.port,
                    raft_port=1,
                    http_port=1,
                )
                for n in (1, 2, 3)
            ),
        )
        self.daemons = {n: Daemon(nodes, n, self) for n in (1, 2, 3)}

    def grant(self, holder: int, timeline: int, seal: SealReport | None = None) -> Lead:
        start = StartMode.PROMOTE if seal else StartMode.OPEN
        reign = Reign(
            epoch=self.state.epoch + 1,
            node_id=holder,
            timeline=timeline,
            start=start,
            parent_timeline=seal.position.timeline if seal else None,
            seal_lsn=seal.position.lsn if seal else None,
        )
        self.state = replace(self.state, reigns=(*self.state.reigns, reign))
        self.share()
        for daemon in self.daemons.values():
            daemon.leased = reign.epoch if daemon.node_id == holder else 0
        self.daemons[holder].consensus.held.epoch = reign.epoch
        self.daemons[holder].consensus.held.deadline_ns = boot_ns() + TTL_MS * 1_000_000
        return Lead(epoch=reign.epoch, timeline=timeline, start=start)

    def share(self, holder: int | None = None) -> None:
        """Everybody knows what the holder has recorded."""
        if holder is not None:
            self.state = self.daemons[holder].consensus.cluster
        for daemon in self.daemons.values():
            daemon.consensus.cluster = self.state

    async def lead(self, holder: int, lead: Lead) -> None:
        await self.daemons[holder].reach(lead)
        self.share(holder)

    def rows(self, node_id: int) -> int:
        return int(ask(self.nodes.site(node_id), "SELECT count(*) FROM t"))

    async def agree_on(self, rows: int) -> None:
        def agreed() -> bool:
            return all(self.rows(node_id) == rows for node_id in self.daemons)

        await wait_for_async(agreed, REACH_S, f"{rows} rows everywhere")


@pytest.fixture
async def group(nodes: Nodes) -> AsyncIterator[Group]:
    group = Group(nodes)
    async with running(group):
        yield group


@asynccontextmanager
async def running(group: Group) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(daemon.run()) for daemon in group.daemons.values()]
    try:
        await wait_for_async(
            lambda: all(hasattr(d, "executor") for d in group.daemons.values()), 10, "they run"
        )
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def three_nodes(group: Group) -> None:
    """Node 1 leads epoch 1, the others are clones of it and stream."""
    await group.lead(1, group.grant(1, 1))
    assert group.state.system_id
    for node_id in (2, 3):
        await group.daemons[node_id].reach(Follow(epoch=1, upstream=1))
    ask(group.nodes.site(1), "CREATE TABLE t (v int)")
    ask(group.nodes.site(1), "INSERT INTO t VALUES (1)")
    await group.agree_on(1)


async def test_crash_promotion_and_return_of_the_former_primary(group: Group) -> None:
    await three_nodes(group)
    first, second, third = (group.daemons[n] for n in (1, 2, 3))
    os.kill(postmaster_pid(first.server), signal.SIGKILL)
    await first.reach(GiveUp(epoch=1, reason="the server has crashed"))
    assert [epoch for epoch, _ in first.consensus.released] == [1]
    attempt = Attempt(term=1, number=1)
    seal = await second.sealed(1, attempt)
    other = await third.sealed(1, attempt)
    assert other.position == seal.position
    lead = group.grant(2, 2, seal)
    await third.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    await group.lead(2, lead)
    reign = group.state.reign
    assert reign is not None
    assert (reign.parent_timeline, reign.fork_lsn) == (1, seal.position.lsn)
    ask(group.nodes.site(2), "INSERT INTO t VALUES (2)")
    await first.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    await group.agree_on(2)


async def test_diverged_former_primary_is_rewound(group: Group) -> None:
    await three_nodes(group)
    first, second, third = (group.daemons[n] for n in (1, 2, 3))
    attempt = Attempt(term=1, number=1)
    seal = await second.sealed(1, attempt)
    await third.sealed(1, attempt)
    ask(group.nodes.site(1), "INSERT INTO t SELECT generate_series(1, 1000)")
    first.leased = 0
    await wait_for_async(lambda: bool(first.consensus.released), REACH_S, "the guard fences node 1")
    assert not first.server.running
    lead = group.grant(2, 2, seal)
    await third.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    await group.lead(2, lead)
    await first.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    ask(group.nodes.site(2), "INSERT INTO t VALUES (2)")
    await group.agree_on(2)
    assert list(group.nodes.site(1).divergent_dir.iterdir()), "divergent WAL is kept"


async def test_handover_needs_no_rewind(group: Group) -> None:
    await three_nodes(group)
    first, second, third = (group.daemons[n] for n in (1, 2, 3))
    await first.reach(Yield(epoch=1))
    evidence = first.consensus.released[0][1]
    attempt = Attempt(term=1, number=1)
    seal = await second.sealed(1, attempt)
    await third.sealed(1, attempt)
    assert evidence.end == seal.position, "the replicas have the shutdown checkpoint"
    lead = group.grant(2, 2, seal)
    await third.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    await group.lead(2, lead)
    await first.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    ask(group.nodes.site(2), "INSERT INTO t VALUES (2)")
    await group.agree_on(2)
    assert not group.nodes.site(1).divergent_dir.exists()
