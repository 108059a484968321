"""Members on loopback that speak TCP and do nothing else: no log, no forming.

Lives here: the transport of each, what it was told, and waiting for links. Must not live here: Raft
(`pgraft_cluster`). Start reading at `Net`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from pgraft.core.types import Heartbeat, Index, NodeId, PeerRecord, Term
from pgraft.identity import (
    Founder,
    FoundingMember,
    FoundingRecord,
    Identity,
    JoinAnswer,
    JoinRequest,
    Stage,
)
from pgraft.net.tcp import Address, TcpOptions, TcpTransport, addresses
from pgraft.net.tls import TlsFiles
from pgraft.net.transport import Peer, Refusal
from pgraft.wire import Frame
from tests.support.ports import free_port_block
from tests.support.wait import wait_for_async

SECRET = b"0123456789abcdef"
BEAT = Heartbeat(term=Term(1), commit=Index(0), round=1)
DEADLINE_S = 15


@dataclass
class Sink:
    """What one transport told, and what it is answered."""

    frames: list[tuple[NodeId, Frame]] = field(default_factory=list)
    links: list[tuple[NodeId, bool]] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    asked: list[JoinRequest] = field(default_factory=list)
    answer: JoinAnswer = field(default_factory=lambda: JoinAnswer.pending("not yet"))
    confirmed: dict[NodeId, tuple[Term, Index]] = field(default_factory=dict)
    durable: tuple[Term, Index] | None = None

    def on_frame(self, sender: NodeId, frame: Frame) -> None:
        """See Sink.on_frame."""
        self.frames.append((sender, frame))

    def on_link(self, peer: NodeId, up: bool) -> None:
        """See Sink.on_link."""
        self.links.append((peer, up))

    def on_peer(self, peer: Peer) -> None:
        """See Sink.on_peer."""
        self.peers.append(peer)

    def on_refused(self, refusal: Refusal) -> None:
        """See Sink.on_refused."""
        self.refusals.append(refusal)

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """See Host.on_join."""
        self.asked.append(request)
        return self.answer

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """See Host.on_position."""
        return (term, index) < self.confirmed.get(peer, (Term(0), Index(0)))

    @property
    def host(self) -> Sink:
        """This one."""
        return self

    def held(self) -> tuple[Term, Index] | None:
        """See Host.held."""
        return self.durable

    def codes(self) -> set[str]:
        """The codes of all refusals."""
        return {refusal.code for refusal in self.refusals}


class Net:
    """Members on loopback, by node id; a test may alter the identity or the secret of one."""

    def __init__(self, size: int = 2) -> None:
        self.ports = free_port_block(size)
        self.founders = tuple(
            Founder(node=NodeId(n), address=f"localhost:{port}")
            for n, port in enumerate(self.ports, 1)
        )
        self.record = FoundingRecord(
            cluster_id="c" * 32,
            cluster_name="prod",
            members=tuple(
                FoundingMember(node=f.node, address=f.address, uuid=f"{f.node}" * 32)
                for f in self.founders
            ),
        )
        self.open: list[TcpTransport] = []

    def identity(self, node: int) -> Identity:
        """A founding member of a started group."""
        return Identity(
            node=NodeId(node),
            uuid=f"{node}" * 32,
            cluster_name="prod",
            founders=self.founders,
            stage=Stage.STARTED,
            record=self.record,
        )

    def peers(self, *nodes: int) -> tuple[PeerRecord, ...]:
        """The records of these founding members."""
        return tuple(p for p in self.record.peers() if p.node in nodes)

    async def start(
        self,
        node: int,
        identity: Identity | None = None,
        *,
        secret: bytes = SECRET,
        port: int | None = None,
        tls: TlsFiles | None = None,
        sink: Sink | None = None,
    ) -> tuple[TcpTransport, Sink]:
        """One member that listens and dials the others."""
        options = TcpOptions(
            listen=Address(host="127.0.0.1", port=port or self.ports[node - 1]),
            peers=addresses(self.founders, NodeId(node)),
            secret=secret,
            tls=tls,
        )
        transport = TcpTransport(identity or self.identity(node), options, random.Random(node))
        sink = sink or Sink()
        await transport.start(sink)
        self.open.append(transport)
        return transport, sink


async def linked(*pairs: tuple[TcpTransport, int]) -> None:
    """Wait until each transport is linked to the node beside it."""
    await wait_for_async(
        lambda: all(transport.linked(NodeId(to)) for transport, to in pairs),
        DEADLINE_S,
        "the links are up",
    )
