"""The messages of the hello and their bytes: who may speak is settled before any frame is read.

Lives here: the four messages and their parser. Must not live here: sockets, timers, logging, the
comparison of two members (`judge`), the order of steps and the proofs (`handshake`).
Start reading at `Hello`.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final, TypeAlias

import msgspec

from pgraft.core.types import Index, NodeId, Term
from pgraft.identity import Identity, JoinAnswer, JoinRequest, Stage

MAGIC: Final = "pgraft"
PROTOCOL: Final = 2
HELLO_BYTES_MAX: Final = 8192
NONCE_BYTES: Final = 32
_LENGTH = Struct(">I")
_TEXT_CHARS_MAX: Final = 400
_LIST_CHARS_MAX: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """One side of a connection, as it presents itself. `target`: whom the dialer means to reach.

    `since` is as in `PeerRecord`. `position` is (last term, last index) of what is durable there
    at this moment, None when it is not said. `join`: a blank member asks to be admitted. What was
    added after protocol 1 has a default, so that each version can still read whom it refuses.
    """

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
    since: Index = Index(0)
    position: tuple[Term, Index] | None = None
    join: JoinRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Knowledge of the cluster secret, bound to this one exchange.

    `answer` is the encoded JoinAnswer when the dialer asked to join, else empty; the digest covers
    it.
    """

    digest: bytes
    answer: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Why there will be no connection: a stable word of `REFUSALS` and a sentence.

    A code of `PROVEN` has consequences for who hears it, and is believed only with the digest of
    one who knows the cluster secret.
    """

    code: str
    text: str
    digest: bytes = b""


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
        "tls",
        "certificate",
        "removed",
        "regressed",
        "unproven",
        "join",
        "not_formed",
        "used_id",
    }
)
PROVEN: Final = frozenset({"removed", "regressed"})


class HelloRefused(Exception):
    """The two sides do not belong together. `by_peer`: the other side said so, in its words."""

    def __init__(self, refuse: Refuse, peer: str, *, by_peer: bool = False) -> None:
        super().__init__(refuse.text)
        self.refuse = refuse
        self.peer = peer
        self.by_peer = by_peer


class HelloError(Exception):
    """Bytes that are no part of a hello: not a pgraft peer, or garbage."""


HelloMessage: TypeAlias = Hello | Proof | Refuse

_TAGS: Final[dict[type[HelloMessage], int]] = {Hello: 1, Proof: 2, Refuse: 3}
_ENCODER: Final = msgspec.msgpack.Encoder()
_ANSWER: Final = msgspec.msgpack.Decoder(JoinAnswer)
_DECODERS: Final[dict[int, msgspec.msgpack.Decoder[HelloMessage]]] = {
    tag: msgspec.msgpack.Decoder(kind) for kind, tag in _TAGS.items()
}


def pack(value: HelloMessage) -> bytes:
    """One message with its length in front."""
    body = bytes([_TAGS[type(value)]]) + _ENCODER.encode(value)
    return frame(body)


def frame(body: bytes) -> bytes:
    """Bytes with their length in front."""
    return _LENGTH.pack(len(body)) + body


def parse(body: bytes) -> HelloMessage:
    """One hello message given without its length. Raises HelloError on anything else."""
    decoder = _DECODERS.get(body[0]) if body else None
    if decoder is None:
        raise HelloError("not a hello of pgraft")
    try:
        return decoder.decode(memoryview(body)[1:])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise HelloError(f"hello cannot be read: {error}") from error


def pack_answer(answer: JoinAnswer) -> bytes:
    """What `Proof.answer` carries."""
    return _ENCODER.encode(answer)


def parse_answer(data: bytes) -> JoinAnswer:
    """The answer to a request to join. Raises HelloError on anything else."""
    try:
        return _ANSWER.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise HelloError(f"the answer cannot be read: {error}") from error


def printable(text: str) -> str:
    """A stranger's text, made fit for a log line: one line, bounded, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:_TEXT_CHARS_MAX])


def hello_of(
    identity: Identity,
    nonce: bytes,
    target: NodeId,
    *,
    position: tuple[Term, Index] | None = None,
    join: JoinRequest | None = None,
) -> Hello:
    """How this member presents itself."""
    return Hello(
        magic=MAGIC,
        protocol=PROTOCOL,
        cluster_id=identity.cluster_id,
        cluster_name=identity.cluster_name,
        list_digest=identity.list_digest,
        list_text=identity.list_text[:_LIST_CHARS_MAX],
        node=identity.node,
        uuid=identity.uuid,
        stage=identity.stage,
        nonce=nonce,
        target=target,
        since=identity.since,
        position=position,
        join=join,
    )
