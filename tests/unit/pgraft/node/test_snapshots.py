"""Members whose log was shortened: they restart, help others catch up, and never hold up a beat."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from pgraft.core.limits import SNAPSHOT_BYTES_MAX
from pgraft.core.types import NodeId
from pgraft.net.memory import MemoryNetwork
from pgraft.node import SnapshotOptions
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.wait import wait_for_async

OFTEN = SnapshotOptions(entries=40)


def network_of(over: str) -> MemoryNetwork | None:
    return MemoryNetwork(random.Random(1), delay_s=(0.0, 0.002)) if over == "memory" else None


async def fill(member: Member, first: int, count: int, size: int = 100) -> list[bytes]:
    """Propose so many commands, each of `size` bytes; returns them in order."""
    commands = [b"%06d" % number + bytes(size - 6) for number in range(first, first + count)]
    for number in range(0, count, 50):
        await asyncio.gather(
            *(member.node.propose(c, DEADLINE_S) for c in commands[number : number + 50])
        )
    return commands


def log_bytes(member: Member) -> int:
    """Of the segments that are there; one may go while they are looked at."""
    total = 0
    for path in member.settings.directory.glob("*.wal"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


async def test_the_log_is_shortened_and_a_restart_goes_on_from_the_snapshot(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 1, snapshots=OFTEN) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await fill(leader, 0, 120, 60_000)
        await wait_for_async(
            lambda: leader.node.status().snapshots_taken >= 2, DEADLINE_S, "snapshots are durable"
        )
        await wait_for_async(
            lambda: log_bytes(leader) < 120 * 60_000, DEADLINE_S, "segments have gone"
        )
        status = leader.node.status()
        assert status.log_entries == status.last_index - status.snapshot_index < 120
        before = list(leader.commands)
        await cluster.stop(1)
        again = await cluster.start(1)
        await cluster.formed()
        await cluster.leader()
        await wait_for_async(lambda: again.commands == before, DEADLINE_S, "nothing is lost")
        assert len(again.entries) < 120, "most came from the snapshot"
        index = await again.node.propose(b"more", DEADLINE_S)
        assert index > status.last_index
        assert await again.node.read_barrier(DEADLINE_S) >= index


@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_a_member_far_behind_gets_a_snapshot_under_load_and_nobody_is_elected(
    tmp_path: Path, over: str
) -> None:
    async with Cluster(tmp_path, 3, network=network_of(over), snapshots=OFTEN) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        number = next(n for n in cluster.members if n != leader.settings.node)
        await cluster.stop(number)
        await fill(leader, 0, 400, 2000)
        await wait_for_async(
            lambda: leader.node.status().snapshot_index > 300, DEADLINE_S, "the log is shortened"
        )
        term = leader.node.status().term
        load = asyncio.create_task(fill(leader, 1000, 400, 2000))
        back = await cluster.start(number)
        await cluster.formed()
        await load
        await cluster.applied(leader.commands)
        assert len(leader.commands) == 800
        assert back.node.status().snapshots_installed >= 1
        assert leader.node.status().snapshots_sent >= 1
        assert {m.node.status().term for m in cluster.members.values()} == {term}
        # It is as good as any other: also after its restart, and as the only other voter.
        third = next(n for n in cluster.members if n not in (leader.settings.node, number))
        await cluster.stop(third)
        await cluster.stop(number)
        await cluster.start(number)
        await cluster.formed()
        await leader.node.propose(b"two", DEADLINE_S)
        await cluster.applied(leader.commands)


@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_the_largest_state_reaches_a_member_far_behind(tmp_path: Path, over: str) -> None:
    async with Cluster(tmp_path, 3, network=network_of(over), snapshots=OFTEN) as cluster:
        for settings in cluster.settings.values():
            settings.state_bytes = SNAPSHOT_BYTES_MAX
        await cluster.start_all()
        leader = await cluster.leader()
        number = next(n for n in cluster.members if n != leader.settings.node)
        await cluster.stop(number)
        for command in range(150):
            await leader.node.propose(b"%d" % command, DEADLINE_S)
        await wait_for_async(
            lambda: leader.node.status().snapshot_index > 100, DEADLINE_S, "the log is shortened"
        )
        term = leader.node.status().term
        back = await cluster.start(number)
        await cluster.formed()
        await cluster.applied(leader.commands)
        assert back.node.status().snapshots_installed >= 1
        assert back.node.status().term == leader.node.status().term == term


async def test_all_members_restart_on_shortened_logs(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, snapshots=OFTEN) as cluster:
        await cluster.start_all()
        await fill(await cluster.leader(), 0, 200)
        for turn in range(3):
            for number in list(cluster.members):
                await cluster.stop(number)
            await cluster.start_all()
            leader = await cluster.leader()
            await fill(leader, 1000 * (turn + 1), 60)
            await cluster.applied(leader.commands)
        assert len(leader.commands) == 200 + 3 * 60
        files = [path.name for path in leader.settings.directory.glob("*.snap")]
        assert 1 <= len(files) <= 2


async def test_a_caller_behind_a_snapshot_learns_that_its_command_was_applied(
    tmp_path: Path,
) -> None:
    """Its entry never comes here as an entry; the sessions in the snapshot tell."""
    network = MemoryNetwork(random.Random(1))
    async with Cluster(tmp_path, 3, network=network, snapshots=OFTEN) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        asker = next(m for m in cluster.members.values() if m is not leader)
        # The leader hears it, and it hears nothing any more: neither answer nor entry.
        for other in cluster.members:
            if other != asker.settings.node:
                network.cut(NodeId(other), asker.settings.node)
        asked = asyncio.create_task(asker.node.propose(b"mine", DEADLINE_S))
        await wait_for_async(lambda: b"mine" in leader.commands, DEADLINE_S, "it is committed")
        await fill(leader, 0, 200)
        await wait_for_async(
            lambda: leader.node.status().snapshot_index > 100, DEADLINE_S, "the log is shortened"
        )
        network.heal()
        await asked
        assert asker.commands.count(b"mine") == 1
        await cluster.applied(leader.commands)
        assert leader.commands.count(b"mine") == 1
