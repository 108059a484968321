"""Members come and go while the transport runs; who left is told, who lags still hears."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pgraft.core.types import Index, NodeId, PeerRecord, Term
from pgraft.identity import FoundingMember, FoundingRecord, Identity
from pgraft.net.tcp import Address, TcpOptions, TcpTransport, parse_address
from tests.support.pgraft_net import BEAT, DEADLINE_S, SECRET, Net, Sink, linked
from tests.support.ports import free_port_block
from tests.support.wait import wait_for_async

ONE, TWO, THREE, FOUR = (NodeId(n) for n in (1, 2, 3, 4))


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net(3)
    yield made
    for transport in made.open:
        await transport.close()


def joined(net: Net, record: PeerRecord) -> Identity:
    """A member that was admitted later: its record holds the others and itself."""
    own = FoundingMember(
        node=record.node, address=record.address, uuid=record.uuid, since=record.since, voter=False
    )
    others = tuple(m for m in net.record.members if m.node != record.node)
    whole = FoundingRecord(
        cluster_id=net.record.cluster_id, cluster_name="prod", members=(*others, own)
    )
    return replace(net.identity(1), node=record.node, uuid=record.uuid, founders=(), record=whole)


def fourth(since: int = 10) -> PeerRecord:
    (port,) = free_port_block(1)
    return PeerRecord(node=FOUR, uuid="4" * 32, address=f"localhost:{port}", since=Index(since))


async def start_joined(net: Net, record: PeerRecord) -> tuple[TcpTransport, Sink]:
    return await net.start(
        int(record.node), joined(net, record), port=parse_address(record.address).port
    )


async def test_a_new_member_is_dialed_from_then_on(net: Net) -> None:
    one, _ = await net.start(1)
    record = fourth()
    four, sink = await start_joined(net, record)
    await linked((four, 1))
    assert not one.linked(FOUR), "it is not known here yet: it may speak, nobody dials it"
    one.set_peers([*net.peers(1, 2, 3), record], [])
    await linked((one, 4))
    assert one.send(FOUR, BEAT)
    await wait_for_async(lambda: (ONE, BEAT) in sink.frames, DEADLINE_S, "the beat arrives")


async def test_a_removed_member_loses_its_links_and_is_told(net: Net) -> None:
    one, sink_one = await net.start(1)
    two, sink_two = await net.start(2)
    await linked((one, 2), (two, 1))
    one.set_peers(net.peers(1, 3), ["2" * 32])
    assert not one.linked(TWO)
    assert sink_one.links[-1] == (TWO, False)
    assert not one.send(TWO, BEAT)
    await wait_for_async(lambda: "removed" in sink_two.codes(), DEADLINE_S, "node 2 is told")
    told = next(r for r in sink_two.refusals if r.code == "removed")
    assert told.by_peer
    assert told.node == 1
    assert "was removed from cluster 'prod'" in told.text
    await wait_for_async(lambda: not two.linked(ONE), DEADLINE_S, "it does not get in again")
    assert "removed" in sink_one.codes()


async def test_a_member_that_is_no_longer_listed_may_not_connect(net: Net) -> None:
    """As above, before the removal is certain: it is not told anything that it would act upon."""
    one, _ = await net.start(1)
    two, sink = await net.start(2)
    await linked((one, 2), (two, 1))
    one.set_peers(net.peers(1, 3), [])
    await wait_for_async(lambda: "unknown_member" in sink.codes(), DEADLINE_S, "it is refused")
    one.set_peers(net.peers(1, 2, 3), [])
    await linked((one, 2), (two, 1))
    assert "removed" not in sink.codes()


async def test_a_replaced_member_takes_the_place_of_the_former_one(net: Net) -> None:
    one, _ = await net.start(1)
    two, sink_two = await net.start(2)
    await linked((one, 2), (two, 1))
    (port,) = free_port_block(1)
    again = PeerRecord(node=TWO, uuid="e" * 32, address=f"localhost:{port}", since=Index(20))
    _, _ = await start_joined(net, again)
    one.set_peers([*net.peers(1, 3), again], ["2" * 32])
    await wait_for_async(lambda: "removed" in sink_two.codes(), DEADLINE_S, "the former is told")
    await linked((one, 2))
    assert "removed" not in {r.code for r in sink_two.refusals if r.node != 1}


async def test_a_lagging_member_lets_the_later_record_of_a_node_in(net: Net) -> None:
    """Node 1 has not heard of the replacement, whose connection comes while the former's stands."""
    one, sink = await net.start(1)
    two, sink_two = await net.start(2)
    await linked((one, 2), (two, 1))
    (port,) = free_port_block(1)
    again = PeerRecord(node=TWO, uuid="e" * 32, address=f"localhost:{port}", since=Index(20))
    later, _ = await start_joined(net, again)
    await linked((later, 1))
    assert any(peer.uuid == "e" * 32 for peer in sink.peers)
    # And now the former one may not push it out again.
    await wait_for_async(
        lambda: "duplicate_node" in sink_two.codes(), DEADLINE_S, "the former one is refused"
    )
    assert later.linked(ONE)


