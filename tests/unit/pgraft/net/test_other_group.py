"""Two groups of one name: strangers to each other, but for members of the group that one was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgraft.core.types import NodeId
from pgraft.identity import Identity
from pgraft.net.handshake import refusal
from pgraft.net.hello import HelloRefused
from pgraft.net.judge import Presence, Roster
from tests.support.pgraft_hello import RECORD, UUIDS, acceptor, body, dialer, refused, run, started

ALONE = "b" * 32


def went_on_alone(node: int) -> Identity:
    """A member that left the group of the others for one of its own, with another uuid."""
    member = replace(RECORD.members[node - 1], uuid=ALONE)
    record = replace(RECORD, cluster_id="d" * 32, members=(member,))
    return replace(started(node), uuid=ALONE, record=record)


def giving_up(node: int) -> Presence:
    """The same, which knows whom it has given up."""
    survivor = went_on_alone(node)
    assert survivor.record is not None
    roster = Roster.of(survivor.record.peers(), UUIDS.values())
    return Presence(identity=survivor, roster=roster)


def test_a_former_member_is_told_with_a_proof_that_it_is_out() -> None:
    dial = dialer(started(1))
    error = refused(dial, acceptor(giving_up(2)))
    assert error.refuse.code == "removed"
    with pytest.raises(HelloRefused, match="add it again") as heard:
        dial.receive(body(refusal(error)))
    assert (heard.value.refuse.code, heard.value.by_peer) == ("removed", True)


def test_another_group_cannot_talk_a_member_out_without_the_secret() -> None:
    dial = dialer(started(1))
    accept = acceptor(giving_up(2), b"y" * 16)
    answer, _ = accept.receive(body(dial.begin()))
    proof, done = dial.receive(body(answer))
    assert not done
    with pytest.raises(HelloRefused) as error:
        accept.receive(body(proof))
    assert error.value.refuse.code == "secret"
    with pytest.raises(HelloRefused) as heard:
        dial.receive(body(refusal(error.value)))
    assert heard.value.refuse.code != "removed"


def test_a_group_that_never_knew_this_member_refuses_it_at_once() -> None:
    dial = dialer(started(1))
    with pytest.raises(HelloRefused) as error:
        acceptor(went_on_alone(2)).receive(body(dial.begin()))
    assert error.value.refuse.code == "cluster_id"


def test_whoever_answers_from_another_group_is_no_peer_even_with_the_secret() -> None:
    """An acceptor that lets this side pass, and has nothing to say about it."""
    dial = dialer(started(1))
    accept = acceptor(Presence(identity=went_on_alone(2), roster=giving_up(2).roster))
    answer, _ = accept.receive(body(dial.begin()))
    proof, _ = dial.receive(body(answer))
    accept._presence = replace(accept._presence, roster=Roster.of(()))  # it says nothing
    granted, done = accept.receive(body(proof))
    assert done
    with pytest.raises(HelloRefused) as error:
        dial.receive(body(granted))
    assert (error.value.refuse.code, error.value.by_peer) == ("cluster_id", False)


def test_the_one_that_was_dialed_must_still_be_the_one_meant() -> None:
    dial = dialer(started(1), expected=3)
    with pytest.raises(HelloRefused) as error:
        run(dial, acceptor(giving_up(2)))
    assert error.value.refuse.code == "wrong_target"
    assert NodeId(2) in UUIDS
