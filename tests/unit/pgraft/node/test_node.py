"""Whole members: they elect, commit, survive kills and restarts, and stop rather than lie."""

import asyncio
import errno
import random
import time
from functools import partial
from pathlib import Path

import pytest

from pgraft.core.types import Grant, Index, NodeId, ProposalRefused, Role, Timing
from pgraft.net.memory import MemoryNetwork
from pgraft.node import NodeFailed, ProposalUnknown, ReadFailed
from pgraft.storage.disk import DirectoryLocked, Disk, DiskFile
from pgraft.storage.wal import WalCorrupt, WalFailed
from pgraft.wire import ENTRY_BYTES_MAX
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.wait import wait_for_async


def memory(drop: float = 0.0, delay_s: tuple[float, float] = (0.0, 0.0)) -> MemoryNetwork:
    return MemoryNetwork(random.Random(1), drop=drop, delay_s=delay_s)


def others(cluster: Cluster, member: Member) -> list[Member]:
    return [m for m in cluster.members.values() if m is not member]


async def test_any_node_proposes_and_every_node_applies_in_one_order(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        await cluster.leader()
        indexes = [
            await member.node.propose(b"%d" % number, DEADLINE_S)
            for number in range(4)
            for member in cluster.members.values()
        ]
        assert indexes == sorted(indexes)
        await cluster.applied([b"%d" % n for n in range(4) for _ in range(3)])


async def test_a_proposal_returns_after_it_was_applied_where_it_was_asked(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory(delay_s=(0.0, 0.01))) as cluster:
        await cluster.start_all()
        for member in (await cluster.leader(), *others(cluster, await cluster.leader())):
            await member.node.propose(b"from %d" % member.settings.node, DEADLINE_S)
            assert b"from %d" % member.settings.node in member.commands


async def test_a_killed_leader_is_replaced_and_comes_back_from_its_disk(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"before", DEADLINE_S)
        await cluster.stop(leader.settings.node)
        successor = await cluster.leader()
        await successor.node.propose(b"meanwhile", DEADLINE_S)
        back = await cluster.start(leader.settings.node)
        await cluster.formed()
        await cluster.applied([b"before", b"meanwhile"])
        assert back.node.leader() == (await cluster.leader()).settings.node


async def test_a_lost_connection_to_the_leader_starts_the_election_at_once(tmp_path: Path) -> None:
    slow = Timing(
        heartbeat_ns=1_000_000_000, election_ns=60_000_000_000, lease_ttl_ns=400_000_000_000
    )
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        for number in list(cluster.members):
            await cluster.stop(number)
            cluster.settings[number].timing = slow
        # Nobody but node 1 campaigns by silence within this test.
        cluster.settings[NodeId(1)].timing = Timing()
        await cluster.start_all()
        leader = await cluster.leader()
        assert leader.settings.node == 1
        term = leader.node.status().term
        await cluster.stop(1)
        # Two that campaign at once may split the vote; that they do not wait is what matters.
        await wait_for_async(
            lambda: any(
                m.node.status().role is not Role.FOLLOWER or m.node.status().term > term
                for m in cluster.members.values()
            ),
            DEADLINE_S,
            "somebody campaigns long before the election timeout",
        )


async def test_all_members_restart_with_what_was_committed(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        commands = [b"%d" % n for n in range(30)]
        for command in commands:
            await leader.node.propose(command, DEADLINE_S)
        terms = [m.node.status().term for m in cluster.members.values()]
        for number in (1, 2, 3):
            await cluster.stop(number)
        await cluster.start_all()
        await cluster.leader()
        await cluster.applied(commands)
        assert min(m.node.status().term for m in cluster.members.values()) > max(terms)


async def test_many_proposals_at_once_share_few_syncs(tmp_path: Path) -> None:
    syncs = [0]

    async with Cluster(tmp_path, 1) as cluster:
        cluster.settings[NodeId(1)].wrap_disk = lambda disk: CountingDisk(disk, syncs)
        await cluster.start_all()
        leader = await cluster.leader()
        before = syncs[0]
        indexes = await asyncio.gather(
            *(leader.node.propose(b"%d" % n, DEADLINE_S) for n in range(100))
        )
        assert len(set(indexes)) == 100
        assert syncs[0] - before <= 20
        assert sorted(leader.commands) == sorted(b"%d" % n for n in range(100))


class CountingDisk:
    """Real files; each sync is counted."""

    def __init__(self, disk: Disk, syncs: list[int]) -> None:
        self.disk = disk
        self.syncs = syncs

    def where(self, name: str) -> str:
        return self.disk.where(name)

    def names(self) -> list[str]:
        return self.disk.names()

    def read(self, name: str) -> bytes:
        return self.disk.read(name)

    def replace(self, name: str, data: bytes) -> None:
        self.disk.replace(name, data)

    def open(self, name: str) -> DiskFile:
        return CountingFile(self.disk.open(name), self.syncs)


class CountingFile:
    def __init__(self, file: DiskFile, syncs: list[int]) -> None:
        self.file = file
        self.syncs = syncs

    def read(self, offset: int, size: int) -> bytes:
        return self.file.read(offset, size)

    def write(self, offset: int, data: bytes) -> None:
        self.file.write(offset, data)

    def sync(self) -> None:
        self.syncs[0] += 1
        self.file.sync()

    def close(self) -> None:
        self.file.close()


async def test_without_a_quorum_nothing_is_promised(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory()) as cluster:
        assert cluster.network is not None
        await cluster.start_all()
        leader = await cluster.leader()
        cluster.network.isolate(leader.settings.node)
        with pytest.raises(ProposalUnknown, match="not applied in time"):
            await leader.node.propose(b"lost or not", 0.1)
        with pytest.raises(ReadFailed):
            await leader.node.read_barrier(0.1)
        await wait_for_async(
            lambda: leader.node.leader() == 0, DEADLINE_S, "it notices that it is alone"
        )
        with pytest.raises(ProposalRefused) as refused:
            await leader.node.propose(b"never sent", 0.2)
        assert refused.value.reason == "no_leader"
        majority = {m.settings.node for m in others(cluster, leader)}
        successor = await cluster.leader(majority)
        await successor.node.propose(b"of the majority", DEADLINE_S)
        cluster.network.heal()
        await cluster.applied([b"of the majority"])


async def test_a_read_barrier_shows_what_was_committed_before_it(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory(delay_s=(0.0, 0.02))) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for number in range(5):
            index = await leader.node.propose(b"%d" % number, DEADLINE_S)
            for member in others(cluster, leader):
                assert await member.node.read_barrier(DEADLINE_S) >= index
                assert member.commands[-1] == b"%d" % number


async def test_a_lossy_network_loses_no_committed_entry(tmp_path: Path) -> None:
    network = memory(drop=0.0, delay_s=(0.0, 0.005))
    async with Cluster(tmp_path, 3, network=network) as cluster:
        await cluster.start_all()
        await cluster.leader()
        network.drop = 0.1
        acknowledged = []
        for number in range(40):
            member = cluster.members[NodeId(number % 3 + 1)]
            try:
                await member.node.propose(b"%d" % number, 1)
            except (ProposalUnknown, ProposalRefused):
                continue
            acknowledged.append(b"%d" % number)
        network.drop = 0.0
        assert len(acknowledged) > 20
        leader = await cluster.leader()
        await leader.node.propose(b"end", DEADLINE_S)
        await cluster.applied(leader.commands)
        assert [c for c in leader.commands if c in acknowledged] == acknowledged


async def test_leadership_is_transferred(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        target = others(cluster, leader)[0]
        with pytest.raises(ProposalRefused):
            target.node.transfer(leader.settings.node)
        leader.node.transfer(target.settings.node)
        await wait_for_async(
            lambda: leader.node.leader() == target.settings.node, DEADLINE_S, "it has moved"
        )
        await leader.node.propose(b"through the new one", DEADLINE_S)


async def test_too_large_a_proposal_is_refused_everywhere_and_the_largest_passes(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for member in cluster.members.values():
            with pytest.raises(ProposalRefused) as refused:
                await member.node.propose(bytes(ENTRY_BYTES_MAX + 1), DEADLINE_S)
            assert refused.value.reason == "too_large"
        largest = bytes(ENTRY_BYTES_MAX)
        for member in (leader, others(cluster, leader)[0]):
            await member.node.propose(largest, DEADLINE_S)
        await cluster.applied([largest, largest])


async def test_a_lease_is_granted_renewed_and_released(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        holder = others(cluster, leader)[0]
        granter = leader.node.granter
        await wait_for_async(
            lambda: granter.may_move_at() is not None, DEADLINE_S, "the leader can tell"
        )
        grant = Grant(
            holder=holder.settings.node, epoch=1, ttl_ns=1_000_000_000, payload=b"timeline 2"
        )
        index = await leader.node.propose_grant(grant, DEADLINE_S)
        await wait_for_async(lambda: holder.node.holder.epoch == 1, DEADLINE_S, "it is known")
        assert holder.entries[index - 1].grant == grant
        assert holder.node.holder.deadline_ns == 0
        assert holder.node.holder.renew()
        await wait_for_async(
            lambda: holder.node.holder.deadline_ns > 0, DEADLINE_S, "the renewal is confirmed"
        )
        with pytest.raises(ProposalRefused) as running:
            await leader.node.propose_grant(
                Grant(holder=leader.settings.node, epoch=2, ttl_ns=1), DEADLINE_S
            )
        assert running.value.reason == "lease_running"
        assert holder.node.holder.release(b"end of WAL")
        assert holder.node.holder.released_epoch == 1
        await wait_for_async(
            lambda: granter.released(1) == b"end of WAL", DEADLINE_S, "the release arrives"
        )
        assert not leader.node.holder.renew(), "who holds nothing renews nothing"
        await leader.node.propose_grant(
            Grant(holder=leader.settings.node, epoch=2, ttl_ns=1_000_000_000), DEADLINE_S
        )
        assert leader.node.holder.epoch == 2
        granter.seal(2)
        leader.node.holder.renew()
        await leader.node.read_barrier(DEADLINE_S)
        assert leader.node.holder.deadline_ns == 0, "a sealed epoch is not renewed"
        granter.unseal()
        leader.node.holder.renew()
        await wait_for_async(
            lambda: leader.node.holder.deadline_ns > 0, DEADLINE_S, "it is renewed again"
        )


class FailingDisk(CountingDisk):
    """Real files, until `broken`: then every sync fails."""

    def __init__(self, disk: Disk, broken: list[bool]) -> None:
        super().__init__(disk, [0])
        self.broken = broken

    def open(self, name: str) -> DiskFile:
        return FailingFile(self.disk.open(name), self.broken)


class FailingFile(CountingFile):
    def __init__(self, file: DiskFile, broken: list[bool]) -> None:
        super().__init__(file, [0])
        self.broken = broken

    def sync(self) -> None:
        if self.broken[0]:
            raise OSError(errno.EIO, "injected")
        self.file.sync()


async def test_a_failing_disk_stops_the_member_and_the_others_go_on(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        broken = {number: [False] for number in cluster.settings}
        for number, settings in cluster.settings.items():
            settings.wrap_disk = partial(FailingDisk, broken=broken[number])
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"good", DEADLINE_S)
        broken[leader.settings.node][0] = True
        with pytest.raises((ProposalUnknown, ProposalRefused)):
            await leader.node.propose(b"on a broken disk", DEADLINE_S)
        with pytest.raises(NodeFailed) as failed:
            await asyncio.wait_for(leader.node.watch(), DEADLINE_S)
        assert isinstance(failed.value.__cause__, WalFailed)
        assert isinstance(leader.failures[0], WalFailed)
        assert len(leader.failures) == 1
        with pytest.raises(ProposalRefused):
            await leader.node.propose(b"after", 0.1)
        with pytest.raises(ReadFailed):
            await leader.node.read_barrier(0.1)
        rest = {m.settings.node for m in others(cluster, leader)}
        successor = await cluster.leader(rest)
        await successor.node.propose(b"without it", DEADLINE_S)
        broken[leader.settings.node][0] = False
        await cluster.stop(leader.settings.node)
        await cluster.start(leader.settings.node)
        await cluster.formed()
        await wait_for_async(
            lambda: all(m.commands[-1:] == [b"without it"] for m in cluster.members.values()),
            DEADLINE_S,
            "the repaired member catches up",
        )
        assert all(m.commands == successor.commands for m in cluster.members.values())


async def test_an_apply_that_fails_stops_the_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()

        def fail(entry: object) -> None:
            raise RuntimeError("a bug in apply")

        leader.node._hooks = type(leader.node._hooks)(apply=fail, on_failed=leader.failures.append)
        with pytest.raises(ProposalUnknown, match="a bug in apply"):
            await leader.node.propose(b"x", DEADLINE_S)
        assert str(leader.failures[0]) == "a bug in apply"
        assert "a bug in apply" in caplog.text


async def test_rot_in_the_log_refuses_to_start(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for number in range(3):
            await leader.node.propose(b"%d" % number, DEADLINE_S)
        await cluster.stop(1)
        segment = next(cluster.settings[NodeId(1)].directory.glob("*.wal"))
        data = bytearray(segment.read_bytes())
        data[160] ^= 1
        segment.write_bytes(data)
        member = await cluster.start(1)
        await wait_for_async(member.crashed, DEADLINE_S, "it refuses")
        assert isinstance(member.crashed(), WalCorrupt)
        assert str(segment) in str(member.crashed())


async def test_a_started_member_without_its_log_refuses_to_start(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        await cluster.stop(1)
        next(cluster.settings[NodeId(1)].directory.glob("*.wal")).unlink()
        member = await cluster.start(1)
        await wait_for_async(member.crashed, DEADLINE_S, "it refuses")
        assert "missing" in str(member.crashed())


async def test_two_daemons_cannot_share_a_directory(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        with pytest.raises(DirectoryLocked, match="process"):
            Member(cluster.settings[NodeId(1)], None)


async def test_a_pause_of_the_loop_is_measured_and_costs_no_leadership(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        term = leader.node.status().term
        burn(0.5)  # all three stand still, longer than their election timeouts
        await leader.node.propose(b"after the pause", DEADLINE_S)
        await cluster.applied([b"after the pause"])
        assert leader.node.loop_lag.max_ns > 300_000_000
        assert leader.node.status().term == term


def burn(seconds: float) -> None:
    """Keep the loop from turning, as a collection of garbage or a stopped process would."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_calls_beside_raft_travel_over_the_same_channel(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 2) as cluster:
        await cluster.start_all()
        one, two = cluster.members[NodeId(1)], cluster.members[NodeId(2)]

        async def answer(sender: NodeId, payload: bytes) -> bytes:
            return payload.upper()

        two.node.channel.register("shout", answer)
        await wait_for_async(
            lambda: one.channel.transport.linked(NodeId(2)), DEADLINE_S, "they are connected"
        )
        assert await one.node.channel.call(NodeId(2), "shout", b"hi", DEADLINE_S) == b"HI"


async def test_an_overwritten_proposal_is_tried_again_and_never_applied_twice(
    tmp_path: Path,
) -> None:
    """A leader that is cut off holds an entry; the others go on; its entry is overwritten."""
    async with Cluster(tmp_path, 3, network=memory()) as cluster:
        assert cluster.network is not None
        await cluster.start_all()
        leader = await cluster.leader()
        cluster.network.isolate(leader.settings.node)
        proposal = asyncio.ensure_future(leader.node.propose(b"stubborn", DEADLINE_S))
        majority = {m.settings.node for m in others(cluster, leader)}
        await wait_for_async(
            lambda: all(
                m.node.leader() not in (0, leader.settings.node) for m in others(cluster, leader)
            ),
            DEADLINE_S,
            "the others have a leader of their own",
        )
        successor = await cluster.leader(majority)
        await successor.node.propose(b"of the majority", DEADLINE_S)
        cluster.network.heal()
        assert await proposal > Index(0)
        await cluster.applied([b"of the majority", b"stubborn"])
