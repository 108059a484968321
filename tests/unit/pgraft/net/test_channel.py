"""Casts, and calls with their answers, errors, deadlines and bounds."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from pgraft.core.types import Heartbeat, Index, Message, NodeId, Term
from pgraft.identity import Founder, Identity
from pgraft.net import channel as channels
from pgraft.net.channel import CallRefused, Channel, PeerLost, PeerUnavailable
from pgraft.net.memory import MemoryNetwork
from pgraft.net.transport import Refusal, Refusals
from pgraft.wire import PAYLOAD_BYTES_MAX, CallError, Reply
from tests.support.wait import wait_for_async

FOUNDERS = tuple(Founder(node=NodeId(n), address=f"h{n}:1") for n in (1, 2))
ONE, TWO = NodeId(1), NodeId(2)


class Pair:
    def __init__(self) -> None:
        self.network = MemoryNetwork(random.Random(0))
        self.one, self.two = (
            Channel(
                node,
                self.network.transport(
                    Identity(node=node, uuid=f"{node}" * 32, cluster_name="test", founders=FOUNDERS)
                ),
            )
            for node in (ONE, TWO)
        )


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    await made.one.start()
    await made.two.start()
    yield made
    await made.one.close()
    await made.two.close()


async def echo(sender: NodeId, payload: bytes) -> bytes:
    return b"%d:" % sender + payload


async def test_a_call_is_answered_also_by_this_node_itself(pair: Pair) -> None:
    for channel in (pair.one, pair.two):
        channel.register("echo", echo)
    assert await pair.one.call(TWO, "echo", b"x", 5) == b"1:x"
    assert await pair.one.call(ONE, "echo", b"x", 5) == b"1:x"


async def test_a_cast_arrives_without_an_answer(pair: Pair) -> None:
    seen: list[tuple[NodeId, bytes]] = []
    pair.two.register_cast("note", lambda sender, payload: seen.append((sender, payload)))
    pair.one.register_cast("note", lambda sender, payload: seen.append((sender, payload)))
    assert pair.one.cast(TWO, "note", b"a")
    assert pair.one.cast(TWO, "nobody listens", b"b")
    assert pair.one.cast(ONE, "note", b"self")
    assert not pair.one.cast(NodeId(9), "note", b"c")
    await wait_for_async(lambda: len(seen) == 2, 5, "both casts")
    assert seen == [(1, b"self"), (1, b"a")]


async def test_errors_travel_as_code_and_text(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(sender: NodeId, payload: bytes) -> bytes:
        raise CallRefused("too_large", "at most 3")

    async def fail(sender: NodeId, payload: bytes) -> bytes:
        raise KeyError("a bug")

    pair.two.register("refuse", refuse)
    pair.two.register("fail", fail)
    for method, code in (
        ("refuse", "too_large"),
        ("fail", "internal"),
        ("unheard of", "unknown_method"),
    ):
        with pytest.raises(CallRefused) as refused:
            await pair.one.call(TWO, method, b"", 5)
        assert refused.value.code == code
    assert "a bug" in caplog.text
    with pytest.raises(CallRefused, match="unheard of"):
        await pair.one.call(ONE, "unheard of", b"", 5)


async def test_no_answer_in_time_is_lost_and_a_late_one_harms_nobody(pair: Pair) -> None:
    release = asyncio.Event()

    async def slow(sender: NodeId, payload: bytes) -> bytes:
        await release.wait()
        return b"late"

    pair.two.register("slow", slow)
    pair.two.register("echo", echo)
    pair.one.register("slow", slow)
    with pytest.raises(PeerLost, match="did not answer slow"):
        await pair.one.call(TWO, "slow", b"", 0.05)
    with pytest.raises(PeerLost):
        await pair.one.call(ONE, "slow", b"", 0.05)
    release.set()
    assert await pair.one.call(TWO, "echo", b"y", 5) == b"1:y"


async def test_an_answer_from_another_peer_or_to_another_call_is_ignored(pair: Pair) -> None:
    started = asyncio.Event()

    async def slow(sender: NodeId, payload: bytes) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    pair.two.register("slow", slow)
    call = asyncio.ensure_future(pair.one.call(TWO, "slow", b"", 0.3))
    await started.wait()
    (call_id,) = pair.one._waiting
    pair.one.on_frame(NodeId(3), Reply(id=call_id, payload=b"forged"))
    pair.one.on_frame(NodeId(3), CallError(id=call_id, code="x", message="forged"))
    pair.one.on_frame(TWO, Reply(id=call_id + 1, payload=b"another"))
    with pytest.raises(PeerLost):
        await call


async def test_a_lost_connection_ends_its_calls_at_once(pair: Pair) -> None:
    started = asyncio.Event()

    async def slow(sender: NodeId, payload: bytes) -> bytes:
        started.set()
        await asyncio.Event().wait()
        return b""

    pair.two.register("slow", slow)
    links: list[tuple[NodeId, bool]] = []
    pair.one.listeners.link = lambda peer, up: links.append((peer, up))
    call = asyncio.ensure_future(pair.one.call(TWO, "slow", b"", 60))
    await started.wait()
    await pair.two.close()
    with pytest.raises(PeerLost, match="connection to node 2 was lost"):
        await call
    assert links == [(TWO, False)]
    with pytest.raises(PeerUnavailable):
        await pair.one.call(TWO, "slow", b"", 5)


async def test_calls_are_bounded_on_both_sides(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "OUTSTANDING_MAX", 3)
    monkeypatch.setattr(channels, "SERVED_MAX", 2)
    release = asyncio.Event()

    async def slow(sender: NodeId, payload: bytes) -> bytes:
        await release.wait()
        return payload

    pair.two.register("slow", slow)
    calls = [asyncio.ensure_future(pair.one.call(TWO, "slow", b"", 20)) for _ in range(2)]
    await wait_for_async(lambda: len(pair.two._served) == 2, 5, "two calls are being served")
    with pytest.raises(CallRefused) as busy:
        await pair.one.call(TWO, "slow", b"", 20)
    assert busy.value.code == "busy"
    third = asyncio.ensure_future(pair.one.call(TWO, "slow", b"", 20))
    with pytest.raises(PeerUnavailable, match="already wait"):
        await asyncio.gather(pair.one.call(TWO, "a", b"", 1), pair.one.call(TWO, "b", b"", 1))
    release.set()
    await asyncio.gather(*calls)
    await asyncio.wait([third])
    assert isinstance(third.exception(), CallRefused)


async def test_too_long_a_payload_or_name_is_the_callers_mistake(pair: Pair) -> None:
    with pytest.raises(ValueError, match="payload"):
        pair.one.cast(TWO, "m", bytes(PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="method"):
        await pair.one.call(TWO, "m" * 1000, b"", 1)
    assert pair.one.cast(TWO, "m", bytes(PAYLOAD_BYTES_MAX))


async def test_an_answer_that_is_too_long_is_an_error_of_the_answerer(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def huge(sender: NodeId, payload: bytes) -> bytes:
        return bytes(PAYLOAD_BYTES_MAX + 1)

    pair.two.register("huge", huge)
    with pytest.raises(CallRefused, match="payload"):
        await pair.one.call(TWO, "huge", b"", 5)
    assert "payload" in caplog.text


async def test_raft_messages_go_to_raft_and_are_dropped_before_it_is_there(pair: Pair) -> None:
    seen: list[tuple[NodeId, Message]] = []
    beat = Heartbeat(term=Term(1), commit=Index(0), round=1)
    pair.two.on_frame(ONE, beat)
    pair.two.listeners.raft = lambda sender, message: seen.append((sender, message))
    pair.one.transport.send(TWO, beat)
    await wait_for_async(lambda: seen, 5, "the message arrives")
    assert seen == [(ONE, beat)]


async def test_a_cut_network_loses_frames_silently_until_it_heals(pair: Pair) -> None:
    pair.two.register("echo", echo)
    pair.network.isolate(TWO)
    with pytest.raises(PeerLost):
        await pair.one.call(TWO, "echo", b"", 0.05)
    pair.network.heal()
    assert await pair.one.call(TWO, "echo", b"", 5) == b"1:"


def test_a_refused_connection_is_logged_once_a_minute_and_always_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0]
    refusals = Refusals(lambda: now[0])
    refusal = Refusal(node=TWO, code="secret", text="different secrets", by_peer=False)
    for second in range(0, 121, 10):
        now[0] = second * 1_000_000_000
        refusals.note(refusal)
    assert refusals.counts() == {"secret": 13}
    assert len(caplog.records) == 3
    assert "different secrets" in caplog.text


def test_a_stranger_cannot_flood_the_log_or_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(lambda: 0)
    for node in range(10_000):
        refusals.note(Refusal(node=NodeId(node), code="unknown_member", text="t", by_peer=False))
    assert refusals.counts() == {"unknown_member": 10_000}
    assert len(caplog.records) <= 256
