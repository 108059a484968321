"""The hello lets in who belongs here, names what does not fit, and cannot be replayed."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.types import NodeId
from pgraft.identity import (
    Identity,
    Stage,
)
from pgraft.net.handshake import check_secret, refusal
from pgraft.net.hello import (
    NONCE_BYTES,
    REFUSALS,
    HelloError,
    HelloRefused,
    hello_of,
    parse,
    printable,
)
from pgraft.net.judge import judge
from tests.support.pgraft_hello import (
    FOUNDERS,
    RECORD,
    UUIDS,
    acceptor,
    blank,
    body,
    dialer,
    nonce,
    recorded,
    refused,
    run,
    seen,
    started,
)


@pytest.mark.parametrize("make", [blank, recorded, started])
def test_members_of_one_group_meet(make: Callable[[int], Identity]) -> None:
    dial, accept = dialer(make(1)), acceptor(make(2))
    run(dial, accept)
    assert dial.peer is not None
    assert accept.peer is not None
    assert (dial.peer.node, dial.peer.uuid) == (2, UUIDS[NodeId(2)])
    assert (accept.peer.node, accept.peer.stage) == (1, make(1).stage)


@pytest.mark.parametrize(
    ("one", "two"), [(blank, recorded), (recorded, blank), (recorded, started)]
)
def test_members_meet_while_the_group_forms(
    one: Callable[[int], Identity], two: Callable[[int], Identity]
) -> None:
    run(dialer(one(1)), acceptor(two(2)))


MISFITS = {
    "cluster_name": (replace(blank(1), cluster_name="test"), "cluster 'test' meets cluster 'prod'"),
    "cluster_id": (
        replace(started(1), record=replace(RECORD, cluster_id="d" * 32)),
        "d{32} meets c{32}",
    ),
    "member_list": (
        replace(blank(1), founders=FOUNDERS[:2]),
        "1@h1:7400 2@h2:7400'.*1@h1:7400 2@h2:7400 3@h3:7400",
    ),
    "unknown_member": (
        replace(started(1), node=NodeId(9), uuid="9" * 32),
        "node 9 is not a member here; known: 1@h1:7400 2@h2:7400 3@h3:7400",
    ),
    "self_connection": (started(2), "node 2 reached itself"),
    "duplicate_node": (replace(started(2), uuid="e" * 32), "two nodes call themselves node 2"),
    "member_uuid": (replace(started(1), uuid="f" * 32), "node 1 is known here as member 1{32}"),
    "formed_group": (blank(1), "add it again: node 1 is blank"),
}


@pytest.mark.parametrize("code", MISFITS)
def test_what_does_not_fit_is_named(code: str) -> None:
    identity, text = MISFITS[code]
    host = blank(2) if identity.stage is Stage.BLANK and code != "formed_group" else started(2)
    error = refused(dialer(identity), acceptor(host))
    assert error.refuse.code == code
    assert error.refuse.code in REFUSALS
    with pytest.raises(HelloRefused, match=text):
        raise error


def test_the_refusal_reaches_the_other_side_in_the_refusers_words() -> None:
    dial = dialer(blank(1))
    error = refused(dial, acceptor(started(2)))
    assert not error.by_peer
    with pytest.raises(HelloRefused, match="add it again") as heard:
        dial.receive(body(refusal(error)))
    assert heard.value.by_peer
    assert heard.value.refuse.code == "formed_group"
    assert refusal(heard.value) == b"", "a refusal is not answered with one"


def test_a_dialer_refuses_whoever_is_not_the_one_it_dialed() -> None:
    dial, accept = dialer(started(1), expected=3), acceptor(started(2))
    assert refused(dial, accept).refuse.code == "wrong_target"
    hello = replace(hello_of(started(2), nonce(), NodeId(0)))
    assert judge(seen(started(1)), hello) is None
    with pytest.raises(HelloRefused, match="node 3 was dialed, node 2 answered"):
        dial.receive(body(acceptor(started(2)).receive(body(dialer(started(1)).begin()))[0]))


def test_a_wrong_secret_is_refused_by_the_acceptor_and_nothing_is_proved_to_a_stranger() -> None:
    dial, accept = dialer(started(1), b"x" * 16), acceptor(started(2))
    answer, _ = accept.receive(body(dial.begin()))
    proof, _ = dial.receive(body(answer))
    with pytest.raises(HelloRefused, match="different secrets") as error:
        accept.receive(body(proof))
    assert error.value.refuse.code == "secret"
    # What the acceptor sent before is its hello, which holds no digest of the secret.
    assert type(parse(body(answer))).__name__ == "Hello"


def test_an_acceptor_that_does_not_know_the_secret_is_refused_too() -> None:
    dial, real, fake = dialer(started(1)), acceptor(started(2)), acceptor(started(2), b"x" * 16)
    answer, _ = fake.receive(body(dial.begin()))
    real.receive(body(dial.begin()))
    dial.receive(body(answer))
    forged = run(dialer(started(1), b"x" * 16), acceptor(started(2), b"x" * 16))[3]
    with pytest.raises(HelloRefused, match="different secrets"):
        dial.receive(body(forged))


def test_a_recorded_exchange_is_worthless() -> None:
    first, _, proof, accepted = run(dialer(started(1)), acceptor(started(2)))
    accept = acceptor(started(2))
    accept.receive(body(first))
    with pytest.raises(HelloRefused, match="different secrets"):
        accept.receive(body(proof))
    dial = dialer(started(1))
    dial.begin()
    dial.receive(body(acceptor(started(2)).receive(body(first))[0]))
    with pytest.raises(HelloRefused, match="different secrets"):
        dial.receive(body(accepted))


def test_a_proof_sent_back_to_its_maker_is_worthless() -> None:
    """The role is under the digest: an attacker cannot use the dialer as its own oracle."""
    dial, accept = dialer(started(1)), acceptor(started(2))
    answer, _ = accept.receive(body(dial.begin()))
    proof, _ = dial.receive(body(answer))
    with pytest.raises(HelloRefused, match="different secrets"):
        dial.receive(body(proof))


def test_nothing_of_the_hello_can_be_altered_on_the_way() -> None:
    dial, accept = dialer(started(1)), acceptor(started(2))
    altered = bytearray(body(dial.begin()))
    place = altered.index(b"started")
    assert altered[place - 6 : place] != b""
    altered[altered.index(bytes(NONCE_BYTES - 2)) + 3] ^= 1  # one bit of the nonce
    answer, _ = accept.receive(bytes(altered))
    proof, _ = dial.receive(body(answer))
    with pytest.raises(HelloRefused, match="different secrets"):
        accept.receive(body(proof))


def test_another_protocol_version_is_refused_by_number() -> None:
    hello = replace(hello_of(started(1), nonce(), NodeId(2)), protocol=1)
    found = judge(seen(started(2)), hello)
    assert found is not None
    assert found.code == "protocol"
    assert "protocol version 1 of node 1 meets 2 of node 2: run the same version" in found.text


@given(st.binary(max_size=300))
def test_garbage_is_a_hello_error(data: bytes) -> None:
    with pytest.raises(HelloError):
        acceptor(started(2)).receive(data)


@given(st.data())
def test_a_damaged_exchange_never_succeeds_and_never_raises_anything_else(
    data: st.DataObject,
) -> None:
    dial, accept = dialer(started(1)), acceptor(started(2))
    first = bytearray(body(dial.begin()))
    first[data.draw(st.integers(0, len(first) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(HelloError, HelloRefused):
        answer, _ = accept.receive(bytes(first))
        proof, _ = dial.receive(body(answer))
        _, done = accept.receive(body(proof))
        assert not done


def test_steps_out_of_order_are_errors() -> None:
    messages = run(dialer(started(1)), acceptor(started(2)))
    with pytest.raises(HelloError, match="expected a hello"):
        acceptor(started(2)).receive(body(messages[2]))
    accept = acceptor(started(2))
    accept.receive(body(messages[0]))
    with pytest.raises(HelloError, match="expected a proof"):
        accept.receive(body(messages[0]))


def test_a_strangers_text_is_made_fit_for_a_log_line() -> None:
    assert printable("a\nb\x1b[31mé") == "a?b?[31mé"
    assert len(printable("x" * 10_000)) < 1000


def test_a_secret_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        check_secret(b"short")


def test_a_peer_of_the_first_protocol_reads_why_it_is_refused() -> None:
    """What was added later has defaults, so that both versions can read whom they refuse."""
    old = msgspec.msgpack.decode(body(dialer(started(1)).begin())[1:])
    for name in ("since", "position", "join"):
        del old[name]
    hello = bytes([1]) + msgspec.msgpack.encode(old | {"protocol": 1})
    with pytest.raises(HelloRefused, match="run the same version of the daemon on both") as error:
        acceptor(started(2)).receive(hello)
    assert error.value.refuse.code == "protocol"


def test_a_certificate_for_other_nodes_is_refused() -> None:
    for names, fits in (((), True), ((1, 9), True), ((9,), False)):
        accept = acceptor(started(2))
        accept.certified(frozenset(NodeId(n) for n in names))
        if fits:
            run(dialer(started(1)), accept)
        else:
            error = refused(dialer(started(1)), accept)
            assert error.refuse.code == "certificate"
            assert "node 1 shows a certificate for node9" in error.refuse.text
