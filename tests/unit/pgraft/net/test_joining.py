"""A blank member joins once: through lost answers, crashes at every step, and only where it may."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pgraft.core.types import Config, Index, NodeId, PeerRecord
from pgraft.identity import FoundingRecord, Identity, JoinAnswer, JoinRequest, Stage
from pgraft.joining import Joining, JoinRefused, JoinTarget, is_joining
from pgraft.net.address import Address, parse_address
from pgraft.net.asking import Asker, TcpAsker
from pgraft.net.channel import Channel
from pgraft.net.memory import MemoryNetwork
from pgraft.net.tls import TlsFiles
from pgraft.storage import wal
from pgraft.storage.disk import StorageError
from pgraft.storage.identity_file import load_or_create, save
from tests.support.certificates import Authority
from tests.support.pgraft_disk import MemoryDisk
from tests.support.pgraft_net import DEADLINE_S, SECRET, Net, Sink
from tests.support.ports import free_port_block
from tests.support.wait import wait_for_async

FOUR = NodeId(4)
MINE = "localhost:7400"


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net(3)
    yield made
    for transport in made.open:
        await transport.close()


class Group:
    """The host's side: admits whoever has the token, after saying "pending" a few times."""

    def __init__(self, net: Net, *, pending: int = 2) -> None:
        self.net = net
        self.pending = pending
        self.admitted: dict[str, Index] = {}
        self.asked = 0

    def answer(self, request: JoinRequest) -> JoinAnswer:
        self.asked += 1
        if request.token != b"good":
            return JoinAnswer.refused("bad_token", "the token of node 4 has expired")
        if self.pending > 0:
            self.pending -= 1
            return JoinAnswer.pending("the entry is not committed yet")
        since = self.admitted.setdefault(request.uuid, Index(10 + len(self.admitted)))
        return JoinAnswer.admitted(self.record(request, since))

    def record(self, request: JoinRequest, since: Index) -> FoundingRecord:
        peer = PeerRecord(
            node=request.node, uuid=request.uuid, address=request.address, since=since
        )
        config = Config(
            voters=frozenset(m.node for m in self.net.record.members),
            learners=frozenset({request.node}),
            peers=(*self.net.record.peers(), peer),
        )
        return FoundingRecord.of(config, cluster_id="c" * 32, cluster_name="prod")


