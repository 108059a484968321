"""A group of one: its log is shortened, its state is the same at the next start, and the same
member goes on as another group."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pgraft.node import NodeOptions
from pgraft.node.snapshots import SnapshotOptions
from ramd.config.model import TimingValues
from ramd.domain.errors import Refused
from ramd.domain.model import Member, Settings
from ramd.link import GroupOptions, Membership, join, recover_alone, resume
from ramd.state.commands import DescribeMember, InitCluster, encode
from tests.support.ports import free_port
from tests.support.wait import wait_for_async

MS = 1_000_000
WITHIN_S = 60.0
KEPT = SnapshotOptions(entries=8)


class Shortened(GroupOptions):
    """As any, with snapshots after a few entries."""

    def of_node(self, clock: Callable[[], int]) -> NodeOptions:
        return replace(GroupOptions.of_node(self, clock), snapshots=KEPT)


def options(tmp_path: Path, port: int) -> GroupOptions:
    return Shortened(
        node_id=1,
        cluster_name="demo",
        founders=((1, f"127.0.0.1:{port}"),),
        listen=f"127.0.0.1:{port}",
        state_dir=tmp_path,
        secret=b"0123456789abcdef",
        timing=TimingValues(
            heartbeat_ns=30 * MS, election_ns=150 * MS, lease_ttl_ns=1000 * MS, drift=0.01
        ),
        boot=1,
        released_epoch=0,
    )


@asynccontextmanager
async def member(given: GroupOptions) -> AsyncIterator[Membership]:
    """A running member, which coordinates."""
    made = await join(
        given,
        clock=lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        woken=lambda: None,
        forming=lambda text: None,
    )
    try:
        await wait_for_async(lambda: made.link.status().ready, WITHIN_S, "it coordinates")
        yield made
    finally:
        await made.close()


def described(number: int) -> bytes:
    name = f"n{number}"
    return encode(DescribeMember(node_id=1, name=name, priority=50, nofailover=False))


async def grown(made: Membership) -> None:
    """A formed cluster with a history longer than its log."""
    here = Member(node_id=1, name="n", hostname="h", postgresql_port=1, raft_port=2, http_port=3)
    founded = InitCluster(
        cluster_id=made.cluster_id, cluster_name="demo", members=(here,), settings=Settings()
    )
    await made.link.propose(encode(founded), timeout_s=WITHIN_S)
    for number in range(3 * KEPT.entries):
        await made.link.propose(described(number), timeout_s=WITHIN_S)

    def taken() -> bool:
        raft = made.link.status().raft
        return raft is not None and raft.snapshot_index > 0 and raft.counts.snapshots_taken > 0

    await wait_for_async(taken, WITHIN_S, "a snapshot was taken")


async def test_a_state_comes_back_from_its_snapshot(tmp_path: Path) -> None:
    given = options(tmp_path, free_port())
    async with member(given) as made:
        await grown(made)
        before = made.link.state()
    async with member(given) as made:
        assert made.link.state() == replace(before, applied_index=made.link.state().applied_index)
        assert made.link.state().members[0].name == f"n{3 * KEPT.entries - 1}"
        await made.link.propose(described(99), timeout_s=WITHIN_S)
        assert made.link.state().members[0].name == "n99"


async def test_a_member_goes_on_alone_with_all_it_held(tmp_path: Path) -> None:
    port = free_port()
    given = options(tmp_path, port)
    where = {"node_id": 1, "cluster_name": "demo", "address": f"127.0.0.1:{port}"}
    async with member(given) as made:
        await grown(made)
        old, before = made.cluster_id, made.link.state()
        with pytest.raises(Refused):
            recover_alone(tmp_path, stamp="now", **where)  # type: ignore[arg-type]
    survival = recover_alone(tmp_path, stamp="now", **where)  # type: ignore[arg-type]
    assert survival.group_id != old
    assert survival.index > 3 * KEPT.entries
    # What was committed last is known by the disk a little later.
    assert 0 <= survival.uncommitted < KEPT.entries
    assert survival.aside.name == "raft.before-now"
    assert not resume(tmp_path), "nothing was interrupted"
    async with member(given) as made:
        assert made.cluster_id == survival.group_id
        assert made.link.state().members == before.members
        raft = made.link.status().raft
        assert raft is not None
        assert raft.voters == (1,)


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        recover_alone(tmp_path, node_id=1, cluster_name="demo", address="h:1", stamp="now")
