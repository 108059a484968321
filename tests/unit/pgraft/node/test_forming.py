"""A group forms once: in any order of starts, through any crash, and never a second time."""

import errno
import itertools
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from pgraft.core.types import NodeId, ProposalRefused
from pgraft.identity import Founder, FoundingMember, FoundingRecord, Stage
from pgraft.net.memory import MemoryNetwork
from pgraft.net.transport import Refusal
from pgraft.node import ProposalUnknown
from pgraft.storage.disk import Disk, DiskFile, StorageError
from tests.support.certificates import Authority
from tests.support.pgraft_cluster import DEADLINE_S, Cluster, Member
from tests.support.wait import wait_for_async


class Crash(BaseException):
    """The process dies here."""


@dataclass
class CrashingDisk:
    """Its process dies before or after the durable step at which `countdown` reaches 0.

    The countdown is shared by all runs of the member, so that it dies once.
    """

    disk: Disk
    countdown: list[int]
    after: bool
    dead: bool = False

    def where(self, name: str) -> str:
        return self.disk.where(name)

    def names(self) -> list[str]:
        return self.disk.names()

    def read(self, name: str) -> bytes:
        return self.disk.read(name)

    def open(self, name: str) -> DiskFile:
        return self.disk.open(name)

    def replace(self, name: str, data: bytes) -> None:
        self.countdown[0] -= 1
        self.dead = self.dead or self.countdown[0] == 0
        if self.dead and (self.countdown[0] < 0 or not self.after):
            raise Crash
        self.disk.replace(name, data)
        if self.dead:
            raise Crash

    def rename(self, name: str, new: str) -> None:
        self.disk.rename(name, new)

    def remove(self, name: str) -> None:
        self.disk.remove(name)


def memory() -> MemoryNetwork:
    return MemoryNetwork(random.Random(1))


def ids(cluster: Cluster) -> set[str]:
    return {member.forming.status().cluster_id for member in cluster.members.values()}


async def check_one_group(cluster: Cluster) -> None:
    """One cluster id, and it works."""
    (cluster_id,) = ids(cluster)
    assert len(cluster_id) == 32
    leader = await cluster.leader()
    await leader.node.propose(b"first", DEADLINE_S)
    await cluster.applied([b"first"])
    assert all(m.forming.status().text() == "formed" for m in cluster.members.values())


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_any_order_of_starts_forms_one_group(
    tmp_path: Path, order: tuple[int, ...], over: str
) -> None:
    network = memory() if over == "memory" else None
    async with Cluster(tmp_path, 3, network=network) as cluster:
        for number in order[:2]:
            await cluster.start(number)
        first, second = (cluster.members[NodeId(n)] for n in order[:2])
        await wait_for_async(
            lambda: first.channel.transport.linked(second.settings.node), DEADLINE_S, "two are up"
        )
        # Two of three would be a quorum; but nobody votes before all have stored who belongs.
        waiting = first.forming.status().waiting
        assert first.forming.status().stage is Stage.BLANK
        assert NodeId(order[2]) in waiting
        assert f"node {order[2]}: " in first.forming.status().text()
        await cluster.start(order[2])
        await cluster.formed()
        await check_one_group(cluster)


async def test_a_group_forms_and_works_through_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    async with Cluster(tmp_path, 3) as cluster:
        for node, settings in cluster.settings.items():
            settings.tls = authority.issue(f"one{node}", f"node{node}")
        await cluster.start_all()
        await check_one_group(cluster)


async def test_a_group_of_one_forms_at_once(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1) as cluster:
        await cluster.start_all()
        await check_one_group(cluster)


