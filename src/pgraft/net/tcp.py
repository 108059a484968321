"""Connections of one member over TCP: one dialed to each peer to send, one accepted to receive.

Lives here: the transport that listener and links make together. Must not live here: the hello and
the bytes of a connection. Start reading at `TcpTransport`, then `link`, `listener`, `connection`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgraft.core.types import Append, NodeId, PeerRecord
from pgraft.identity import Identity
from pgraft.net.address import Address, addresses, parse_address
from pgraft.net.handshake import check_secret
from pgraft.net.judge import Roster
from pgraft.net.link import Links
from pgraft.net.listener import Listener
from pgraft.net.local import Local
from pgraft.net.tls import Tls, TlsError, TlsFiles
from pgraft.net.transport import Sink
from pgraft.wire import Frame, encode, encode_append, is_bulk

__all__ = ["Address", "TcpOptions", "TcpTransport", "addresses", "parse_address"]
_LOG = logging.getLogger("pgraft.net")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    """`listen` is where this member accepts, which need not be where others dial it; `peers` are
    those it dials until `set_peers`; `secret` the cluster's. `tls`: None, or all members have it.
    """

    listen: Address
    peers: Mapping[NodeId, Address]
    secret: bytes
    tls: TlsFiles | None = None


class TcpTransport:
    """`pgraft.net.transport.Transport` over TCP.

    Raises ValueError for too short a secret, TlsError for files that cannot be used.
    """

    def __init__(self, identity: Identity, options: TcpOptions, rng: random.Random) -> None:
        check_secret(options.secret)
        self._listen = options.listen
        self._local = Local(
            identity=identity,
            secret=options.secret,
            rng=rng,
            roster=Roster.recorded(identity),
            tls=None if options.tls is None else Tls(options.tls),
        )
        self._links = Links(self._local)
        self._links.set(options.peers)
        self._listener = Listener(self._local, self._links)
        self._dropped = 0

    async def start(self, sink: Sink) -> None:
        """Listen, then dial every peer. Raises ListenError with nothing left open."""
        self._local.sink = sink
        await self._listener.start(self._listen)
        self._links.start()

    def send(self, to: NodeId, frame: Frame) -> bool:
        """See Transport.send. An append too long for one frame is shortened, not refused."""
        link = self._links.get(to)
        if link is None or link.connection is None:
            return False
        data = encode_append(frame) if isinstance(frame, Append) else encode(frame)
        sent = link.connection.send(data, bulk=is_bulk(frame))
        self._dropped += not sent
        return sent

    def linked(self, to: NodeId) -> bool:
        """Whether the outgoing connection to this peer is usable."""
        link = self._links.get(to)
        return link is not None and link.connection is not None

    def set_identity(self, identity: Identity) -> None:
        """See Transport.set_identity."""
        self._local.identity = identity
        self._local.roster = Roster.recorded(identity)
        self._changed()

    def set_peers(self, peers: Sequence[PeerRecord], removed: Sequence[str]) -> None:
        """See Transport.set_peers."""
        self._local.roster = Roster.of(peers, removed)
        self._links.set(_where(peers, self._local.identity.node))
        self._changed()

    def reload_tls(self, files: TlsFiles | None = None) -> None:
        """New handshakes use what the files hold now, established connections go on as they are.

        `files`: other files than before. Raises TlsError: then nothing has changed. It reads files
        and may be called in a thread.
        """
        if self._local.tls is None:
            raise TlsError("TLS is off: switching it on needs a restart of every member")
        self._local.tls.reload(files)

    def refusals(self) -> Mapping[str, int]:
        """How many connections were refused since the start, by code."""
        return self._local.refusals.counts()

    def dropped(self) -> int:
        """How many frames were dropped because a queue was full."""
        return self._dropped

    async def close(self) -> None:
        """End every connection and stop listening."""
        self._local.sink = None
        await self._links.close()
        await self._listener.close()

    def _changed(self) -> None:
        self._listener.changed()
        self._links.changed()


def _where(peers: Sequence[PeerRecord], myself: NodeId) -> dict[NodeId, Address]:
    where: dict[NodeId, Address] = {}
    for peer in peers:
        if peer.node != myself:
            try:
                where[peer.node] = parse_address(peer.address)
            except ValueError as error:
                # It was admitted so; the others must not be lost because of it.
                _LOG.error("node %d cannot be dialed: %s", peer.node, error)
    return where
