"""TLS on both sides, by the group's own authority: who gets in, who is refused and why, reload."""

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives import serialization

from pgraft.core.types import Append, Entry, EntryKind, Index, NodeId, Term
from pgraft.net import connection as connections
from pgraft.net.tls import Tls, TlsError, TlsFiles, certified_nodes
from pgraft.wire import Cast, Frame
from tests.support.certificates import Authority
from tests.support.pgraft_net import BEAT, DEADLINE_S, Net, linked
from tests.support.wait import wait_for_async

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net(3)
    yield made
    for transport in made.open:
        await transport.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def long_append(seed: int) -> Append:
    data = random.Random(seed).randbytes(400_000)
    entry = Entry(term=Term(1), index=Index(1), kind=EntryKind.COMMAND, data=data)
    return Append(
        term=Term(1), prev_index=Index(0), prev_term=Term(0), commit=Index(0), entries=(entry,)
    )


async def check_frames_flow(net: Net, authority: Authority) -> None:
    one, _ = await net.start(1, tls=authority.issue("one"))
    two, sink = await net.start(2, tls=authority.issue("two"))
    await linked((one, 2), (two, 1))
    frames: list[Frame] = [long_append(1), Cast(method="m", payload=bytes(3_000_000)), BEAT]
    for frame in frames:
        assert one.send(TWO, frame)
    await wait_for_async(lambda: len(sink.frames) == 3, DEADLINE_S, "all arrive")
    assert {(ONE, frame) for frame in frames} == set(sink.frames)
    assert one.refusals() == {}


async def test_frames_flow_through_tls(net: Net, authority: Authority) -> None:
    await check_frames_flow(net, authority)


def test_frames_flow_through_tls_with_uvloop(authority: Authority) -> None:
    async def check() -> None:
        made = Net(2)
        try:
            await check_frames_flow(made, authority)
        finally:
            for transport in made.open:
                await transport.close()

    uvloop.run(check())


async def test_nothing_of_it_can_be_read_on_the_way(net: Net, authority: Authority) -> None:
    """Through a proxy that keeps what it carries."""
    carried = bytearray()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead, behind = await asyncio.open_connection("127.0.0.1", net.ports[1])

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                carried.extend(data)
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, behind), pump(ahead, writer))

    proxy = await asyncio.start_server(carry, "127.0.0.1", net.ports[2])
    await net.start(2, tls=authority.issue("two"))
    peers = (
        net.peers(1)[0],
        replace(net.peers(2)[0], address=f"localhost:{net.ports[2]}"),
    )
    one, _ = await net.start(1, tls=authority.issue("one"))
    one.set_peers(peers, [])
    await linked((one, 2))
    assert one.send(TWO, Cast(method="m", payload=b"a word that is secret"))
    await wait_for_async(lambda: len(carried) > 1000, DEADLINE_S, "the proxy has carried it")
    assert b"secret" not in carried
    assert net.record.cluster_id.encode() not in carried
    proxy.close()


Files = Callable[[Authority, Path], TlsFiles | None]


def of_another_authority(authority: Authority, directory: Path) -> TlsFiles:
    return replace(Authority(directory, "other").issue("two"), ca=authority.ca)


def none_at_all(authority: Authority, directory: Path) -> None:
    return None


def out_of_date(authority: Authority, directory: Path) -> TlsFiles:
    return authority.issue("two", expired=True)


def for_another_node(authority: Authority, directory: Path) -> TlsFiles:
    return authority.issue("two", "node3", "db3.example")


@pytest.mark.parametrize(
    ("files", "code", "text"),
    [
        (of_another_authority, "tls", "certificate is not accepted: unable to get local issuer"),
        (out_of_date, "tls", "certificate is not accepted: certificate has expired"),
        (none_at_all, "tls", "does not speak TLS: ssl_enabled is on at one side"),
        (for_another_node, "certificate", "node 2 shows a certificate for node3"),
    ],
)
async def test_who_does_not_belong_is_refused_with_the_reason(
    net: Net, authority: Authority, tmp_path: Path, files: Files, code: str, text: str
) -> None:
    one, sink_one = await net.start(1, tls=authority.issue("one"))
    two, sink_two = await net.start(2, tls=files(authority, tmp_path))
    await wait_for_async(
        lambda: any(text in r.text for r in sink_one.refusals), DEADLINE_S, "node 1 says why"
    )
    await wait_for_async(lambda: code in sink_two.codes(), DEADLINE_S, "node 2 says why")
    assert one.refusals()[code] >= 1
    assert not one.linked(TWO)
    assert not two.linked(ONE)
    assert not sink_one.peers
    assert not sink_two.peers


