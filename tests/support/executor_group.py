"""Three executors over real servers that share one state in memory: a group without Raft.

What is real is every server, every file and every clock. Start reading at `Group`.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from ramd.domain.decision import Goal, Lead, StaySealed
from ramd.domain.model import ClusterState, Member, Reign, StartMode
from ramd.domain.observation import Attempt, SealReport
from ramd.execute.context import Ports
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard
from ramd.execute.local import LocalStore
from ramd.postgres.instance import Instance
from ramd.postgres.site import Site
from tests.support.fake_consensus import FakeConsensus
from tests.support.postgres import ask
from tests.support.wait import wait_for_async

REACH_S = 60.0
TTL_MS = 3000


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Daemon:
    """Guard and executor of one node, with what a daemon would hold of the group."""

    def __init__(self, node_id: int, site: Site, server: Instance, state: ClusterState) -> None:
        self.node_id = node_id
        self.server = server
        self.consensus = FakeConsensus(node_id, state)
        self.leased = 0
        ports = Ports(
            me=node_id,
            server=server,
            consensus=self.consensus,
            store=LocalStore.load(site.options.state_dir),
            clock=boot_ns,
            changed=lambda: None,
        )
        self.guard = Guard(ports, ttl_ms=TTL_MS)
        self.executor = Executor(ports, self.guard, rng=random.Random(node_id))

    async def run(self) -> None:
        """Until cancelled."""
        await self.executor.startup()
        async with asyncio.TaskGroup() as tasks:
            for life in (self.guard.run(), self.executor.run(), self._renew()):
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

    def __init__(self, sites: dict[int, Site], servers: dict[int, Instance]) -> None:
        self.sites = sites
        self.state = ClusterState(
            cluster_id="c1",
            members=tuple(
                Member(
                    node_id=n,
                    name=f"node{n}",
                    hostname="127.0.0.1",
                    postgresql_port=sites[n].options.port,
                    raft_port=1,
                    http_port=1,
                )
                for n in sites
            ),
        )
        self.daemons = {n: Daemon(n, sites[n], servers[n], self.state) for n in sites}

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
        return int(ask(self.sites[node_id], "SELECT count(*) FROM t"))

    async def agree_on(self, rows: int) -> None:
        def agreed() -> bool:
            return all(self.rows(node_id) == rows for node_id in self.daemons)

        await wait_for_async(agreed, REACH_S, f"{rows} rows everywhere")
