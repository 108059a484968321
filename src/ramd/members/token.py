"""The token by which an invited node joins: what it claims, its proof, and why it is refused.

Lives here: making, reading and judging of the text. Must not live here: files, the exchange itself
(`ramd.link.join`). Start reading at `make`, then `refusal`.

    ramd1.<claims, base64url>.<HMAC-SHA256 of that text, base64url>

The key is derived from the cluster secret, so any member can judge a token, and one of another
cluster fails its proof. What it claims only counts together with the invitation in the replicated
state: that makes it good for one node, once, for a while. It is not encrypted: it holds no secret
but its own proof.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import msgspec

from ramd.domain.model import ClusterState, Invitation

MARK: Final = "ramd1"
CHARS_MAX: Final = 256
NONCE_BYTES: Final = 12
CLUSTER_BYTES: Final = 12
_KEY: Final = b"ramd join token 1"


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """What a token says of itself: for which cluster (a digest of its id) and which node it is."""

    cluster: bytes
    node: int
    nonce: str
    expires_unix_ms: int


class TokenError(ValueError):
    """The text is no token. Never holds the text."""


_CLAIMS: Final = msgspec.msgpack.Decoder(Claims)


def make(secret: bytes, cluster_id: str, invitation: Invitation) -> str:
    """The token of `invitation`: one line of printable ASCII."""
    claims = Claims(
        _cluster(cluster_id),
        invitation.member.node_id,
        invitation.nonce,
        invitation.expires_unix_ms,
    )
    body = _text(msgspec.msgpack.encode(claims))
    return f"{MARK}.{body}.{_text(_proof(secret, body))}"


def read(text: str) -> Claims:
    """What `text` claims, proven by nobody yet. Raises TokenError."""
    return _split(text)[1]


def refusal(
    text: str, *, node_id: int, address: str, state: ClusterState, secret: bytes, now_unix_ms: int
) -> str:
    """Why the node that shows `text` may not join as `node_id` at `address`, as "code: words"; ''
    if it may. The proof is judged first, in constant time; `now_unix_ms` is the wall clock."""
    try:
        body, claims, shown = _split(text)
    except TokenError as error:
        return f"token_malformed: {error}"
    if not hmac.compare_digest(_proof(secret, body), shown):
        return (
            "token_foreign: the token was not made with this cluster's secret: it is another"
            " cluster's, or was altered"
        )
    if claims.cluster != _cluster(state.cluster_id):
        return "token_foreign: the token is of another cluster of the same secret"
    if claims.node != node_id:
        return f"token_node: the token is node {claims.node}'s, not node {node_id}'s"
    return _worth(claims, address, state, now_unix_ms)


def _worth(claims: Claims, address: str, state: ClusterState, now_unix_ms: int) -> str:
    node_id, invitation = claims.node, state.invitation(claims.node)
    again = f"add node {node_id} again to get another"
    if any(hmac.compare_digest(nonce, claims.nonce) for nonce in state.spent):
        return (
            f"token_used: the token has been used; if the state of node {node_id} was lost,"
            f" remove it from the cluster first, then {again}"
        )
    if claims.expires_unix_ms <= now_unix_ms:
        return f"token_expired: the token has expired; {again}"
    if invitation is None or not hmac.compare_digest(invitation.nonce, claims.nonce):
        return f"token_withdrawn: the token was withdrawn, or a newer one was made; {again}"
    wanted = invitation.member.raft_address
    if address != wanted:
        return (
            f"token_address: node {node_id} was added at {wanted} and comes as {address}: correct"
            " hostname and raft_port in its file, or add it again"
        )
    return ""


def _split(text: str) -> tuple[str, Claims, bytes]:
    parts = text.strip().split(".")
    if len(text) > CHARS_MAX or not text.isascii() or len(parts) != 3 or parts[0] != MARK:
        raise TokenError("the text is no join token of this version")
    try:
        claims, shown = _CLAIMS.decode(_bytes(parts[1])), _bytes(parts[2])
    except (msgspec.MsgspecError, ValueError) as error:
        raise TokenError("the join token is cut short or damaged") from error
    if not claims.nonce.isascii():
        raise TokenError("the join token is damaged")
    return parts[1], claims, shown


def _cluster(cluster_id: str) -> bytes:
    return hashlib.sha256(cluster_id.encode()).digest()[:CLUSTER_BYTES]


def _proof(secret: bytes, body: str) -> bytes:
    key = hmac.new(secret, _KEY, hashlib.sha256).digest()
    return hmac.new(key, f"{MARK}.{body}".encode(), hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
