"""The hello step by step: two messages each way, bound together by the cluster secret. No sockets.

Lives here: both sides of the exchange and the proofs. Must not live here: sockets, timers, logging,
the comparison itself (`judge`). Start reading at `Dialer` and `Acceptor`.

    dialer                                acceptor
    Hello(mine, nonce d)          ->
                                  <-      Hello(mine, nonce a)          or Refuse
    Proof(dialer)                 ->                                    or Refuse
                                  <-      Proof(acceptor)               or Refuse, proven

A proof is HMAC-SHA256 with the cluster secret over the role and both hellos whole: identities,
nonces, version, target, a request to join; the acceptor's covers its answer to that request too.
The open port never proves anything to a stranger: the dialer goes first. Fresh nonces on both sides
make a recorded exchange worthless; the role keeps a proof from being sent back to its maker. That a
member was removed, or has lost what it confirmed, is said only to one that has proven the secret,
and is believed only with a proof: nobody else can talk a member out of its group.

A request to join ends with the answer; frames follow only between members. What it does not do:
frames after the hello carry no checksum of their own and are not encrypted. That is what TLS is
for, around this same exchange. Without it the peer port belongs on a network that is trusted not to
be read or altered in flight, and a token travels readable.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Final, Protocol

from pgraft.core.types import Index, NodeId, Term
from pgraft.identity import JoinAnswer, JoinRequest
from pgraft.net.hello import (
    MAGIC,
    NONCE_BYTES,
    PROVEN,
    REFUSALS,
    Hello,
    HelloError,
    HelloMessage,
    HelloRefused,
    Proof,
    Refuse,
    frame,
    hello_of,
    pack,
    pack_answer,
    parse,
    parse_answer,
    printable,
)
from pgraft.net.judge import Presence, judge, standing

SECRET_BYTES_MIN: Final = 16
_DIALER, _ACCEPTOR, _REFUSAL = b"dialer", b"acceptor", b"refusal"


class HelloHost(Protocol):
    """Whom an acceptor asks about a peer that has proven the secret. Must not raise or block."""

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """What to answer a blank member that asks to be admitted."""
        ...

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """Whether this peer has lost something: it holds less than it was seen to confirm."""
        ...


def check_secret(secret: bytes) -> None:
    """Raises ValueError for a secret that is too short to keep anybody out."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"the cluster secret must have at least {SECRET_BYTES_MIN} bytes")


class _Side:
    """What both halves share: the order of steps and the comparison of what was heard."""

    __slots__ = ("_certified", "_expected", "_mine", "_peer_hello", "_presence", "_secret", "peer")

    def __init__(self, presence: Presence, secret: bytes, nonce: bytes, target: NodeId) -> None:
        assert len(nonce) == NONCE_BYTES
        self._certified: frozenset[NodeId] = frozenset()
        self._expected = target
        self._presence = presence
        self._secret = secret
        self._mine = pack(
            hello_of(
                presence.identity,
                nonce,
                target,
                position=presence.position,
                join=presence.join,
            )
        )
        self._peer_hello = b""
        self.peer: Hello | None = None
        """The other side, believed only once the exchange is done."""

    def certified(self, nodes: frozenset[NodeId]) -> None:
        """The peer's certificate names these nodes; if it names any, the peer must be one."""
        self._certified = nodes

    def peer_node(self) -> NodeId:
        """The peer's claim, else whom this side dialed, else 0."""
        return self._expected if self.peer is None else self.peer.node

    def _expect_hello(self, body: bytes) -> None:
        message = self._message(body)
        if not isinstance(message, Hello) or len(message.nonce) != NONCE_BYTES:
            raise HelloError("expected a hello")
        self.peer = message
        self._peer_hello = frame(body)
        refuse = self._heard_out(judge(self._presence, message)) or self._judge_claim(message)
        if refuse is not None:
            self._refuse(Refuse(code=refuse.code, text=printable(refuse.text)))

    def _heard_out(self, refuse: Refuse | None) -> Refuse | None:
        """The refusal, unless the exchange has to go on first."""
        return refuse

    def _judge_claim(self, hello: Hello) -> Refuse | None:
        if self._expected not in (0, hello.node):
            return Refuse(
                code="wrong_target",
                text=f"node {self._expected} was dialed, node {hello.node} answered: "
                "an address in the member list is wrong",
            )
        if self._certified and hello.node not in self._certified:
            names = ", ".join(f"node{node}" for node in sorted(self._certified))
            return Refuse(
                code="certificate",
                text=f"node {hello.node} shows a certificate for {names}: give each node its own",
            )
        return None

    def _expect_proof(self, body: bytes, role: bytes) -> bytes:
        """The bytes of the answer that came with the proof, empty for none."""
        message = self._message(body)
        if not isinstance(message, Proof):
            raise HelloError("expected a proof")
        if not hmac.compare_digest(message.digest, self._digest(role, message.answer)):
            own = self._presence.identity.node
            text = f"node {own} and {self._peer_name()} have different secrets"
            self._refuse(Refuse(code="secret", text=text))
        return message.answer

    def _digest(self, role: bytes, more: bytes = b"") -> bytes:
        dialer, acceptor = self._hellos()
        # Lengths first: no two different exchanges have the same bytes under the digest.
        message = b"".join(frame(part) for part in (MAGIC.encode(), role, dialer, acceptor, more))
        return hmac.new(self._secret, message, hashlib.sha256).digest()

    def _hellos(self) -> tuple[bytes, bytes]:
        """The hellos of dialer and acceptor."""
        raise NotImplementedError

    def _message(self, body: bytes) -> HelloMessage:
        message = parse(body)
        if not isinstance(message, Refuse):
            return message
        code = message.code if message.code in REFUSALS else "protocol"
        text = printable(message.text)
        if code in PROVEN and not self._is_proven(message):
            code, text = "unproven", f"{self._peer_name()} says without proof: {text}"
        raise HelloRefused(Refuse(code=code, text=text), self._peer_name(), by_peer=True)

    def _is_proven(self, refuse: Refuse) -> bool:
        wanted = self._digest(_REFUSAL, _said(refuse))
        return hmac.compare_digest(refuse.digest, wanted)

    def _refuse(self, refuse: Refuse) -> None:
        raise HelloRefused(refuse, self._peer_name())

    def _peer_name(self) -> str:
        return f"node {self.peer_node()}" if self.peer_node() else "the peer"


