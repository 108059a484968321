"""One survivor goes on alone with all it holds; a crash at any step leaves the old or the new."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pgraft.core.types import Entry, EntryKind, Grant, NodeId, Snapshot
from pgraft.identity import Identity, Stage
from pgraft.net.memory import MemoryNetwork
from pgraft.node import Hooks, SnapshotOptions
from pgraft.node.shell import owner_of
from pgraft.recovery import RecoveryRefused, Survivor, recover_alone, resume
from pgraft.storage import identity_file
from pgraft.storage.disk import DirectoryLock, DirectoryLocked, OsDisk
from pgraft.storage.replay import recover
from tests.support.pgraft_cluster import DEADLINE_S, Cluster
from tests.support.ports import free_port
from tests.support.wait import wait_for_async

ONE = NodeId(1)


class Host:
    """What a daemon does while it recovers: build its state from nothing."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.hooks = Hooks(apply=self.apply, snapshot=self.snapshot, restore=self.restore)

    def apply(self, entry: Entry) -> None:
        if entry.kind is EntryKind.COMMAND:
            self.commands.append(entry.data)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.commands)

    def restore(self, snapshot: Snapshot) -> None:
        self.commands[:] = msgspec.msgpack.decode(snapshot.data, type=list[bytes])


def alone(directory: Path, hooks: Hooks | None = None) -> Survivor:
    return recover_alone(
        directory,
        node=ONE,
        cluster_name="test",
        address=f"127.0.0.1:{free_port()}",
        hooks=hooks or Host().hooks,
        stamp="20260101T000000Z",
    )


@pytest.fixture
async def bereft(tmp_path: Path) -> Path:
    """The directory of member 1 of 3, which holds ten commands and an epoch; it does not run."""
    async with Cluster(tmp_path, 3, snapshots=SnapshotOptions(entries=8)) as cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        for number in range(10):
            await leader.node.propose(b"%d" % number, DEADLINE_S)
        grant = Grant(holder=ONE, epoch=1, ttl_ns=1_000_000_000)
        await wait_for_async(
            lambda: leader.node.granter.may_move_at() is not None, DEADLINE_S, "it may grant"
        )
        index = await leader.node.propose_grant(grant, DEADLINE_S)
        await cluster.applied([b"%d" % number for number in range(10)])
        first = cluster.members[ONE]
        durable = first.channel.listeners.durable
        assert durable is not None
        await wait_for_async(
            lambda: first.node.status().epoch == 1 and durable()[1] >= index,
            DEADLINE_S,
            "member 1 has it all on its disk",
        )
        return cluster.settings[ONE].directory


def held(directory: Path) -> tuple[Identity, int]:
    """Whose directory it is, and how far its log goes."""
    identity = identity_file.load(OsDisk(directory), "test", ())
    assert identity is not None
    log, found = recover(OsDisk(directory), owner_of(identity))
    log.close()
    assert found.hard_state.term >= log.durable[0] > 0
    return identity, log.durable[1]


async def check_alone(directory: Path, old: Identity) -> None:
    """The member leads a group of its own, with everything, and takes more."""
    before = recover(OsDisk(directory), owner_of(held(directory)[0]))[1].hard_state.term
    network = MemoryNetwork(random.Random(1))
    cluster = Cluster(directory.parent, 1, network=network, snapshots=SnapshotOptions(entries=8))
    assert cluster.settings[ONE].directory == directory
    async with cluster:
        await cluster.start_all()
        leader = await cluster.leader()
        assert leader.commands[:10] == [b"%d" % number for number in range(10)]
        await leader.node.propose(b"alone", DEADLINE_S)
        status = leader.node.status()
        assert status.config.voters == {1}
        assert (status.epoch, status.holder) == (1, 1)
        assert status.term > before, "terms only grow, also from one group to the next"
        identity = identity_file.load(OsDisk(directory), "test", ())
        assert identity is not None
        assert identity.cluster_id != old.cluster_id
        assert identity.uuid != old.uuid
        assert status.config.peers[0].uuid == identity.uuid
        assert old.uuid in status.config.removed, "whoever comes back is told that it is none"


async def test_the_survivor_goes_on_with_all_it_holds_under_new_ids(bereft: Path) -> None:
    old, last = held(bereft)
    host = Host()
    survivor = alone(bereft, host.hooks)
    assert host.commands == [b"%d" % number for number in range(10)]
    assert (survivor.index, survivor.epoch) == (last, 1)
    assert survivor.identity.stage is Stage.STARTED
    assert held(survivor.aside) == (old, last), "what was is kept"
    assert held(bereft)[1] == last
    await check_alone(bereft, old)


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture(params=["before", "after"])
def dying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The process dies before, or after, the durable step at which the countdown reaches 0."""
    countdown = [0]

    def wrap(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def step(*args: object) -> object:
            countdown[0] -= 1
            here = countdown[0] == 0  # a step may consist of others
            if here and request.param == "before":
                raise Crash
            result = real(*args)
            if here:
                raise Crash
            return result

        monkeypatch.setattr(kind, name, step)

    wrap(OsDisk, "replace")
    wrap(Path, "rename")
    yield countdown
    monkeypatch.undo()


@pytest.mark.parametrize("step", range(1, 14))
async def test_a_crash_at_any_step_leaves_the_old_member_or_the_new_one(
    bereft: Path, dying: list[int], step: int
) -> None:
    old, last = held(bereft)
    dying[0] = step
    try:
        alone(bereft)
    except Crash:
        died = True
    else:
        died = False
        assert step > 9, "a recovery has more steps than that"
    dying[0] = 0
    interrupted = resume(bereft)
    found = held(bereft)
    assert found[1] == last
    if found[0] == old:
        assert not interrupted
        assert died
        alone(bereft)
        found = held(bereft)
    assert found[0].cluster_id != old.cluster_id
    asides = list(bereft.parent.glob("node1.before-*"))
    assert [held(path)[0] for path in asides] == [old]
    await check_alone(bereft, old)


def test_a_running_member_is_left_alone(bereft: Path) -> None:
    lock = DirectoryLock(bereft)
    try:
        with pytest.raises(DirectoryLocked, match="in use by process"):
            alone(bereft)
    finally:
        lock.release()
    assert [path.name for path in bereft.parent.glob("node1*")] == ["node1"]


def test_what_is_no_member_of_a_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecoveryRefused, match="no directory of a member"):
        alone(tmp_path / "none")
    directory = tmp_path / "blank"
    directory.mkdir()
    with pytest.raises(RecoveryRefused, match="does not hold node 1"):
        alone(directory)
    identity_file.load_or_create(OsDisk(directory), ONE, "test", ())
    with pytest.raises(RecoveryRefused, match="does not hold node 1"):
        alone(directory)
    assert not resume(directory)


def test_a_host_without_a_state_or_with_too_large_a_one_is_refused(bereft: Path) -> None:
    host = Host()
    with pytest.raises(RecoveryRefused, match="cannot say"):
        alone(bereft, Hooks(apply=host.apply))
    large = Hooks(apply=host.apply, restore=host.restore, snapshot=lambda: bytes((1 << 20) + 1))
    with pytest.raises(RecoveryRefused, match="does not fit"):
        alone(bereft, large)
    assert [path.name for path in bereft.parent.glob("node1*")] == ["node1"]


def test_an_interrupted_recovery_is_completed_not_repeated(bereft: Path) -> None:
    alone(bereft)
    bereft.rename(bereft.with_name("node1.recovered"))
    with pytest.raises(RecoveryRefused, match="complete now"):
        alone(bereft)
    assert held(bereft)[0].stage is Stage.STARTED
