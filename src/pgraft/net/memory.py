"""A network inside one process: frames are encoded, may be lost, late or cut off, by seed.

Lives here: the transport that tests use. Must not live here: anything of a real socket. Start
reading at `MemoryNetwork`. Every frame passes through the wire format, so what cannot travel by TCP
cannot travel here. Identities are compared as in the hello; secrets are not.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from pgraft.core.types import Append, NodeId
from pgraft.identity import Identity, Stage
from pgraft.net.hello import Hello, hello_of, judge
from pgraft.net.transport import Peer, Refusal, Sink
from pgraft.wire import Frame, decode, encode, encode_append

_PREFIX_BYTES: Final = 4


class MemoryNetwork:
    """Who reaches whom. `drop` is a probability; a delay is drawn from `delay_s` for each frame.

    Frames may overtake each other when delays differ, which TCP would not do within a connection.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        drop: float = 0.0,
        delay_s: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.drop = drop
        self.delay_s = delay_s
        self._rng = rng
        self._members: dict[NodeId, MemoryTransport] = {}
        self._cut: set[tuple[NodeId, NodeId]] = set()

    def transport(self, identity: Identity) -> MemoryTransport:
        """A transport for this member; it takes part once started."""
        return MemoryTransport(self, identity)

    def cut(self, sender: NodeId, receiver: NodeId) -> None:
        """From now on nothing passes this way. Silent: nobody's link goes down."""
        self._cut.add((sender, receiver))

    def isolate(self, node: NodeId) -> None:
        """Cut `node` off from everybody, both ways."""
        for other in self._members:
            self.cut(node, other)
            self.cut(other, node)

    def heal(self) -> None:
        """Everything passes again, except what `drop` takes."""
        self._cut.clear()

    # For MemoryTransport.

    def join(self, transport: MemoryTransport) -> None:
        """Take part; links to all present members that this one may speak to."""
        present = self._members.get(transport.identity.node)
        assert present is None, f"node {transport.identity.node} takes part twice"
        self._members[transport.identity.node] = transport
        self.introduce(transport)

    def introduce(self, transport: MemoryTransport) -> None:
        """Compare with each present member, and link those that may speak."""
        for other in list(self._members.values()):
            if other is not transport and not transport.linked(other.identity.node):
                self._meet(transport, other)

    def leave(self, transport: MemoryTransport) -> None:
        """Be gone: every peer's link to it goes down."""
        if self._members.get(transport.identity.node) is transport:
            del self._members[transport.identity.node]
        for other in list(self._members.values()):
            transport.unlink(other)

    def carry(self, sender: MemoryTransport, to: NodeId, data: bytes) -> bool:
        """Take one frame on its way."""
        receiver = self._members.get(to)
        source = sender.identity.node
        if receiver is None or not sender.linked(to):
            return False
        if (source, to) in self._cut or self._rng.random() < self.drop:
            return True
        loop = asyncio.get_running_loop()
        loop.call_later(self._rng.uniform(*self.delay_s), self._arrive, sender, receiver, data)
        return True

    def _arrive(self, sender: MemoryTransport, receiver: MemoryTransport, data: bytes) -> None:
        source, to = sender.identity.node, receiver.identity.node
        if sender.linked(to) and receiver.linked(source) and (source, to) not in self._cut:
            receiver.deliver(source, decode(data[_PREFIX_BYTES:]))

    def _meet(self, one: MemoryTransport, other: MemoryTransport) -> None:
        for mine, theirs in ((one, other), (other, one)):
            refuse = judge(mine.identity, _hello(theirs.identity))
            if refuse is not None:
                for by_peer, told, about in ((False, mine, theirs), (True, theirs, mine)):
                    told.refused(
                        Refusal(
                            node=about.identity.node,
                            code=refuse.code,
                            text=refuse.text,
                            by_peer=by_peer,
                        )
                    )
                return
        one.link(other.identity)
        other.link(one.identity)


class MemoryTransport:
    """`pgraft.net.transport.Transport` inside one process."""

    def __init__(self, network: MemoryNetwork, identity: Identity) -> None:
        self.identity = identity
        self._network = network
        self._sink: Sink | None = None
        self._linked: set[NodeId] = set()

    async def start(self, sink: Sink) -> None:
        """See Transport.start."""
        self._sink = sink
        self._network.join(self)

    def send(self, to: NodeId, frame: Frame) -> bool:
        """See Transport.send."""
        data = encode_append(frame) if isinstance(frame, Append) else encode(frame)
        return self._network.carry(self, to, data)

    def linked(self, to: NodeId) -> bool:
        """See Transport.linked."""
        return to in self._linked

    def set_identity(self, identity: Identity) -> None:
        """See Transport.set_identity."""
        self.identity = identity
        if identity.stage is Stage.STARTED and self._sink is not None:
            self._network.leave(self)
            asyncio.get_running_loop().call_soon(self._rejoin)

    async def close(self) -> None:
        """See Transport.close."""
        self._sink = None
        self._network.leave(self)

    # For MemoryNetwork.

    def link(self, peer: Identity) -> None:
        """The hello with `peer` went well."""
        self._linked.add(peer.node)
        if self._sink is not None:
            self._sink.on_peer(
                Peer(node=peer.node, uuid=peer.uuid, stage=peer.stage, cluster_id=peer.cluster_id)
            )
            self._sink.on_link(peer.node, True)

    def unlink(self, other: MemoryTransport) -> None:
        """The connections between these two are gone."""
        for one, peer in ((self, other), (other, self)):
            if one.linked(peer.identity.node):
                one.drop_link(peer.identity.node)

    def drop_link(self, peer: NodeId) -> None:
        """This side's connection to `peer` is gone."""
        self._linked.discard(peer)
        if self._sink is not None:
            self._sink.on_link(peer, False)

    def deliver(self, sender: NodeId, frame: Frame) -> None:
        """A frame has arrived."""
        if self._sink is not None:
            self._sink.on_frame(sender, frame)

    def refused(self, refusal: Refusal) -> None:
        """The hello went badly."""
        if self._sink is not None:
            self._sink.on_refused(refusal)

    def _rejoin(self) -> None:
        if self._sink is not None:
            self._network.join(self)


def _hello(identity: Identity) -> Hello:
    return hello_of(identity, b"", NodeId(0))
