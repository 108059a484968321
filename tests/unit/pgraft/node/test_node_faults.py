"""Members in trouble: they stop rather than lie, refuse to start on damage, and survive a pause."""

import asyncio
import errno
import threading
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

from pgraft.core.types import NO_ORIGIN, NodeId, ProposalRefused, Role, Timing
from pgraft.net.channel import CallRefused
from pgraft.net.transport import Refusal
from pgraft.node import NodeFailed, ProposalUnknown, ReadFailed, boottime_ns
from pgraft.storage.disk import DirectoryLocked, Disk, DiskFile
from pgraft.storage.wal import WalCorrupt, WalFailed
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.pgraft_disk import CountingDisk, CountingFile
from tests.support.wait import wait_for_async


def others(cluster: Cluster, member: Member) -> list[Member]:
    return [m for m in cluster.members.values() if m is not member]


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


class SlowDisk(CountingDisk):
    """Real files whose syncs wait for `gate`."""

    def __init__(self, disk: Disk, gate: threading.Event) -> None:
        super().__init__(disk, [0])
        self.gate = gate

    def open(self, name: str) -> DiskFile:
        return SlowFile(self.disk.open(name), self.gate)


class SlowFile(CountingFile):
    def __init__(self, file: DiskFile, gate: threading.Event) -> None:
        super().__init__(file, [0])
        self.gate = gate

    def sync(self) -> None:
        self.gate.wait(DEADLINE_S)
        self.file.sync()


async def test_nothing_is_acknowledged_before_its_sync_and_beats_never_wait_for_one(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        gates = {number: threading.Event() for number in cluster.settings}
        for number, settings in cluster.settings.items():
            gates[number].set()
            settings.wrap_disk = partial(SlowDisk, gate=gates[number])
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"quick", DEADLINE_S)
        followers = others(cluster, leader)
        await wait_for_async(
            lambda: all(m.commands == [b"quick"] for m in followers), DEADLINE_S, "all have it"
        )
        term = leader.node.status().term
        try:
            for follower in followers:
                gates[follower.settings.node].clear()
            # Both followers have the entry, but not on disk: it must not count. Meanwhile, for
            # several election timeouts, their answers to beats keep the leader in office.
            with pytest.raises(ProposalUnknown):
                await leader.node.propose(b"slow", 1.5)
            assert leader.commands == [b"quick"]
            assert all(m.node.status().last_index > leader.entries[-1].index for m in followers)
            assert leader.node.leader() == leader.settings.node
            assert leader.node.status().term == term
        finally:
            for gate in gates.values():
                gate.set()
        await cluster.applied([b"quick", b"slow"])


class FullDisk(FailingDisk):
    """Real files, until `broken`: then there is no room for a write."""

    def open(self, name: str) -> DiskFile:
        return FullFile(self.disk.open(name), self.broken)


class FullFile(FailingFile):
    def write(self, offset: int, data: bytes) -> None:
        if self.broken[0]:
            raise OSError(errno.ENOSPC, "injected")
        self.file.write(offset, data)

    def sync(self) -> None:
        self.file.sync()


async def test_a_leader_with_a_full_disk_gives_up_leading_and_is_whole_once_there_is_room(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        full = {number: [False] for number in cluster.settings}
        for number, settings in cluster.settings.items():
            settings.wrap_disk = partial(FullDisk, broken=full[number])
        await cluster.start_all()
        leader = await cluster.leader()
        me = leader.settings.node
        await leader.node.propose(b"good", DEADLINE_S)
        full[me][0] = True
        await leader.node.propose(b"on a full disk", DEADLINE_S)  # the others have room
        successor = await cluster.leader({m.settings.node for m in others(cluster, leader)})
        for count in range(20):
            await successor.node.propose(b"%d" % count, DEADLINE_S)
        status = leader.node.status()
        assert status.disk == "full"
        assert status.role is not Role.LEADER
        assert "stepped down: disk full" in [note.reason for note in status.elections]
        assert not leader.failures, "nothing is lost: it waits"
        # It grants no vote: with the third one gone too, nobody is elected.
        third = next(m for m in others(cluster, leader) if m is not successor)
        await cluster.stop(third.settings.node)
        with pytest.raises(ProposalUnknown):
            await successor.node.propose(b"alone", 1.0)
        full[me][0] = False
        await cluster.leader()
        await wait_for_async(
            lambda: leader.node.status().disk == "ok", DEADLINE_S, "it knows that there is room"
        )
        await cluster.start(third.settings.node)
        await cluster.formed()
        await cluster.applied((await cluster.leader()).commands)
        assert leader.commands[:2] == [b"good", b"on a full disk"]


async def test_the_status_tells_of_elections_pauses_and_the_disk(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.propose(b"x", DEADLINE_S)
        status = leader.node.status()
        assert any(note.reason.startswith("campaign") for note in status.elections)
        median, p99, longest = status.disk_sync_ms
        assert 0 < median <= p99 <= longest
        assert (status.disk, status.clock_suspect) == ("ok", False)
        burn(0.2)
        await wait_for_async(
            lambda: leader.node.status().loop_pause_max_ns > 100_000_000, DEADLINE_S, "it noticed"
        )
        assert leader.node.status().loop_pauses >= 1
        leader.node.step_down("maintenance")
        await wait_for_async(
            lambda: (
                "stepped down: maintenance"
                in [note.reason for note in leader.node.status().elections]
            ),
            DEADLINE_S,
            "it gives up leading, and says why",
        )
        leader.channel.on_refused(Refusal(node=NodeId(9), code="secret", text="no", by_peer=False))
        assert set(leader.node.status().refused) <= {"secret", "not_formed", "duplicate_node"}


async def test_a_clock_that_runs_off_is_told_to_the_core_and_shown(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        # Seen from this one, the clock of decisions runs 20 times too slow.
        cluster.settings[NodeId(1)].raw_clock = lambda: 20 * boottime_ns()
        await cluster.start_all()
        leader = await cluster.leader()
        await wait_for_async(
            lambda: leader.node.status().clock_suspect, DEADLINE_S, "it is noticed"
        )
        assert leader.node.status().clock_off < -0.9
        await leader.node.propose(b"it goes on", DEADLINE_S)


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
    async with Cluster(tmp_path, 3, timing=Timing()) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        term = leader.node.status().term
        burn(1.3)  # all three stand still, longer than the longest election timeout
        await leader.node.propose(b"after the pause", DEADLINE_S)
        await cluster.applied([b"after the pause"])
        assert leader.node.loop_lag.max_ns > 1_000_000_000
        assert leader.node.status().term == term


def burn(seconds: float) -> None:
    """Keep the loop from turning, as a collection of garbage or a stopped process would."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_a_member_that_was_stopped_takes_nothing_more(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        await leader.node.stop()
        command = msgspec.msgpack.encode((b"x", NO_ORIGIN))
        with pytest.raises(CallRefused) as refused:
            await leader.channel.call(NodeId(1), "pgraft.command", command, DEADLINE_S)
        assert refused.value.code == "stopped", "a place in the log would be a lie"