class GroupSink(Sink):
    """Asks the group."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.group = group

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        return self.group.answer(request)


@dataclass
class Scripted:
    """An asker that gives these answers, the last one for ever."""

    answers: list[JoinAnswer]
    seeds: list[Address] = field(default_factory=list)

    async def ask(self, identity: Identity, request: JoinRequest, seed: Address) -> JoinAnswer:
        self.seeds.append(seed)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def blank(disk: MemoryDisk, cluster_name: str = "prod") -> Identity:
    return load_or_create(disk, FOUR, cluster_name, ())


def joining(
    disk: MemoryDisk,
    asker: Asker,
    *seeds: str,
    token: bytes = b"good",
    cluster_name: str = "prod",
) -> Joining:
    target = JoinTarget(
        seeds=tuple(parse_address(seed) for seed in seeds or ("seed:1",)),
        address=MINE,
        token=token,
    )
    return Joining(disk, blank(disk, cluster_name), target, asker, random.Random(1))


async def in_time(joiner: Joining) -> Identity:
    async with asyncio.timeout(DEADLINE_S):
        return await joiner.join()


async def says(joiner: Joining, text: str) -> None:
    await wait_for_async(lambda: text in joiner.status().text(), DEADLINE_S, f"it says: {text}")


def seed(net: Net, node: int = 1) -> str:
    return f"localhost:{net.ports[node - 1]}"


@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_blank_member_is_admitted_and_stores_it(
    net: Net, tmp_path: Path, with_tls: bool
) -> None:
    files: dict[str, TlsFiles | None] = {"one": None, "four": None}
    if with_tls:
        authority = Authority(tmp_path)
        files = {name: authority.issue(name) for name in files}
    group = Group(net)
    await net.start(1, sink=GroupSink(group), tls=files["one"])
    disk = MemoryDisk()
    joiner = joining(disk, TcpAsker(SECRET, files["four"]), seed(net))
    identity = await in_time(joiner)
    disk.crash([])
    assert load_or_create(disk, FOUR, "prod", ()) == identity
    assert identity.stage is Stage.STARTED
    assert identity.since == 10
    assert identity.record is not None
    assert identity.record.config().learners == {FOUR}
    assert identity.record.config().voters == {1, 2, 3}
    assert wal.exists(disk)
    assert joiner.status().text() == "joined"
    assert joiner.status().cluster_id == "c" * 32
    assert group.asked == 3


async def test_a_member_that_cannot_reach_anybody_says_so_and_goes_on(net: Net) -> None:
    disk = MemoryDisk()
    joiner = joining(disk, TcpAsker(SECRET), seed(net, 2), seed(net, 1))
    task = asyncio.ensure_future(joiner.join())
    await says(joiner, "cannot be reached")
    assert joiner.status().text().startswith("joining, waiting: localhost:")
    await net.start(1, sink=GroupSink(Group(net)))
    async with asyncio.timeout(DEADLINE_S):
        assert (await task).stage is Stage.STARTED


async def test_seeds_are_asked_in_turn(net: Net) -> None:
    asker = Scripted([JoinAnswer.pending("wait")])
    task = asyncio.ensure_future(joining(MemoryDisk(), asker, "a:1", "b:2").join())
    await wait_for_async(lambda: len(asker.seeds) >= 4, DEADLINE_S, "four questions")
    task.cancel()
    assert [s.host for s in asker.seeds[:4]] == ["a", "b", "a", "b"]


async def wrong_token(net: Net) -> Joining:
    return joining(MemoryDisk(), TcpAsker(SECRET), seed(net), token=b"bad")


async def wrong_cluster(net: Net) -> Joining:
    return joining(MemoryDisk(), TcpAsker(SECRET), seed(net), cluster_name="test")


async def wrong_secret(net: Net) -> Joining:
    return joining(MemoryDisk(), TcpAsker(b"another secret of 16"), seed(net))


async def used_id(net: Net) -> Joining:
    disk = MemoryDisk()
    target = JoinTarget(seeds=(parse_address(seed(net)),), address=MINE, token=b"good")
    identity = load_or_create(disk, NodeId(1), "prod", ())
    return Joining(disk, identity, target, TcpAsker(SECRET), random.Random(1))


@pytest.mark.parametrize(
    ("make", "code", "text"),
    [
        (wrong_token, "bad_token", "the token of node 4 has expired: invite this node again"),
        (wrong_cluster, "cluster_name", "cluster 'prod' meets cluster 'test'|'test' meets.*'prod'"),
        (wrong_secret, "secret", "different secrets: give this node the secret of the cluster"),
        (used_id, "used_id", "node id 1 is taken"),
    ],
)
async def test_a_refusal_for_good_says_what_to_do(
    net: Net, make: Callable[[Net], object], code: str, text: str
) -> None:
    group = Group(net)
    await net.start(1, sink=GroupSink(group))
    joiner = await make(net)  # type: ignore[misc]
    with pytest.raises(JoinRefused, match=text) as refused:
        await in_time(joiner)
    assert refused.value.code == code
    assert joiner.status().stage is Stage.BLANK
    assert joiner.status().text() == f"refused: {refused.value}"
    assert group.admitted == {}


async def test_a_member_that_still_forms_is_asked_again(net: Net) -> None:
    forming = replace(net.identity(1), stage=Stage.BLANK, record=None)
    transport, _ = await net.start(1, forming, sink=GroupSink(Group(net)))
    joiner = joining(MemoryDisk(), TcpAsker(SECRET), seed(net))
    task = asyncio.ensure_future(joiner.join())
    await says(joiner, "does not belong to a formed group yet")
    transport.set_identity(net.identity(1))
    async with asyncio.timeout(DEADLINE_S):
        assert (await task).stage is Stage.STARTED


async def test_asking_leaves_no_connection_behind(net: Net) -> None:
    one, sink = await net.start(1, sink=GroupSink(Group(net)))
    await in_time(joining(MemoryDisk(), TcpAsker(SECRET), seed(net)))
    await wait_for_async(lambda: not one._listener._all, DEADLINE_S, "it is gone")
    assert sink.peers == [], "an asker is no peer"


async def test_somebody_who_does_not_answer_is_given_up(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgraft.net.asking.ASK_TIMEOUT_S", 0.1)
    (port,) = free_port_block(1)
    writers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, w: writers.append(w), "127.0.0.1", port)
    request = JoinRequest(node=FOUR, uuid="4" * 32, address=MINE, token=b"good")
    identity = blank(MemoryDisk())
    answer = await TcpAsker(SECRET).ask(identity, request, Address(host="127.0.0.1", port=port))
    assert "no answer in time" in answer.text
    silent.close()
    for writer in writers:
        writer.close()


class Crash(BaseException):
    """The process dies here."""


# identity; then, once admitted: record, log, started.
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True])
async def test_a_crash_at_any_step_ends_in_one_member(net: Net, step: int, after: bool) -> None:
    group = Group(net, pending=0)
    network = MemoryNetwork(random.Random(1))
    channel = Channel(NodeId(1), network.transport(net.identity(1)))
    channel.listeners.join = group.answer
    await channel.start()
    disk = MemoryDisk()
    uuid = blank(disk).uuid
    left, replace_file = step, disk.replace

    def dying(name: str, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Crash
        replace_file(name, data)
        if left == 0:
            raise Crash

    disk.replace = dying  # type: ignore[method-assign]
    with pytest.raises(Crash):
        await in_time(joining(disk, network, seed(net)))
    disk.replace = replace_file  # type: ignore[method-assign]
    disk.crash([])
    found = blank(disk)
    was_stored = step > 1 or after
    assert is_joining(found) == (was_stored and found.stage is not Stage.STARTED)
    asked = group.asked
    identity = await in_time(joining(disk, network, seed(net)))
    assert identity.stage is Stage.STARTED
    assert identity.uuid == uuid
    assert group.admitted == {uuid: 10}
    assert (group.asked > asked) == (not was_stored), "a stored record needs nobody"
    await channel.close()


async def test_a_disk_that_refuses_ends_it_with_the_reason(net: Net) -> None:
    disk = MemoryDisk()
    joiner = joining(disk, Scripted([good_answer(net, disk)]))
    disk.fail_at = lambda kind: True
    with pytest.raises(StorageError, match="cannot be written"):
        await in_time(joiner)


def good_answer(net: Net, disk: MemoryDisk) -> JoinAnswer:
    request = JoinRequest(node=FOUR, uuid=blank(disk).uuid, address=MINE, token=b"good")
    return JoinAnswer.admitted(Group(net).record(request, Index(10)))


Alter = Callable[[FoundingRecord], FoundingRecord]


def without_the_asker(record: FoundingRecord) -> FoundingRecord:
    return replace(record, members=record.members[:-1])


def of_another_uuid(record: FoundingRecord) -> FoundingRecord:
    return replace(
        record, members=(*record.members[:-1], replace(record.members[-1], uuid="f" * 32))
    )


def as_a_voter(record: FoundingRecord) -> FoundingRecord:
    return replace(record, members=(*record.members[:-1], replace(record.members[-1], voter=True)))


def without_voters(record: FoundingRecord) -> FoundingRecord:
    return replace(record, members=record.members[-1:])


def of_another_name(record: FoundingRecord) -> FoundingRecord:
    return replace(record, cluster_name="test")


@pytest.mark.parametrize(
    "alter", [without_the_asker, of_another_uuid, as_a_voter, without_voters, of_another_name]
)
async def test_a_record_that_does_not_fit_is_not_stored(net: Net, alter: Alter) -> None:
    disk = MemoryDisk()
    good = good_answer(net, disk)
    assert good.record is not None
    joiner = joining(disk, Scripted([replace(good, record=alter(good.record))]))
    with pytest.raises(JoinRefused, match="the record of the group") as refused:
        await in_time(joiner)
    assert refused.value.code == "bad_record"
    assert blank(disk).stage is Stage.BLANK


async def test_a_member_that_forms_a_group_of_its_own_does_not_join(net: Net) -> None:
    disk = MemoryDisk()
    save(disk, replace(blank(disk), stage=Stage.RECORDED, record=net.record))
    with pytest.raises(ValueError, match="forming a group of its own"):
        await in_time(joining(disk, Scripted([JoinAnswer.pending("")])))
    target = JoinTarget(seeds=(), address=MINE, token=b"")
    with pytest.raises(ValueError, match="nobody to ask"):
        Joining(disk, blank(disk), target, Scripted([]), random.Random(1))
