"""Whoever can reach the port: replays, floods, lies about sizes. Counted, and never a crash."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pgraft.core.types import NodeId
from pgraft.identity import Identity, JoinRequest
from pgraft.net import connection as connections
from pgraft.net import listener as listeners
from pgraft.net.handshake import Acceptor, Dialer
from pgraft.net.hello import NONCE_BYTES
from pgraft.net.judge import Presence
from pgraft.wire import (
    BODY_BYTES_MAX,
    PART_BYTES_MAX,
    TRAVELLING_BYTES_MAX,
    Cast,
    encode,
    part,
)
from tests.support.certificates import Authority
from tests.support.pgraft_net import BEAT, DEADLINE_S, SECRET, Net, Sink, linked
from tests.support.wait import wait_for_async


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net(3)
    yield made
    for transport in made.open:
        await transport.close()


class Wire:
    """The raw bytes of one connection, both ways."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @staticmethod
    async def open(port: int) -> "Wire":
        return Wire(*await asyncio.open_connection("127.0.0.1", port))

    async def body(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readexactly(
                int.from_bytes(await self.reader.readexactly(4), "big")
            )

    async def rest(self) -> bytes:
        """Everything until the other side ends it."""
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
        return b""

    def close(self) -> None:
        self.writer.close()


async def speak(net: Net, port: int) -> tuple[Wire, list[bytes]]:
    """As node 2, through the whole hello with node 1; what node 2 has sent."""
    wire = await Wire.open(port)
    side = Dialer(
        Presence.of(net.identity(2)),
        SECRET,
        nonce=random.Random(5).randbytes(NONCE_BYTES),
        expected=NodeId(1),
    )
    sent = [side.begin()]
    wire.writer.write(sent[0])
    proof, _ = side.receive(await wire.body())
    sent.append(proof)
    wire.writer.write(proof)
    _, done = side.receive(await wire.body())
    assert done
    return wire, sent


async def test_a_recorded_dialer_gets_nothing_out_of_it(net: Net) -> None:
    one, sink = await net.start(1)
    wire, sent = await speak(net, net.ports[0])
    frame = encode(BEAT)
    wire.writer.write(frame)
    await wait_for_async(lambda: sink.frames, DEADLINE_S, "the real one is heard")
    wire.close()
    met = len(sink.peers)
    again = await Wire.open(net.ports[0])
    again.writer.write(b"".join([*sent, frame]))
    await again.rest()
    again.close()
    assert len(sink.frames) == 1
    assert len(sink.peers) == met
    assert one.refusals()["secret"] == 1


async def test_a_recorded_acceptor_gets_nothing_out_of_it(net: Net) -> None:
    """Node 1 dials; what answers is a recording of node 2."""
    side = Acceptor(Presence.of(net.identity(2)), SECRET, nonce=bytes(NONCE_BYTES), host=Sink())
    recorded: list[bytes] = []
    played: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while len(recorded) < 2:
                answer, _ = side.receive(await wire.body())
                recorded.append(answer)
                writer.write(answer)
        writer.close()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(recorded))
        played.append(await Wire(reader, writer).rest())
        writer.close()

    server = await asyncio.start_server(record, "127.0.0.1", net.ports[1])
    one, sink = await net.start(1)
    await wait_for_async(lambda: len(sink.peers) == 1, DEADLINE_S, "it is believed while genuine")
    server.close()
    server = await asyncio.start_server(play, "127.0.0.1", net.ports[1])
    await wait_for_async(lambda: played, DEADLINE_S, "the recording is played")
    assert "secret" in sink.codes()
    assert len(sink.peers) == 1
    assert not one.linked(NodeId(2))
    server.close()


@pytest.mark.parametrize(
    "data",
    [
        (TRAVELLING_BYTES_MAX + 1).to_bytes(4, "big"),
        (2**32 - 1).to_bytes(4, "big"),
        bytes(4),
        b"\x00\x00\x00\x03\x01\x20\x00",
        # Parts of a frame that would be longer than any may be.
        part(bytes(BODY_BYTES_MAX + 5), 0)[0],
        # A part that continues nothing.
        part(bytes(200_000), 4 + PART_BYTES_MAX)[0],
        # Parts inside of parts.
        part((14).to_bytes(4, "big") + part(bytes(30), 0)[0][4:18], 0)[0],
    ],
)
async def test_a_member_that_sends_nonsense_is_cut_off(net: Net, data: bytes) -> None:
    one, sink = await net.start(1)
    wire, _ = await speak(net, net.ports[0])
    wire.writer.write(data)
    await wire.rest()
    wire.close()
    assert sink.frames == []
    assert one.refusals()["garbage"] == 1


