"""Both sides of a hello without sockets, and the members that take part.

Lives here: identities of one small group, what a host says, the whole exchange. Must not live here:
what is expected of it. Start reading at `run`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest

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
from pgraft.net.handshake import Acceptor, Dialer
from pgraft.net.hello import HELLO_BYTES_MAX, NONCE_BYTES, HelloRefused
from pgraft.net.judge import Presence

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
    """A founder before its group."""
    return Identity(
        node=NodeId(node), uuid=UUIDS[NodeId(node)], cluster_name="prod", founders=FOUNDERS
    )


def started(node: int) -> Identity:
    """A founder of a started group."""
    return replace(blank(node), stage=Stage.STARTED, record=RECORD)


def recorded(node: int) -> Identity:
    """A founder that holds the record."""
    return replace(blank(node), stage=Stage.RECORDED, record=RECORD)


def nonce() -> bytes:
    """Another one each time."""
    return next(NONCES).to_bytes(NONCE_BYTES, "big")


@dataclass
class Host:
    """What an acceptor's host says."""

    answer: JoinAnswer = field(default_factory=lambda: JoinAnswer.pending("not yet"))
    asked: list[JoinRequest] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    lost: bool = False

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """See HelloHost.on_join."""
        self.asked.append(request)
        return self.answer

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """See HelloHost.on_position."""
        self.positions.append((peer, term, index))
        return self.lost


def seen(one: Identity | Presence) -> Presence:
    """As it presents itself."""
    return one if isinstance(one, Presence) else Presence.of(one)


def dialer(one: Identity | Presence, secret: bytes = SECRET, expected: int = 2) -> Dialer:
    """One that dials node 2."""
    return Dialer(seen(one), secret, nonce=nonce(), expected=NodeId(expected))


def acceptor(
    one: Identity | Presence, secret: bytes = SECRET, host: Host | None = None
) -> Acceptor:
    return Acceptor(seen(one), secret, nonce=nonce(), host=host or Host())


def body(frame: bytes) -> bytes:
    """What a frame of the hello holds."""
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
    """The refusal that the exchange ends with."""
    with pytest.raises(HelloRefused) as caught:
        run(dial, accept)
    return caught.value