async def test_a_member_that_moves_is_dialed_at_its_new_address(net: Net) -> None:
    one, sink = await net.start(1)
    two, _ = await net.start(2)
    await linked((one, 2), (two, 1))
    await two.close()
    await wait_for_async(lambda: sink.links[-1] == (TWO, False), DEADLINE_S, "node 2 is down")
    (port,) = free_port_block(1)
    two, _ = await net.start(2, port=port)
    moved = replace(net.peers(2)[0], address=f"localhost:{port}")
    one.set_peers([*net.peers(1, 3), moved], [])
    await linked((one, 2))


async def test_an_address_that_cannot_be_dialed_costs_only_itself(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = await net.start(1)
    await net.start(2)
    odd = PeerRecord(node=FOUR, uuid="4" * 32, address="nonsense", since=Index(3))
    one.set_peers([*net.peers(1, 2), odd], [])
    await linked((one, 2))
    assert "node 4 cannot be dialed: 'nonsense' is not host:port" in caplog.text
    assert not one.send(FOUR, BEAT)


async def test_a_member_that_lost_what_it_confirmed_is_refused_and_told(net: Net) -> None:
    host = Sink(confirmed={TWO: (Term(3), Index(10))})
    one, _ = await net.start(1, sink=host)
    set_back = Sink(durable=(Term(3), Index(9)))
    two, _ = await net.start(2, sink=set_back)
    await wait_for_async(lambda: "regressed" in set_back.codes(), DEADLINE_S, "node 2 is told")
    assert not two.linked(ONE)
    assert one.refusals()["regressed"] >= 1
    set_back.durable = (Term(3), Index(10))
    await linked((two, 1))


async def test_where_it_listens_need_not_be_where_it_is_dialed(net: Net) -> None:
    """Bind address and advertised address differ: all interfaces here, a name there."""
    record = fourth()
    options = TcpOptions(
        listen=Address(host="0.0.0.0", port=parse_address(record.address).port),
        peers={},
        secret=SECRET,
    )
    four = TcpTransport(joined(net, record), options, random.Random(4))
    await four.start(Sink())
    net.open.append(four)
    one, _ = await net.start(1)
    one.set_peers([*net.peers(1), record], [])
    await linked((one, 4))


async def test_a_name_is_looked_up_again_at_each_connection(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = await net.start(1)
    two, _ = await net.start(2)
    await linked((one, 2))
    loop = asyncio.get_running_loop()
    looked: list[object] = []
    look_up = loop.getaddrinfo

    async def counted(host: str, *args: object, **more: object) -> object:
        looked.append(host)
        return await look_up(host, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", counted)
    await two.close()
    two, _ = await net.start(2)
    await linked((one, 2))
    assert "localhost" in looked


async def test_set_peers_before_the_start_is_what_is_dialed(net: Net) -> None:
    await net.start(2)
    options = TcpOptions(
        listen=Address(host="127.0.0.1", port=net.ports[0]), peers={}, secret=SECRET
    )
    one = TcpTransport(net.identity(1), options, random.Random(1))
    one.set_peers(net.peers(1, 2), [])
    await one.start(Sink())
    net.open.append(one)
    await linked((one, 2))


async def test_who_is_removed_during_its_hello_does_not_get_in(net: Net) -> None:
    """The host changes the roster while it is asked; the connection must not outlive it."""

    class Removing(Sink):
        def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
            one.set_peers(net.peers(1, 3), ["2" * 32])
            return False

    host = Removing()
    one, _ = await net.start(1, sink=host)
    one.set_peers(net.peers(1, 3, 2), [])
    two, sink = await net.start(2, sink=Sink(durable=(Term(1), Index(1))))
    await wait_for_async(lambda: "removed" in sink.codes(), DEADLINE_S, "the next one tells it")
    assert not one._listener._accepted
    assert not two.linked(ONE)


async def only_listening(net: Net, node: int, sink: Sink) -> TcpTransport:
    """A member that dials nobody."""
    options = TcpOptions(
        listen=Address(host="127.0.0.1", port=net.ports[node - 1]), peers={}, secret=SECRET
    )
    transport = TcpTransport(net.identity(node), options, random.Random(node))
    await transport.start(sink)
    net.open.append(transport)
    return transport


def replaced(net: Net) -> tuple[PeerRecord, ...]:
    """Node 2 is another member now, at the same address."""
    (one, two) = net.peers(1, 2)
    return (one, replace(two, uuid="e" * 32, since=Index(20)))


async def test_a_link_to_who_was_replaced_at_its_address_ends(net: Net) -> None:
    await only_listening(net, 2, Sink())
    one, sink = await net.start(1)
    await linked((one, 2))
    one.set_peers(replaced(net), [])
    await wait_for_async(lambda: not one.linked(TWO), DEADLINE_S, "the link ends")
    await wait_for_async(
        lambda: "member_uuid" in sink.codes(), DEADLINE_S, "the former one is named"
    )


async def test_who_is_replaced_during_the_hello_is_not_linked(net: Net) -> None:
    """The dialer's roster changes while the other side is asked."""

    class Replacing(Sink):
        def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
            one.set_peers(replaced(net), [])
            return False

    await only_listening(net, 2, Replacing())
    sink = Sink(durable=(Term(1), Index(1)))
    one, _ = await net.start(1, sink=sink)
    await wait_for_async(
        lambda: "member_uuid" in sink.codes(), DEADLINE_S, "the next hello refuses it"
    )
    assert sink.peers == []
    assert (TWO, True) not in sink.links
