"""The hello: who may speak on a connection, decided before any frame is read. No sockets.

Lives here: the four messages, the proofs, and the comparison of two members (`judge`). Must not
live here: sockets, timers, logging. Start reading at `judge`, then `Dialer` and `Acceptor`.

    dialer                                acceptor
    Hello(mine, nonce d)          ->
                                  <-      Hello(mine, nonce a)          or Refuse
    Proof(dialer)                 ->                                    or Refuse
                                  <-      Proof(acceptor)               or Refuse

A proof is HMAC-SHA256 with the cluster secret over the role and both hellos whole: identities,
nonces, version, target. The open port never proves anything to a stranger: the dialer goes first.
Fresh nonces on both sides make a recorded exchange worthless; the role keeps a proof from being
sent back to its maker.

What it does not do: frames after the hello carry no checksum of their own and are not encrypted. An
attacker who can alter packets of an established connection is stopped only by TLS, which wraps this
same exchange once it is there. Until then the peer port belongs on a network that is trusted not to
be altered in flight.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from struct import Struct
from typing import Final

import msgspec

from pgraft.core.types import NodeId
from pgraft.identity import Identity, Stage

MAGIC: Final = "pgraft"
PROTOCOL: Final = 1
HELLO_BYTES_MAX: Final = 4096
NONCE_BYTES: Final = 32
SECRET_BYTES_MIN: Final = 16
_LENGTH = Struct(">I")
_TEXT_CHARS_MAX: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """One side of a connection, as it presents itself. `target`: whom the dialer means to reach."""

    magic: str
    protocol: int
    cluster_id: str
    cluster_name: str
    list_digest: str
    list_text: str
    node: NodeId
    uuid: str
    stage: Stage
    nonce: bytes
    target: NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Knowledge of the cluster secret, bound to this one exchange."""

    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Why there will be no connection: a stable word of `REFUSALS` and a sentence."""

    code: str
    text: str


REFUSALS: Final = frozenset(
    {
        "protocol",
        "cluster_name",
        "cluster_id",
        "member_list",
        "unknown_member",
        "self_connection",
        "duplicate_node",
        "wrong_target",
        "member_uuid",
        "formed_group",
        "secret",
    }
)


class HelloRefused(Exception):
    """The two sides do not belong together. `by_peer`: the other side said so, in its words."""

    def __init__(self, refuse: Refuse, peer: str, *, by_peer: bool = False) -> None:
        super().__init__(refuse.text)
        self.refuse = refuse
        self.peer = peer
        self.by_peer = by_peer


class HelloError(Exception):
    """Bytes that are no part of a hello: not a pgraft peer, or garbage."""


_HELLO_TAG, _PROOF_TAG, _REFUSE_TAG = 1, 2, 3
_ENCODER: Final = msgspec.msgpack.Encoder()
_HELLO: Final = msgspec.msgpack.Decoder(Hello)
_PROOF: Final = msgspec.msgpack.Decoder(Proof)
_REFUSE: Final = msgspec.msgpack.Decoder(Refuse)


def _pack(tag: int, value: Hello | Proof | Refuse) -> bytes:
    body = bytes([tag]) + _ENCODER.encode(value)
    return _LENGTH.pack(len(body)) + body


def parse(body: bytes) -> Hello | Proof | Refuse:
    """One hello message given without its length. Raises HelloError on anything else."""
    decoders: dict[int, msgspec.msgpack.Decoder[Hello | Proof | Refuse]] = {
        _HELLO_TAG: _HELLO,  # type: ignore[dict-item]
        _PROOF_TAG: _PROOF,  # type: ignore[dict-item]
        _REFUSE_TAG: _REFUSE,  # type: ignore[dict-item]
    }
    decoder = decoders.get(body[0]) if body else None
    if decoder is None:
        raise HelloError("not a hello of pgraft")
    try:
        return decoder.decode(body[1:])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise HelloError(f"hello cannot be read: {error}") from error


def printable(text: str) -> str:
    """A stranger's text, made fit for a log line: one line, bounded, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:_TEXT_CHARS_MAX])


