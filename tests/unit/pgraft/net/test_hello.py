"""The hello lets in who belongs here, names what does not fit, and cannot be replayed."""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.types import Index, NodeId, Term
from pgraft.identity import (
    Founder,
    FoundingMember,
    FoundingRecord,
    Identity,
    JoinAnswer,
    JoinRequest,
    Stage,
)
from pgraft.net.handshake import Acceptor, Dialer, check_secret, refusal
from pgraft.net.hello import (
    HELLO_BYTES_MAX,
    NONCE_BYTES,
    REFUSALS,
    HelloError,
    HelloRefused,
    Proof,
    Refuse,
    hello_of,
    pack,
    pack_answer,
    parse,
    parse_answer,
    printable,
)
from pgraft.net.judge import Presence, Roster, judge

SECRET = b"0123456789abcdef"
FOUNDERS = tuple(Founder(node=NodeId(n), address=f"h{n}:7400") for n in (1, 2, 3))
UUIDS = {NodeId(n): str(n) * 32 for n in (1, 2, 3)}
RECORD = FoundingRecord(
    cluster_id="c" * 32,
    cluster_name="prod",
    members=tuple(
        FoundingMember(node=f.node, address=f.address, uuid=UUIDS[f.node]) for f in FOUNDERS
    ),
)
NONCES = itertools.count(1)


def blank(node: int) -> Identity:
    return Identity(
        node=NodeId(node), uuid=UUIDS[NodeId(node)], cluster_name="prod", founders=FOUNDERS
    )


def started(node: int) -> Identity:
    return replace(blank(node), stage=Stage.STARTED, record=RECORD)


def recorded(node: int) -> Identity:
    return replace(blank(node), stage=Stage.RECORDED, record=RECORD)


def nonce() -> bytes:
    return next(NONCES).to_bytes(NONCE_BYTES, "big")


@dataclass
class Host:
    """What an acceptor's host says."""

    answer: JoinAnswer = field(default_factory=lambda: JoinAnswer.pending("not yet"))
    asked: list[JoinRequest] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    lost: bool = False

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        self.asked.append(request)
        return self.answer

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        self.positions.append((peer, term, index))
        return self.lost


def seen(one: Identity | Presence) -> Presence:
    return one if isinstance(one, Presence) else Presence.of(one)


def dialer(one: Identity | Presence, secret: bytes = SECRET, expected: int = 2) -> Dialer:
    return Dialer(seen(one), secret, nonce=nonce(), expected=NodeId(expected))


def acceptor(
    one: Identity | Presence, secret: bytes = SECRET, host: Host | None = None
) -> Acceptor:
    return Acceptor(seen(one), secret, nonce=nonce(), host=host or Host())


def body(frame: bytes) -> bytes:
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4 <= HELLO_BYTES_MAX
    return frame[4:]


def run(dial: Dialer, accept: Acceptor) -> list[bytes]:
    """The whole exchange; the messages sent, in order. Raises what either side raises."""
    sent = [dial.begin()]
    answer, done = accept.receive(body(sent[0]))
    assert not done
    sent.append(answer)
    answer, done = dial.receive(body(answer))
    assert not done
    sent.append(answer)
    answer, done = accept.receive(body(answer))
    assert done
    sent.append(answer)
    last, done = dial.receive(body(answer))
    assert done
    assert last == b""
    return sent


def refused(dial: Dialer, accept: Acceptor) -> HelloRefused:
    with pytest.raises(HelloRefused) as caught:
        run(dial, accept)
    return caught.value


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


REQUEST = JoinRequest(node=NodeId(4), uuid="4" * 32, address="h4:7400", token=b"an invitation")
ASKER = Identity(node=NodeId(4), uuid="4" * 32, cluster_name="prod", founders=())


def asker(identity: Identity = ASKER, **fields: object) -> Presence:
    presence = Presence(identity=identity, roster=Roster.of(()), join=REQUEST)
    return replace(presence, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        JoinAnswer.pending("no coordinator"),
        JoinAnswer.refused("bad_token", "the token has expired"),
        JoinAnswer.admitted(RECORD),
    ],
)
def test_a_request_to_join_is_answered_inside_of_the_proof(answer: JoinAnswer) -> None:
    host = Host(answer=answer)
    dial = dialer(asker(), expected=0)
    run(dial, acceptor(started(2), host=host))
    assert host.asked == [REQUEST]
    assert dial.answer == answer


def test_the_longest_answer_fits() -> None:
    members = tuple(
        FoundingMember(node=NodeId(n), address="h" * 255, uuid="a" * 32, since=Index(2**62))
        for n in range(1, 10)
    )
    answer = replace(
        JoinAnswer.admitted(replace(RECORD, cluster_name="n" * 255, members=members)),
        code="c" * 100,
        text="t" * 10_000,
    )
    dial = dialer(asker(), expected=0)
    run(dial, acceptor(started(2), host=Host(answer=answer)))
    assert dial.answer is not None
    assert dial.answer.record == answer.record


def test_the_host_is_asked_only_by_one_who_knows_the_secret() -> None:
    host = Host()
    error = refused(dialer(asker(), b"x" * 16, expected=0), acceptor(started(2), host=host))
    assert error.refuse.code == "secret"
    assert host.asked == []