def _said(refuse: Refuse) -> bytes:
    return frame(refuse.code.encode()) + frame(refuse.text.encode("utf-8", "surrogatepass"))


class Dialer(_Side):
    """The side that opened the connection. `expected` is the node it means to reach, 0 for any.

    `answer` is there once the exchange is done, if it asked to join. One that answers from another
    group has something to say, or it would have refused this side's hello: it is heard out, and
    refused unless it proves that this member was removed.
    """

    __slots__ = ("_other_group", "answer")

    def __init__(
        self, presence: Presence, secret: bytes, *, nonce: bytes, expected: NodeId
    ) -> None:
        super().__init__(presence, secret, nonce, expected)
        self.answer: JoinAnswer | None = None
        self._other_group: Refuse | None = None

    def begin(self) -> bytes:
        """The first bytes to send."""
        return self._mine

    def receive(self, body: bytes) -> tuple[bytes, bool]:
        """Bytes to answer with, and whether the exchange is done: then frames may flow.

        Raises HelloRefused (send `refusal` and close) or HelloError (close).
        """
        if not self._peer_hello:
            self._expect_hello(body)
            return pack(Proof(digest=self._digest(_DIALER))), False
        answer = self._expect_proof(body, _ACCEPTOR)
        if self._other_group is not None:
            self._refuse(self._other_group)
        if self._presence.join is not None:
            self.answer = parse_answer(answer)
        return b"", True

    def _heard_out(self, refuse: Refuse | None) -> Refuse | None:
        if refuse is None or refuse.code != "cluster_id":
            return refuse
        self._other_group = Refuse(code=refuse.code, text=printable(refuse.text))
        return None

    def _hellos(self) -> tuple[bytes, bytes]:
        return self._mine, self._peer_hello


class Acceptor(_Side):
    """The side that was called."""

    __slots__ = ("_host",)

    def __init__(self, presence: Presence, secret: bytes, *, nonce: bytes, host: HelloHost) -> None:
        super().__init__(presence, secret, nonce, NodeId(0))
        self._host = host

    def receive(self, body: bytes) -> tuple[bytes, bool]:
        """As `Dialer.receive`. After an answer to a request to join no frames may flow."""
        if not self._peer_hello:
            self._expect_hello(body)
            return self._mine, False
        if self._expect_proof(body, _DIALER):
            raise HelloError("an answer to no question")
        peer = self.peer
        assert peer is not None
        refuse = standing(self._presence, peer) or self._judge_position(peer)
        if refuse is not None:
            fit = Refuse(code=refuse.code, text=printable(refuse.text))
            digest = self._digest(_REFUSAL, _said(fit))
            self._refuse(Refuse(code=fit.code, text=fit.text, digest=digest))
        answer = b"" if peer.join is None else self._ask_host(peer.join)
        return pack(Proof(digest=self._digest(_ACCEPTOR, answer), answer=answer)), True

    def _ask_host(self, request: JoinRequest) -> bytes:
        answer = self._host.on_join(request)
        return pack_answer(replace(answer, text=printable(answer.text)))

    def _judge_position(self, peer: Hello) -> Refuse | None:
        # Only what a dialer says of itself: it speaks on one connection at a time, so nothing that
        # it confirmed after this hello was made can have arrived before it.
        # And only of a member that is known: the host remembers by node id, and a new member of
        # that id has confirmed nothing yet.
        if peer.position is None or not self._presence.roster.names(peer):
            return None
        if not self._host.on_position(peer.node, *peer.position):
            return None
        return Refuse(
            code="regressed",
            text=f"node {peer.node} (member {peer.uuid}) holds its log up to index "
            f"{peer.position[1]} of term {peer.position[0]}, which is less than it has confirmed: "
            "its disk was set back; move its state directory aside and add it again",
        )

    def _hellos(self) -> tuple[bytes, bytes]:
        return self._peer_hello, self._mine


def refusal(refused: HelloRefused) -> bytes:
    """What to send before closing. Empty when the other side was the one that refused."""
    return b"" if refused.by_peer else pack(refused.refuse)