async def test_a_peer_without_tls_is_told_in_words_that_it_understands(
    net: Net, authority: Authority
) -> None:
    await net.start(1, tls=authority.issue("one"))
    _, sink = await net.start(2)
    await wait_for_async(
        lambda: any(r.by_peer and "speaks TLS only" in r.text for r in sink.refusals),
        DEADLINE_S,
        "it hears the reason",
    )
    await wait_for_async(
        lambda: any(not r.by_peer and "it speaks TLS" in r.text for r in sink.refusals),
        DEADLINE_S,
        "it sees the reason when it is dialed, too",
    )


def client(authority: Authority, files: TlsFiles | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.ca)
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


async def test_a_client_without_a_certificate_or_with_an_old_version_gets_nothing(
    net: Net, authority: Authority
) -> None:
    one, sink = await net.start(1, tls=authority.issue("one"))
    old = client(authority, authority.issue("two"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (client(authority, None), old):
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", net.ports[0], ssl=context)
            writer.write(b"x")
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.read() == b""
    await wait_for_async(lambda: one.refusals().get("tls") == 2, DEADLINE_S, "both are counted")
    said = [r.text for r in sink.refusals if r.code == "tls"]
    assert any("it shows no certificate" in text for text in said)
    assert any("unsupported protocol" in text for text in said)


async def test_who_is_refused_gets_the_reason_although_it_went_on_talking(
    net: Net, authority: Authority
) -> None:
    await net.start(1, tls=authority.issue("one"))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", net.ports[0], ssl=client(authority, None)
    )
    writer.write(bytes(500_000))
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            await reader.read()
    writer.close()


async def test_a_failed_handshake_is_counted_once_and_gives_its_place_back(
    net: Net, authority: Authority
) -> None:
    one, _ = await net.start(1, tls=authority.issue("one"))
    _, writer = await asyncio.open_connection("127.0.0.1", net.ports[0])
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await wait_for_async(one.refusals, DEADLINE_S, "it is counted")
    await wait_for_async(lambda: not one._listener._all, DEADLINE_S, "it is cut off in the end")
    assert one.refusals() == {"tls": 1}
    writer.close()


async def test_who_ends_tls_in_order_is_not_refused(net: Net, authority: Authority) -> None:
    one, _ = await net.start(1, tls=authority.issue("one"))
    context = client(authority, authority.issue("two"))
    _, writer = await asyncio.open_connection("127.0.0.1", net.ports[0], ssl=context)
    await wait_for_async(lambda: one._listener._all, DEADLINE_S, "it is there")
    writer.close()
    await wait_for_async(lambda: not one._listener._all, DEADLINE_S, "it is gone")
    assert one.refusals() == {}


async def test_a_certificate_is_not_enough_the_secret_is_proven_too(
    net: Net, authority: Authority
) -> None:
    one, sink = await net.start(1, tls=authority.issue("one"))
    await net.start(2, tls=authority.issue("two"), secret=b"another secret of 16")
    await wait_for_async(lambda: "secret" in sink.codes(), DEADLINE_S, "it is refused")
    assert not one.linked(TWO)


async def test_a_certificate_that_names_its_node_is_good_for_it(
    net: Net, authority: Authority
) -> None:
    one, _ = await net.start(1, tls=authority.issue("one", "node1", "node7"))
    two, _ = await net.start(2, tls=authority.issue("two", "db2.example", "node2"))
    await linked((one, 2), (two, 1))


async def test_who_begins_tls_and_says_no_more_is_cut_off(
    net: Net, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HELLO_TIMEOUT_S", 0.1)
    one, _ = await net.start(1, tls=authority.issue("one"))
    for first in (b"", b"\x16\x03\x01\x02\x00"):
        reader, writer = await asyncio.open_connection("127.0.0.1", net.ports[0])
        writer.write(first)
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b""
        writer.close()
    assert one.refusals() == {"timeout": 2}
    await wait_for_async(lambda: not one._listener._all, DEADLINE_S, "their places are free")


async def test_random_garbage_never_breaks_the_listener(net: Net, authority: Authority) -> None:
    one, sink = await net.start(1, tls=authority.issue("one"))
    rng = random.Random(7)
    for number in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", net.ports[0])
        prefix = b"\x16\x03\x01" if number % 2 else b""
        writer.write(prefix + rng.randbytes(rng.randint(1, 5000)))
        writer.write_eof()
        async with asyncio.timeout(DEADLINE_S):
            await reader.read()
        writer.close()
    assert sink.frames == []
    two, _ = await net.start(2, tls=authority.issue("two"))
    await linked((one, 2), (two, 1))


async def test_new_files_count_for_new_handshakes_and_leave_the_old_connections_alone(
    net: Net, authority: Authority
) -> None:
    one, sink = await net.start(1, tls=authority.issue("one"))
    two, _ = await net.start(2, tls=authority.issue("two"))
    await linked((one, 2), (two, 1))
    # From now on node 1 is "node3" for whoever looks.
    authority.issue("one", "node3")
    one.reload_tls()
    assert one.linked(TWO)
    assert two.send(ONE, BEAT)
    await wait_for_async(lambda: sink.frames, DEADLINE_S, "the old connection still carries")
    three, sink_three = await net.start(3, tls=authority.issue("three"))
    await wait_for_async(
        lambda: any("a certificate for node3" in r.text for r in sink_three.refusals),
        DEADLINE_S,
        "a new handshake shows the new one",
    )
    assert one.linked(TWO)
    authority.issue("one", "node1")
    one.reload_tls()
    await linked((three, 1), (one, 3))
    assert (TWO, False) not in sink.links[sink.links.index((TWO, True)) :]


Spoil = Callable[[TlsFiles], object]
SPOILED: dict[str, tuple[Spoil, str]] = {
    "missing certificate": (lambda f: f.cert.unlink(), r"certificate .*No such file"),
    "empty certificate": (lambda f: f.cert.write_text(""), r"certificate .*one\.crt"),
    "missing key": (lambda f: f.key.unlink(), r"key file .*one\.key.*No such file"),
    "not a key": (lambda f: f.key.write_text("x"), r"with key .*one\.key"),
    "missing authority": (lambda f: f.ca.unlink(), r"ca file .*ca\.crt.*No such file"),
    "not an authority": (lambda f: f.ca.write_text("x"), r"ca file .*ca\.crt"),
}


@pytest.mark.parametrize("name", SPOILED)
async def test_a_bad_file_leaves_what_was_in_force(
    net: Net, authority: Authority, name: str
) -> None:
    files = authority.issue("one")
    one, _ = await net.start(1, tls=files)
    spoil, text = SPOILED[name]
    two_files = authority.issue("two")
    tls = Tls(two_files)
    spoil(files)
    with pytest.raises(TlsError, match=text):
        one.reload_tls()
    with pytest.raises(TlsError, match=text):
        tls.reload(files)
    two_files.ca.write_bytes(authority.pem)
    two, _ = await net.start(2, tls=two_files)
    await linked((one, 2), (two, 1))


async def test_a_key_of_another_certificate_is_named(authority: Authority) -> None:
    one, two = authority.issue("one"), authority.issue("two")
    with pytest.raises(TlsError, match=r"certificate .*one\.crt with key .*two\.key: KEY_VALUES"):
        Tls(replace(one, key=two.key))


async def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(
    authority: Authority,
) -> None:
    files = authority.issue("one")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    with pytest.raises(TlsError, match="protected by a passphrase"):
        Tls(files)


async def test_tls_cannot_be_switched_on_by_a_reload(net: Net, authority: Authority) -> None:
    one, _ = await net.start(1)
    with pytest.raises(TlsError, match="TLS is off"):
        one.reload_tls(authority.issue("one"))


def names(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"subjectAltName": pairs}


def test_only_names_of_nodes_bind_a_certificate() -> None:
    def seen() -> Iterator[frozenset[NodeId]]:
        yield certified_nodes(None)
        yield certified_nodes({})
        yield certified_nodes(names(("DNS", "db1.example"), ("IP Address", "10.0.0.1")))
        yield certified_nodes(names(("DNS", "node0"), ("DNS", "node1.example"), ("URI", "node4")))

    assert list(seen()) == [frozenset()] * 4
    assert certified_nodes(names(("DNS", "node12"), ("DNS", "node3"))) == {12, 3}
