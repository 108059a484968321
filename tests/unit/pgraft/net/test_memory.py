"""The network in memory keeps the rules of the real one: members come, go, are told."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pgraft.core.types import Heartbeat, Index, Message, NodeId, PeerRecord, Term
from pgraft.identity import (
    FoundingMember,
    FoundingRecord,
    Identity,
    JoinAnswer,
    JoinRequest,
    JoinState,
    Stage,
)
from pgraft.net.address import Address, parse_address
from pgraft.net.channel import Channel
from pgraft.net.memory import MemoryNetwork
from pgraft.net.transport import Refusal
from tests.support.wait import wait_for_async

ONE, TWO, THREE = (NodeId(n) for n in (1, 2, 3))
RECORD = FoundingRecord(
    cluster_id="c" * 32,
    cluster_name="prod",
    members=tuple(
        FoundingMember(node=NodeId(n), address=f"h{n}:1", uuid=str(n) * 32) for n in (1, 2)
    ),
)
PEERS = RECORD.peers()
BEAT = Heartbeat(term=Term(1), commit=Index(0), round=1)


def identity(node: int, uuid: str = "") -> Identity:
    return Identity(
        node=NodeId(node),
        uuid=uuid or str(node) * 32,
        cluster_name="prod",
        founders=(),
        stage=Stage.STARTED,
        record=RECORD,
    )


def later(node: int, since: int, uuid: str) -> Identity:
    own = FoundingMember(
        node=NodeId(node), address=f"h{node}:1", uuid=uuid, since=Index(since), voter=False
    )
    others = tuple(m for m in RECORD.members if m.node != node)
    return replace(identity(node, uuid), record=replace(RECORD, members=(*others, own)))


class Room:
    def __init__(self) -> None:
        self.network = MemoryNetwork(random.Random(0))
        self.channels: list[Channel] = []

    async def enter(self, who: Identity) -> tuple[Channel, list[Refusal]]:
        channel = Channel(who.node, self.network.transport(who))
        seen: list[Refusal] = []
        channel.listeners.refused.append(seen.append)
        await channel.start()
        self.channels.append(channel)
        return channel, seen


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    made = Room()
    yield made
    for channel in made.channels:
        await channel.close()


async def test_a_later_member_speaks_at_once_and_is_dialed_once_it_is_known(room: Room) -> None:
    one, _ = await room.enter(identity(1))
    three, _ = await room.enter(later(3, 5, "3" * 32))
    heard: list[Message] = []
    one.listeners.raft = lambda sender, message: heard.append(message)
    assert three.transport.send(ONE, BEAT)
    await wait_for_async(lambda: heard == [BEAT], 5, "it is heard")
    assert not one.transport.send(THREE, BEAT)
    own = PeerRecord(node=THREE, uuid="3" * 32, address="h3:1", since=Index(5))
    one.transport.set_peers([*PEERS, own], [])
    await wait_for_async(lambda: one.transport.linked(THREE), 5, "it is dialed")


async def test_a_removed_member_is_told_and_cut_off(room: Room) -> None:
    one, _ = await room.enter(identity(1))
    two, seen = await room.enter(identity(2))
    assert one.transport.linked(TWO)
    one.transport.set_peers(PEERS[:1], ["2" * 32])
    await wait_for_async(lambda: "removed" in {r.code for r in seen}, 5, "it is told")
    assert all(r.by_peer for r in seen)
    assert not two.transport.linked(ONE)
    assert not one.transport.linked(TWO)
    one.transport.set_peers(PEERS, [])
    await wait_for_async(lambda: two.transport.linked(ONE), 5, "it is taken back")


async def test_a_member_that_is_not_listed_any_more_is_not_dialed(room: Room) -> None:
    one, _ = await room.enter(identity(1))
    await room.enter(later(2, 5, "e" * 32))
    assert one.transport.linked(TWO)
    one.transport.set_peers(PEERS[:1], [])
    await wait_for_async(lambda: not one.transport.linked(TWO), 5, "the link is gone")


async def test_a_member_that_lost_something_is_told(room: Room) -> None:
    one, _ = await room.enter(identity(1))
    one.listeners.position = lambda peer, term, index: (term, index) < (3, 10)
    two, seen = Channel(TWO, room.network.transport(identity(2))), list[Refusal]()
    two.listeners.refused.append(seen.append)
    two.listeners.durable = lambda: (Term(3), Index(9))
    await two.start()
    room.channels.append(two)
    assert {(r.code, r.by_peer) for r in seen} >= {("regressed", True)}
    assert not two.transport.linked(ONE)


REQUEST = JoinRequest(node=THREE, uuid="3" * 32, address="h3:1", token=b"t")
ASKER = Identity(node=THREE, uuid="3" * 32, cluster_name="prod", founders=())
SEED = parse_address("h1:1")


async def test_asking_to_join(room: Room) -> None:
    one, _ = await room.enter(identity(1))
    ask = room.network.ask
    assert (await ask(ASKER, REQUEST, SEED)).text == "the member that was asked is starting"
    one.listeners.join = lambda request: JoinAnswer.refused("bad_token", str(request.node))
    assert (await ask(ASKER, REQUEST, SEED)).code == "bad_token"
    nobody = await ask(ASKER, REQUEST, Address(host="h9", port=9))
    assert nobody.state is JoinState.PENDING
    other = await ask(replace(ASKER, cluster_name="test"), REQUEST, SEED)
    assert other.code == "cluster_name"
    one.transport.set_peers(PEERS, ["3" * 32])
    assert (await ask(ASKER, REQUEST, SEED)).code == "removed"


async def test_a_blank_member_cannot_be_asked(room: Room) -> None:
    await room.enter(
        replace(identity(1), stage=Stage.BLANK, record=None, founders=RECORD.founders())
    )
    answer = await room.network.ask(ASKER, REQUEST, SEED)
    assert answer.state is JoinState.PENDING
    assert "formed group" in answer.text