def test_an_answer_that_is_altered_on_the_way_is_refused() -> None:
    dial, accept = dialer(asker(), expected=0), acceptor(started(2))
    answer, _ = accept.receive(body(dial.begin()))
    proof, _ = dial.receive(body(answer))
    last, done = accept.receive(body(proof))
    assert done
    forged = parse(body(last))
    assert isinstance(forged, Proof)
    admitted = replace(forged, answer=pack_answer(JoinAnswer.admitted(RECORD)))
    with pytest.raises(HelloRefused, match="different secrets"):
        dial.receive(body(pack(admitted)))


def test_a_request_that_is_altered_on_the_way_is_refused() -> None:
    host = Host()
    dial, accept = dialer(asker(), expected=0), acceptor(started(2), host=host)
    altered = bytearray(body(dial.begin()))
    altered[altered.index(b"h4:7400") + 1] = ord("5")
    answer, _ = accept.receive(bytes(altered))
    proof, _ = dial.receive(body(answer))
    with pytest.raises(HelloRefused, match="different secrets"):
        accept.receive(body(proof))
    assert host.asked == []


NOT_ADMISSIBLE = {
    "not_formed": (asker(), blank(2)),
    "used_id": (
        asker(replace(ASKER, node=NodeId(2)), join=replace(REQUEST, node=NodeId(2))),
        started(2),
    ),
    "join": (asker(join=replace(REQUEST, uuid="5" * 32)), started(2)),
    "cluster_name": (asker(replace(ASKER, cluster_name="test")), started(2)),
    "self_connection": (asker(replace(ASKER, uuid=UUIDS[NodeId(2)])), started(2)),
}


@pytest.mark.parametrize("code", NOT_ADMISSIBLE)
def test_who_cannot_be_admitted_is_told_before_the_host_is_asked(code: str) -> None:
    who, host = NOT_ADMISSIBLE[code][0], Host()
    error = refused(dialer(who, expected=0), acceptor(NOT_ADMISSIBLE[code][1], host=host))
    assert error.refuse.code == code
    assert host.asked == []


def test_a_member_does_not_ask_to_join_by_one_that_has_no_group_itself() -> None:
    dial = dialer(asker(), expected=0)
    hello = pack(hello_of(blank(2), nonce(), NodeId(0)))
    with pytest.raises(HelloRefused, match="does not belong to a formed group yet"):
        dial.receive(body(hello))
    hello = pack(hello_of(replace(started(2), node=NodeId(4)), nonce(), NodeId(0)))
    with pytest.raises(HelloRefused, match="node id 4 is taken"):
        dialer(asker(), expected=0).receive(body(hello))


def test_an_answer_to_no_question_is_garbage() -> None:
    dial, accept = dialer(started(1)), acceptor(started(2))
    answer, _ = accept.receive(body(dial.begin()))
    dial.receive(body(answer))
    digest = dial._digest(b"dialer", b"x")
    with pytest.raises(HelloError, match="no question"):
        accept.receive(body(pack(Proof(digest=digest, answer=b"x"))))


@given(st.binary(max_size=200))
def test_garbage_is_no_answer(data: bytes) -> None:
    with contextlib.suppress(HelloError):
        assert isinstance(parse_answer(data), JoinAnswer)


def removing(node: int, uuid: str) -> Presence:
    return replace(seen(started(node)), roster=Roster.of(RECORD.peers()[1:], [uuid]))


def test_a_removed_member_is_told_with_a_proof() -> None:
    dial = dialer(started(1))
    error = refused(dial, acceptor(removing(2, UUIDS[NodeId(1)])))
    assert error.refuse.code == "removed"
    with pytest.raises(HelloRefused, match="was removed from cluster 'prod'") as heard:
        dial.receive(body(refusal(error)))
    assert heard.value.by_peer
    assert heard.value.refuse.code == "removed"


def test_a_stranger_cannot_tell_a_member_that_it_was_removed() -> None:
    lie = Refuse(code="removed", text="you are out")
    dial = dialer(started(1))
    with pytest.raises(HelloRefused) as heard:
        dial.receive(body(pack(lie)))
    assert heard.value.refuse.code == "unproven"
    # Not with the proof of another exchange either, nor after a hello that it has overheard.
    first = dialer(started(1))
    proven = refusal(refused(first, acceptor(removing(2, UUIDS[NodeId(1)]))))
    again = dialer(started(1))
    again.receive(body(acceptor(started(2)).receive(body(again.begin()))[0]))
    with pytest.raises(HelloRefused) as heard:
        again.receive(body(proven))
    assert heard.value.refuse.code == "unproven"


def test_a_stranger_is_not_told_who_was_removed() -> None:
    dial = dialer(started(1), b"x" * 16)
    assert refused(dial, acceptor(removing(2, UUIDS[NodeId(1)]))).refuse.code == "secret"


def test_a_member_that_lost_what_it_confirmed_is_told_with_a_proof() -> None:
    host = Host(lost=True)
    place = (Term(3), Index(17))
    dial = dialer(replace(seen(started(1)), position=place))
    error = refused(dial, acceptor(started(2), host=host))
    assert host.positions == [(1, 3, 17)]
    assert error.refuse.code == "regressed"
    with pytest.raises(HelloRefused, match="up to index 17 of term 3") as heard:
        dial.receive(body(refusal(error)))
    assert heard.value.refuse.code == "regressed"


def test_a_position_that_is_not_said_is_not_judged() -> None:
    host = Host(lost=True)
    run(dialer(started(1)), acceptor(started(2), host=host))
    assert host.positions == []


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
