"""Real sockets: who gets in, what is queued, what happens when a peer goes away."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from pgraft.core.types import (
    Append,
    Entry,
    EntryKind,
    Index,
    NodeId,
    Term,
)
from pgraft.identity import (
    FoundingRecord,
    Identity,
    Stage,
)
from pgraft.net import connection as connections
from pgraft.net import listener as listeners
from pgraft.net.tcp import Address, parse_address
from pgraft.net.transport import ListenError
from pgraft.wire import Cast, Frame, encode
from tests.support.pgraft_net import BEAT, DEADLINE_S, Net, linked
from tests.support.ports import free_port_block
from tests.support.wait import wait_for_async


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net(3)
    yield made
    for transport in made.open:
        await transport.close()


async def test_frames_flow_both_ways_in_order(net: Net) -> None:
    one, sink_one = await net.start(1)
    two, sink_two = await net.start(2)
    await linked((one, 2), (two, 1))
    frames: list[Frame] = [Cast(method="m", payload=bytes([n]) * n * 100) for n in range(50)]
    for frame in frames:
        assert one.send(NodeId(2), frame)
    assert two.send(NodeId(1), BEAT)
    await wait_for_async(
        lambda: len(sink_two.frames) == 50 and sink_one.frames, DEADLINE_S, "all arrive"
    )
    assert sink_two.frames == [(NodeId(1), frame) for frame in frames]
    assert sink_one.frames == [(NodeId(2), BEAT)]
    assert (NodeId(2), True) in sink_one.links
    assert {(peer.node, peer.cluster_id) for peer in sink_one.peers} == {(2, "c" * 32)}


async def test_a_peer_that_goes_and_comes_back_is_noticed_both_times(net: Net) -> None:
    one, sink = await net.start(1)
    two, _ = await net.start(2)
    await linked((one, 2))
    await two.close()
    await wait_for_async(lambda: not one.linked(NodeId(2)), DEADLINE_S, "the link is down")
    assert sink.links[-1] == (NodeId(2), False)
    assert not one.send(NodeId(2), BEAT)
    two, sink_two = await net.start(2)
    await linked((one, 2))
    assert sink.links[-1] == (NodeId(2), True)
    one.send(NodeId(2), BEAT)
    await wait_for_async(lambda: sink_two.frames, DEADLINE_S, "frames flow again")


async def test_nobody_there_is_told_once_as_down(net: Net) -> None:
    one, sink = await net.start(1)
    await wait_for_async(
        lambda: len(sink.links) == 2, DEADLINE_S, "both refused connections are reported"
    )
    assert sorted(sink.links) == [(NodeId(2), False), (NodeId(3), False)]
    assert not one.linked(NodeId(2))


Alter = Callable[[Identity], Identity]
WRONG: dict[str, Alter] = {
    "cluster_name": lambda i: replace(i, cluster_name="test"),
    "cluster_id": lambda i: replace(i, record=replace(_record(i), cluster_id="d" * 32)),
    "member_uuid": lambda i: replace(i, uuid="f" * 32),
    "formed_group": lambda i: replace(i, stage=Stage.BLANK, record=None),
}


def _record(identity: Identity) -> FoundingRecord:
    assert identity.record is not None
    return identity.record


@pytest.mark.parametrize("code", WRONG)
async def test_who_does_not_belong_is_refused_by_name_on_both_sides(net: Net, code: str) -> None:
    one, sink_one = await net.start(1)
    two, sink_two = await net.start(2, WRONG[code](net.identity(2)))
    await wait_for_async(
        lambda: code in sink_one.codes() and code in sink_two.codes(),
        DEADLINE_S,
        "both sides say why",
    )
    assert not one.linked(NodeId(2))
    assert not two.linked(NodeId(1))
    assert one.refusals()[code] >= 1
    assert any(r.node == 2 for r in sink_one.refusals if r.code == code)
    assert not sink_one.peers
    assert not sink_two.peers


async def test_a_wrong_secret_is_refused_by_name(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    one, sink = await net.start(1)
    _, sink_two = await net.start(2, secret=b"another secret of 16")
    await wait_for_async(lambda: "secret" in sink.codes(), DEADLINE_S, "the acceptor refuses")
    await wait_for_async(lambda: "secret" in sink_two.codes(), DEADLINE_S, "the dialer hears it")
    assert not one.linked(NodeId(2))
    assert "node 1 and node 2 have different secrets" in caplog.text


async def test_the_same_cause_is_logged_once_however_often_it_is_tried(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = await net.start(1)
    await net.start(2, secret=b"another secret of 16")
    await wait_for_async(
        lambda: one.refusals().get("secret", 0) >= 4, DEADLINE_S, "it is tried again and again"
    )
    said = [r for r in caplog.records if "(secret)" in r.message and "peer refused" in r.message]
    assert len(said) <= 2, "once by each side"


async def test_a_second_daemon_with_one_node_id_is_refused(net: Net) -> None:
    one, sink = await net.start(1, blank(net, 1))
    await net.start(2, blank(net, 2))
    await linked((one, 2))
    again = replace(blank(net, 2), uuid="e" * 32)
    _, other = await net.start(2, again, port=free_port_block(1)[0])
    await wait_for_async(
        lambda: "duplicate_node" in sink.codes() and "duplicate_node" in other.codes(),
        DEADLINE_S,
        "the second one is refused",
    )
    text = next(r.text for r in sink.refusals if r.code == "duplicate_node")
    assert "node 2 is connected as member 2222" in text
    assert "eeee" in text


def blank(net: Net, node: int) -> Identity:
    return replace(net.identity(node), stage=Stage.BLANK, record=None)


async def test_an_address_that_leads_back_to_oneself_is_refused(net: Net) -> None:
    net.founders = (
        net.founders[0],
        replace(net.founders[1], address=net.founders[0].address),
        net.founders[2],
    )
    _, sink = await net.start(1)
    await wait_for_async(
        lambda: "self_connection" in sink.codes(), DEADLINE_S, "the loop is noticed"
    )


async def test_a_member_that_starts_makes_its_connections_anew(net: Net) -> None:
    one, _ = await net.start(1, blank(net, 1))
    two, sink_two = await net.start(2, blank(net, 2))
    await linked((one, 2), (two, 1))
    for transport, node in ((one, 1), (two, 2)):
        recorded = replace(blank(net, node), stage=Stage.RECORDED, record=net.record)
        transport.set_identity(recorded)
    one.set_identity(net.identity(1))
    await wait_for_async(
        lambda: any(p.stage is Stage.STARTED for p in sink_two.peers),
        DEADLINE_S,
        "the other one learns of it from the next hello",
    )
    two.set_identity(net.identity(2))
    await linked((one, 2), (two, 1))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(100),
        b"\xff" * 100,
        encode(BEAT),
        b"\x00\x00\x00\x05\x01\x81\xa1x\x01",
    ],
)
async def test_garbage_is_cut_off_and_never_reaches_anybody(net: Net, data: bytes) -> None:
    one, sink = await net.start(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", net.ports[0])
    writer.write(data)
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()
    assert sink.frames == []
    assert one.refusals() == {"garbage": 1}


async def test_random_garbage_never_breaks_the_listener(net: Net) -> None:
    one, sink = await net.start(1)
    rng = random.Random(7)
    for _ in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", net.ports[0])
        writer.write(rng.randbytes(rng.randint(1, 5000)))
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            await reader.read()
        writer.close()
    assert sink.frames == []
    two, _ = await net.start(2)
    await linked((one, 2), (two, 1))


async def test_who_says_nothing_is_cut_off(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 0.1)
    one, _ = await net.start(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", net.ports[0])
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()
    assert one.refusals() == {"timeout": 1}


async def test_strangers_cannot_take_all_places(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "UNPROVEN_MAX", 2)
    await net.start(1)
    opened = [await asyncio.open_connection("127.0.0.1", net.ports[0]) for _ in range(3)]
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionResetError):
            assert await opened[0][0].read() == b""
    for _, writer in opened:
        writer.close()


async def test_a_port_in_use_is_named(net: Net) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", net.ports[0]))
        taken.listen()
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{net.ports[0]}"):
            await net.start(1)


async def test_a_peer_that_does_not_read_fills_a_bounded_queue(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = await net.start(1)
    two, sink = await net.start(2)
    await linked((one, 2))
    (accepted,) = two._listener._accepted.values()
    assert accepted._outbox is not None
    transport = accepted._outbox.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    entry = Entry(term=Term(1), index=Index(1), kind=EntryKind.COMMAND, data=bytes(200_000))
    bulk = Append(
        term=Term(1), prev_index=Index(0), prev_term=Term(0), commit=Index(0), entries=(entry,)
    )
    sent = 0
    while one.send(NodeId(2), bulk):
        sent += 1
        assert sent < 1000, "the queue has no bound"
    assert one.dropped() == 1
    # A beat still finds a place, and passes the appends that wait.
    assert one.send(NodeId(2), BEAT)
    transport.resume_reading()
    await wait_for_async(
        lambda: len(sink.frames) == sent + 1, DEADLINE_S, "what was queued arrives"
    )
    assert sink.frames.index((NodeId(1), BEAT)) < sent, "the beat overtook appends"


def test_addresses_are_read_and_refused() -> None:
    assert parse_address("h:1") == Address(host="h", port=1)
    assert parse_address("[::1]:7400") == Address(host="::1", port=7400)
    for text in ("h", ":1", "h:", "h:0", "h:65536", "h:x"):
        with pytest.raises(ValueError, match="host:port"):
            parse_address(text)


async def test_too_short_a_secret_opens_nothing(net: Net) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        await net.start(1, secret=b"short")
