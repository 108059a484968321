"""What only a proven peer gets: admission, and the news that it was removed or set back."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.types import Index, NodeId, Term
from pgraft.identity import (
    FoundingMember,
    Identity,
    JoinAnswer,
    JoinRequest,
)
from pgraft.net.handshake import refusal
from pgraft.net.hello import (
    HelloError,
    HelloRefused,
    Proof,
    Refuse,
    hello_of,
    pack,
    pack_answer,
    parse,
    parse_answer,
)
from pgraft.net.judge import Presence, Roster
from tests.support.pgraft_hello import (
    RECORD,
    UUIDS,
    Host,
    acceptor,
    blank,
    body,
    dialer,
    nonce,
    refused,
    run,
    seen,
    started,
)

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


def test_a_new_member_of_a_node_id_is_not_held_to_what_the_former_one_confirmed() -> None:
    own = replace(RECORD.members[0], uuid="e" * 32, since=Index(20))
    record = replace(RECORD, members=(own, *RECORD.members[1:]))
    later = replace(started(1), uuid="e" * 32, record=record)
    host = Host(lost=True)
    presence = replace(seen(later), position=(Term(0), Index(0)))
    run(dialer(presence), acceptor(started(2), host=host))
    assert host.positions == []
