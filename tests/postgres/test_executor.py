"""The executor on real servers: a first primary, clones, a crash, a promotion, rejoin by rewind.

Consensus is in memory; what is real is every server, every file and every clock.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from ramd.domain.decision import Follow, GiveUp, Yield
from ramd.domain.observation import Attempt
from tests.postgres.conftest import Nodes
from tests.support.executor_group import REACH_S, Group
from tests.support.postgres import ask, postmaster_pid
from tests.support.wait import wait_for_async

IDS = (1, 2, 3)


@pytest.fixture
async def group(nodes: Nodes) -> AsyncIterator[Group]:
    sites = {n: nodes.site(n) for n in IDS}
    for site in sites.values():
        site.prepare()
    group = Group(sites, {n: await nodes.open(n) for n in IDS})
    tasks = [asyncio.create_task(daemon.run()) for daemon in group.daemons.values()]
    try:
        yield group
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
    ask(group.sites[1], "CREATE TABLE t (v int)")
    ask(group.sites[1], "INSERT INTO t VALUES (1)")
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
    ask(group.sites[2], "INSERT INTO t VALUES (2)")
    await first.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    await group.agree_on(2)


async def test_diverged_former_primary_is_rewound(group: Group) -> None:
    await three_nodes(group)
    first, second, third = (group.daemons[n] for n in (1, 2, 3))
    attempt = Attempt(term=1, number=1)
    seal = await second.sealed(1, attempt)
    await third.sealed(1, attempt)
    ask(group.sites[1], "INSERT INTO t SELECT generate_series(1, 1000)")
    first.leased = 0
    await wait_for_async(lambda: bool(first.consensus.released), REACH_S, "the guard fences node 1")
    assert not first.server.running
    lead = group.grant(2, 2, seal)
    await third.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    await group.lead(2, lead)
    await first.reach(Follow(epoch=2, upstream=2), attempt=attempt)
    ask(group.sites[2], "INSERT INTO t VALUES (2)")
    await group.agree_on(2)
    assert list(group.sites[1].divergent_dir.iterdir()), "divergent WAL is kept"


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
    ask(group.sites[2], "INSERT INTO t VALUES (2)")
    await group.agree_on(2)
    assert not group.sites[1].divergent_dir.exists()