async def test_a_formed_group_restarts_without_forming(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        await check_one_group(cluster)
        before = ids(cluster)
        for number in (1, 2, 3):
            await cluster.stop(number)
        await cluster.start(2)
        await cluster.formed()  # it needs nobody to know that it has been formed
        await cluster.start_all()
        await cluster.leader()
        await cluster.applied([b"first"])
        assert ids(cluster) == before


# Every durable step of forming (identity, record, log, started) of the lowest node and another.
STEPS = list(itertools.product((1, 3), (1, 2, 3, 4), (False, True)))


@pytest.mark.parametrize(("number", "step", "after"), STEPS)
@pytest.mark.parametrize("over", ["tcp", "memory"])
async def test_a_crash_at_any_step_of_any_member_ends_in_one_group(
    tmp_path: Path, number: int, step: int, after: bool, over: str
) -> None:
    network = memory() if over == "memory" else None
    async with Cluster(tmp_path, 3, network=network) as cluster:
        countdown = [step]
        victim = cluster.settings[NodeId(number)]
        victim.wrap_disk = lambda disk: CrashingDisk(disk, countdown, after)
        for other in {1, 2, 3} - {number}:
            await cluster.start(other)
        await start_until_it_lives(cluster, number, countdown)
        await cluster.formed()
        assert countdown[0] <= 0, "the crash has happened"
        await check_one_group(cluster)


async def start_until_it_lives(cluster: Cluster, number: int, countdown: list[int]) -> None:
    try:
        await cluster.start(number)
    except Crash:  # at its very first step
        await cluster.start(number)
        return
    await wait_for_async(lambda: countdown[0] <= 0, DEADLINE_S, "the crash happens")
    await cluster.stop(number)
    await cluster.start(number)


async def test_everybody_crashing_after_the_record_is_stored_still_forms(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        for number in (1, 2, 3):
            # The identity and the record are stored, then the machine room goes dark.
            cluster.settings[NodeId(number)].wrap_disk = partial(
                CrashingDisk, countdown=[2], after=True
            )
            await cluster.start(number)
        await wait_for_async(cluster.members[NodeId(1)].crashed, DEADLINE_S, "node 1 is dead")
        for number in (1, 2, 3):
            await cluster.stop(number)
            cluster.settings[NodeId(number)].wrap_disk = lambda disk: disk
        await cluster.start_all()
        await check_one_group(cluster)


async def test_a_member_that_missed_the_start_learns_it_from_any_started_one(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        countdown = [3]  # identity and record are stored; it dies before its log
        cluster.settings[NodeId(3)].wrap_disk = lambda disk: CrashingDisk(disk, countdown, False)
        for number in (1, 2, 3):
            await cluster.start(number)
        third = cluster.members[NodeId(3)]
        await wait_for_async(third.crashed, DEADLINE_S, "node 3 dies before it starts")
        await cluster.stop(3)
        await cluster.formed()
        await cluster.stop(1)  # the founder is gone when node 3 comes back
        await cluster.start(3)
        await cluster.formed()
        assert cluster.members[NodeId(3)].forming.status().stage is Stage.STARTED
        await cluster.leader()


async def test_a_wiped_member_of_a_formed_group_never_votes(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        await check_one_group(cluster)
        await cluster.stop(3)
        shutil.rmtree(cluster.settings[NodeId(3)].directory)
        third = await cluster.start(3)
        await wait_for_async(
            lambda: third.forming.status().refused, DEADLINE_S, "it says that it is refused"
        )
        assert third.forming.status().text().startswith("refused: formed group, add it again")
        assert third.started is None
        # The others go on, with or without it.
        await cluster.stop(1)
        with pytest.raises((ProposalUnknown, ProposalRefused)):
            await cluster.members[NodeId(2)].node.propose(b"alone", 1.5)
        assert third.forming.status().stage is Stage.BLANK


async def test_two_wiped_members_cannot_form_a_second_group(tmp_path: Path) -> None:
    """The lowest node and another come back blank and would agree; the third one knows better."""
    async with Cluster(tmp_path, 3) as cluster:
        await cluster.start_all()
        await check_one_group(cluster)
        for number in (1, 2):
            await cluster.stop(number)
            shutil.rmtree(cluster.settings[NodeId(number)].directory)
        one, two = await cluster.start(1), await cluster.start(2)
        await wait_for_async(
            lambda: one.forming.status().refused and two.forming.status().refused,
            DEADLINE_S,
            "both are refused",
        )
        assert one.forming.status().stage is Stage.BLANK
        assert two.forming.status().stage is Stage.BLANK


async def test_a_member_wiped_while_the_group_forms_is_named(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        countdown = [2]
        cluster.settings[NodeId(1)].wrap_disk = lambda disk: CrashingDisk(disk, countdown, True)
        for number in (1, 2, 3):
            await cluster.start(number)
        await wait_for_async(
            cluster.members[NodeId(1)].crashed, DEADLINE_S, "the record is stored on 1"
        )
        for number in (1, 3):
            await cluster.stop(number)
        shutil.rmtree(cluster.settings[NodeId(3)].directory)
        one = await cluster.start(1)
        await cluster.start(3)
        await wait_for_async(
            lambda: "wiped" in one.forming.status().waiting.get(NodeId(3), ""),
            DEADLINE_S,
            "node 1 says what is wrong with node 3",
        )
        assert one.started is None


Change = Callable[[Cluster], None]


def other_name(cluster: Cluster) -> None:
    cluster.settings[NodeId(2)].cluster_name = "prod"


def other_secret(cluster: Cluster) -> None:
    cluster.settings[NodeId(2)].secret = b"not the secret of the others"


def other_list(cluster: Cluster) -> None:
    settings = cluster.settings[NodeId(2)]
    settings.founders = (*settings.founders, Founder(node=NodeId(4), address="127.0.0.1:1"))


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (other_name, "cluster_name", "'prod'.*'test'|'test'.*'prod'"),
        (other_secret, "secret", "different secrets"),
        (other_list, "member_list", "4@127.0.0.1:1"),
    ],
)
async def test_members_that_differ_do_not_form_and_say_in_what(
    tmp_path: Path, change: Change, code: str, text: str
) -> None:
    async with Cluster(tmp_path, 3) as cluster:
        change(cluster)
        seen: list[Refusal] = []
        for number in (1, 2, 3):
            member = await cluster.start(number)
            member.channel.listeners.refused.append(seen.append)
        one = cluster.members[NodeId(1)]
        await wait_for_async(
            lambda: (
                any(r.code == code for r in seen)
                and one.channel.transport.linked(NodeId(3))
                and one.forming.status().waiting.get(NodeId(2), "") not in ("", "no connection")
            ),
            DEADLINE_S,
            "node 1 knows why node 2 is not there",
        )
        why = one.forming.status().waiting[NodeId(2)]
        assert pytest.raises(AssertionError, match=text).matches(AssertionError(why)), why
        assert one.forming.status().stage is Stage.BLANK


async def test_only_the_lowest_node_founds_and_only_what_fits(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 3, network=memory()) as cluster:
        one, two = await cluster.start(1), await cluster.start(2)
        await wait_for_async(lambda: NodeId(1) in two.forming._met, DEADLINE_S, "they have met")
        await check_faults(cluster, one, two)


async def check_faults(cluster: Cluster, one: Member, two: Member) -> None:
    uuids = {m.settings.node: m.forming._identity.uuid for m in (one, two)}
    good = FoundingRecord(
        cluster_id="c" * 32,
        cluster_name="test",
        members=tuple(
            FoundingMember(node=f.node, address=f.address, uuid=uuids.get(f.node, "3" * 32))
            for f in two.settings.founders
        ),
    )
    fault = two.forming._fault
    assert fault(NodeId(1), good) == ""
    assert "only from node 1" in fault(NodeId(3), good)
    assert "'test', not 'prod'" in fault(NodeId(1), replace(good, cluster_name="prod"))
    assert "another member list" in fault(NodeId(1), replace(good, members=good.members[:2]))
    first = replace(good.members[0], uuid="e" * 32)
    forged = replace(good, members=(first, *good.members[1:]))
    assert "another member than the record" in fault(NodeId(1), forged)
    second = replace(good.members[1], uuid="e" * 32)
    stale = replace(good, members=(good.members[0], second, good.members[2]))
    assert "wiped since" in fault(NodeId(1), stale)


async def test_a_node_that_is_not_in_its_own_list_is_refused(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 2, network=memory()) as cluster:
        settings = cluster.settings[NodeId(2)]
        settings.founders = settings.founders[:1]
        member = await cluster.start(2)
        await wait_for_async(member.crashed, DEADLINE_S, "it gives up")
        assert "not in its own member list" in str(member.crashed())


@pytest.mark.parametrize("number", [1, 2])
async def test_a_disk_that_refuses_ends_the_forming_with_its_reason(
    tmp_path: Path, number: int
) -> None:
    async with Cluster(tmp_path, 2) as cluster:
        settings = cluster.settings[NodeId(number)]
        settings.wrap_disk = lambda disk: RefusingDisk(disk, [2], after=False)
        for other in (1, 2):
            await cluster.start(other)
        victim = cluster.members[NodeId(number)]
        await wait_for_async(victim.crashed, DEADLINE_S, "it gives up")
        assert isinstance(victim.crashed(), StorageError)
        assert "cannot be written" in str(victim.crashed())


class RefusingDisk(CrashingDisk):
    """Gives an error where the other one dies."""

    def replace(self, name: str, data: bytes) -> None:
        try:
            super().replace(name, data)
        except Crash:
            raise OSError(errno.ENOSPC, "injected") from None