async def test_a_flood_of_connections_is_counted_and_leaves_room_again(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "UNPROVEN_MAX", 8)
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 0.2)
    one, _ = await net.start(1)
    wires = [await Wire.open(net.ports[0]) for _ in range(40)]
    for wire in wires:
        await wire.rest()
        wire.close()
    assert one.refusals()["flood"] + one.refusals()["timeout"] == 40
    assert one.refusals()["flood"] >= 1
    two, _ = await net.start(2)
    await linked((one, 2), (two, 1))


async def test_a_member_gets_in_although_strangers_hold_all_places(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "UNPROVEN_MAX", 4)
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 3600)
    one, _ = await net.start(1)
    wires = [await Wire.open(net.ports[0]) for _ in range(4)]
    await wait_for_async(lambda: len(one._listener._all) == 4, DEADLINE_S, "all places are taken")
    two, _ = await net.start(2)
    await linked((two, 1))
    assert one.refusals()["flood"] >= 1
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("with_tls", [False, True])
async def test_a_beat_overtakes_a_long_frame(net: Net, tmp_path: Path, with_tls: bool) -> None:
    authority = Authority(tmp_path)
    one, _ = await net.start(1, tls=authority.issue("one") if with_tls else None)
    two, sink = await net.start(2, tls=authority.issue("two") if with_tls else None)
    await linked((one, 2))
    (accepted,) = two._listener._accepted.values()
    transport = accepted._socket.transport
    assert transport is not None
    transport.pause_reading()
    long = Cast(method="m", payload=random.Random(1).randbytes(4_000_000))
    assert one.send(NodeId(2), long)
    assert one.send(NodeId(2), BEAT)
    transport.resume_reading()
    await wait_for_async(lambda: len(sink.frames) == 2, DEADLINE_S, "both arrive")
    assert sink.frames == [(NodeId(1), BEAT), (NodeId(1), long)]


async def test_a_connection_that_comes_while_it_closes_is_not_waited_for(net: Net) -> None:
    """The loop may have accepted it and never make it: then it never ends either."""
    one, _ = await net.start(1)
    wire = await Wire.open(net.ports[0])
    await wait_for_async(lambda: one._listener._all, DEADLINE_S, "the stranger is there")
    closing = asyncio.ensure_future(one.close())
    await wait_for_async(lambda: one._listener._closed, DEADLINE_S, "it is closing")
    one._listener._accept()
    async with asyncio.timeout(DEADLINE_S):
        await closing
    wire.close()


async def test_who_asked_to_join_and_stays_is_sent_away(net: Net) -> None:
    one, sink = await net.start(1)
    wire = await Wire.open(net.ports[0])
    blank = Identity(node=NodeId(4), uuid="4" * 32, cluster_name="prod", founders=())
    request = JoinRequest(node=NodeId(4), uuid="4" * 32, address="h4:1", token=b"t")
    presence = replace(Presence.of(blank), join=request)
    side = Dialer(presence, SECRET, nonce=bytes(NONCE_BYTES), expected=NodeId(0))
    wire.writer.write(side.begin())
    proof, _ = side.receive(await wire.body())
    # A frame in the same breath: it must not be heard.
    wire.writer.write(proof + encode(BEAT))
    _, done = side.receive(await wire.body())
    assert done
    await wire.rest()
    wire.close()
    assert sink.asked == [request]
    assert sink.frames == []
    assert one.refusals() == {}


async def test_what_the_kernel_may_keep_unsent_is_bounded(net: Net) -> None:
    """Else megabytes of a snapshot would wait there, ahead of every beat."""
    one, _ = await net.start(1)
    await net.start(2)
    await linked((one, 2))
    link = one._links.get(NodeId(2))
    assert link is not None
    assert link.connection is not None
    transport = link.connection._socket.transport
    assert transport is not None
    kept = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, 25)
    assert kept == PART_BYTES_MAX