def hello_of(identity: Identity, nonce: bytes, target: NodeId) -> Hello:
    """How this member presents itself."""
    return Hello(
        magic=MAGIC,
        protocol=PROTOCOL,
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        list_digest=identity.list_digest,
        list_text=identity.list_text[: HELLO_BYTES_MAX // 2],
        node=identity.node,
        uuid=identity.uuid,
        stage=identity.stage,
        nonce=nonce,
        target=target,
    )


def judge(mine: Identity, theirs: Hello) -> Refuse | None:
    """Whether these two may speak, by everything but the secret. None means they may.

    Both sides ask it, each about the other. A blank member and one that belongs to a formed group
    may not: whatever the blank one promised before is lost, so it must be added as a new member.
    """
    return _judge_kind(mine, theirs) or _judge_member(mine, theirs) or _judge_group(mine, theirs)


def _judge_kind(mine: Identity, theirs: Hello) -> Refuse | None:
    if theirs.magic != MAGIC or theirs.protocol != PROTOCOL:
        return Refuse(
            code="protocol",
            text=f"protocol version {theirs.protocol} meets {PROTOCOL}: run the same version",
        )
    if theirs.cluster_name != mine.cluster_name:
        return Refuse(
            code="cluster_name",
            text=f"cluster '{theirs.cluster_name}' meets cluster '{mine.cluster_name}'",
        )
    return None


def _judge_member(mine: Identity, theirs: Hello) -> Refuse | None:
    if theirs.uuid == mine.uuid:
        return Refuse(
            code="self_connection",
            text=f"node {mine.node} reached itself: an address in the member list is wrong",
        )
    if theirs.node == mine.node:
        return Refuse(
            code="duplicate_node",
            text=f"two nodes call themselves node {mine.node} (members {mine.uuid}, {theirs.uuid})",
        )
    if theirs.node not in mine.known_nodes():
        return Refuse(
            code="unknown_member",
            text=f"node {theirs.node} is not a member here; known: {mine.list_text}",
        )
    if theirs.target not in (mine.node, 0):
        return Refuse(
            code="wrong_target",
            text=f"node {theirs.target} was dialed, node {mine.node} answered: "
            "an address in the member list is wrong",
        )
    return None


def _judge_group(mine: Identity, theirs: Hello) -> Refuse | None:
    stages = {mine.stage, theirs.stage}
    if stages == {Stage.BLANK, Stage.STARTED}:
        blank = theirs.node if theirs.stage is Stage.BLANK else mine.node
        return Refuse(
            code="formed_group",
            text=f"formed group, add it again: node {blank} is blank, "
            f"but cluster '{mine.cluster_name}' has already been formed with a node {blank}",
        )
    if theirs.list_digest != mine.list_digest:
        return Refuse(
            code="member_list",
            text=f"member lists differ: node {theirs.node} has '{theirs.list_text}', "
            f"node {mine.node} has '{mine.list_text}'",
        )
    if Stage.BLANK not in stages and theirs.cluster_id != mine.cluster_id:
        return Refuse(
            code="cluster_id",
            text=f"cluster id {theirs.cluster_id} meets {mine.cluster_id}: two groups of one name",
        )
    known = None if mine.record is None else mine.record.uuid_of(theirs.node)
    if known is not None and known != theirs.uuid:
        return Refuse(
            code="member_uuid",
            text=f"node {theirs.node} is known here as member {known}, this is {theirs.uuid}: "
            "its state was wiped or replaced; add it again",
        )
    return None


def _proof(secret: bytes, role: bytes, dialer: bytes, acceptor: bytes) -> bytes:
    # Lengths first, so that no two different exchanges have the same bytes under the digest.
    parts = (MAGIC.encode(), role, dialer, acceptor)
    message = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return hmac.new(secret, message, hashlib.sha256).digest()


def check_secret(secret: bytes) -> None:
    """Raises ValueError for a secret that is too short to keep anybody out."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"the cluster secret must have at least {SECRET_BYTES_MIN} bytes")


class _Side:
    """What both halves share: the order of steps and the comparison of what was heard."""

    __slots__ = ("_expected", "_identity", "_mine", "_peer_hello", "_secret", "peer")

    def __init__(self, identity: Identity, secret: bytes, nonce: bytes, target: NodeId) -> None:
        assert len(nonce) == NONCE_BYTES
        self._expected = target
        self._identity = identity
        self._secret = secret
        self._mine = _pack(_HELLO_TAG, hello_of(identity, nonce, target))
        self._peer_hello = b""
        self.peer: Hello | None = None
        """The other side, believed only once the exchange is done."""

    def _expect_hello(self, body: bytes) -> None:
        message = self._message(body)
        if not isinstance(message, Hello) or len(message.nonce) != NONCE_BYTES:
            raise HelloError("expected a hello")
        self.peer = message
        self._peer_hello = _LENGTH.pack(len(body)) + body
        refuse = judge(self._identity, message)
        if refuse is None and self._expected not in (0, message.node):
            refuse = Refuse(
                code="wrong_target",
                text=f"node {self._expected} was dialed, node {message.node} answered: "
                "an address in the member list is wrong",
            )
        if refuse is not None:
            fit = Refuse(code=refuse.code, text=printable(refuse.text))
            raise HelloRefused(fit, self._peer_name())

    def _expect_proof(self, body: bytes, expected: bytes) -> None:
        message = self._message(body)
        if not isinstance(message, Proof):
            raise HelloError("expected a proof")
        if not hmac.compare_digest(message.digest, expected):
            text = f"node {self._identity.node} and {self._peer_name()} have different secrets"
            raise HelloRefused(Refuse(code="secret", text=text), self._peer_name())

    def _message(self, body: bytes) -> Hello | Proof | Refuse:
        message = parse(body)
        if isinstance(message, Refuse):
            code = message.code if message.code in REFUSALS else "protocol"
            heard = Refuse(code=code, text=printable(message.text))
            raise HelloRefused(heard, self._peer_name(), by_peer=True)
        return message

    def peer_node(self) -> NodeId:
        """The peer's claim, else whom this side dialed, else 0."""
        return self._expected if self.peer is None else self.peer.node

    def _peer_name(self) -> str:
        return f"node {self.peer_node()}" if self.peer_node() else "the peer"


class Dialer(_Side):
    """The side that opened the connection. `expected` is the node it means to reach."""

    __slots__ = ()

    def __init__(
        self, identity: Identity, secret: bytes, *, nonce: bytes, expected: NodeId
    ) -> None:
        super().__init__(identity, secret, nonce, expected)

    def begin(self) -> bytes:
        """The first bytes to send."""
        return self._mine

    def receive(self, body: bytes) -> tuple[bytes, bool]:
        """Bytes to answer with, and whether the exchange is done: then frames may flow.

        Raises HelloRefused (send `refusal` and close) or HelloError (close).
        """
        if not self._peer_hello:
            self._expect_hello(body)
            own = _proof(self._secret, b"dialer", self._mine, self._peer_hello)
            return _pack(_PROOF_TAG, Proof(digest=own)), False
        wanted = _proof(self._secret, b"acceptor", self._mine, self._peer_hello)
        self._expect_proof(body, wanted)
        return b"", True


class Acceptor(_Side):
    """The side that was called."""

    __slots__ = ()

    def __init__(self, identity: Identity, secret: bytes, *, nonce: bytes) -> None:
        super().__init__(identity, secret, nonce, NodeId(0))

    def receive(self, body: bytes) -> tuple[bytes, bool]:
        """As `Dialer.receive`."""
        if not self._peer_hello:
            self._expect_hello(body)
            return self._mine, False
        wanted = _proof(self._secret, b"dialer", self._peer_hello, self._mine)
        self._expect_proof(body, wanted)
        own = _proof(self._secret, b"acceptor", self._peer_hello, self._mine)
        return _pack(_PROOF_TAG, Proof(digest=own)), True


def refusal(refused: HelloRefused) -> bytes:
    """What to send before closing. Empty when the other side was the one that refused."""
    return b"" if refused.by_peer else _pack(_REFUSE_TAG, refused.refuse)
