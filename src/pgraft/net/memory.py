"""A network inside one process: frames are encoded, may be lost, late or cut off, by seed.

Lives here: the transport that tests use. Must not live here: anything of a real socket. Start
reading at `MemoryNetwork`. Every frame passes through the wire format, so what cannot travel by TCP
cannot travel here. Identities are compared as in the hello, and what a peer holds is asked about;
secrets are not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from pgraft.core.types import Append, NodeId, PeerRecord
from pgraft.identity import Identity, JoinAnswer, JoinRequest, Stage
from pgraft.net.address import Address, parse_address
from pgraft.net.hello import Hello, Refuse, hello_of
from pgraft.net.judge import Presence, Roster, judge, standing
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
        self._members: dict[NodeId, Member] = {}
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

    async def ask(self, identity: Identity, request: JoinRequest, seed: Address) -> JoinAnswer:
        """`pgraft.net.asking.Asker` here: the member whose own address is `seed` is asked."""
        member = next((m for m in self._members.values() if m.own_address() == seed), None)
        if member is None or member.sink is None:
            return JoinAnswer.pending(f"{seed.host}:{seed.port} cannot be reached")
        asker = Presence(identity=identity, roster=Roster.recorded(identity), join=request)
        theirs = hello_of(identity, b"", NodeId(0), join=request)
        refuse = judge(member.presence(), theirs) or judge(asker, member.hello())
        refuse = refuse or standing(member.presence(), theirs)
        if refuse is None:
            return member.sink.host.on_join(request)
        if refuse.code == "not_formed":
            return JoinAnswer.pending(refuse.text)
        return JoinAnswer.refused(refuse.code, refuse.text)

    # For MemoryTransport.

    def join(self, member: Member) -> None:
        """Take part; links to all present members that this one may speak to."""
        present = self._members.get(member.node)
        assert present is None, f"node {member.node} takes part twice"
        self._members[member.node] = member
        self._introduce(member)

    def revise(self, member: Member) -> None:
        """This one knows other peers than before: end what does not fit, link what does."""
        for other in list(self._members.values()):
            if other is not member and not member.may_keep(other.identity):
                _part(member, other)
        self._introduce(member)

    def leave(self, member: Member) -> None:
        """Be gone: every peer's link to it goes down."""
        if self._members.get(member.node) is member:
            del self._members[member.node]
        for other in list(self._members.values()):
            _part(member, other)

    def carry(self, sender: Member, to: NodeId, data: bytes) -> bool:
        """Take one frame on its way."""
        receiver = self._members.get(to)
        if receiver is None or to not in sender.linked:
            return False
        if (sender.node, to) in self._cut or self._rng.random() < self.drop:
            return True
        loop = asyncio.get_running_loop()
        loop.call_later(self._rng.uniform(*self.delay_s), self._arrive, sender, receiver, data)
        return True

    def _introduce(self, member: Member) -> None:
        for other in list(self._members.values()):
            if other is not member:
                _connect(member, other)
                _connect(other, member)

    def _arrive(self, sender: Member, receiver: Member, data: bytes) -> None:
        linked = receiver.node in sender.linked and sender.node in receiver.heard
        if linked and (sender.node, receiver.node) not in self._cut and receiver.sink is not None:
            receiver.sink.on_frame(sender.node, decode(data[_PREFIX_BYTES:]))


def _connect(dialer: Member, acceptor: Member) -> None:
    """One connection from dialer to acceptor, if it dials, and if neither refuses."""
    if not dialer.dials(acceptor.node) or acceptor.node in dialer.linked:
        return
    for mine, theirs in ((acceptor, dialer), (dialer, acceptor)):
        refuse = mine.refuses(theirs.hello(), accepting=mine is acceptor)
        if refuse is not None:
            _tell(refuse, mine, theirs, by_peer=False)
            _tell(refuse, theirs, mine, by_peer=True)
            return
    acceptor.heard.add(dialer.node)
    acceptor.met(dialer.identity)
    dialer.met(acceptor.identity)
    dialer.link(acceptor.node)


def _part(one: Member, other: Member) -> None:
    one.part_from(other.node)
    other.part_from(one.node)


def _tell(refuse: Refuse, told: Member, about: Member, *, by_peer: bool) -> None:
    if told.sink is not None:
        told.sink.on_refused(
            Refusal(node=about.node, code=refuse.code, text=refuse.text, by_peer=by_peer)
        )


class Member:
    """One member as the network sees it."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.roster = Roster.recorded(identity)
        self.sink: Sink | None = None
        self.peers: frozenset[NodeId] | None = None
        """Who is dialed; None: the members of the list or record."""
        self.linked: set[NodeId] = set()
        self.heard: set[NodeId] = set()
        """Whose connections it has accepted."""

    @property
    def node(self) -> NodeId:
        """Its node id."""
        return self.identity.node

    def presence(self) -> Presence:
        """This member at this moment."""
        position = None if self.sink is None else self.sink.host.held()
        return Presence(identity=self.identity, roster=self.roster, position=position)

    def hello(self) -> Hello:
        """How it presents itself."""
        return hello_of(self.identity, b"", NodeId(0), position=self.presence().position)

    def dials(self, node: NodeId) -> bool:
        """Whether it makes a connection to this node."""
        return node in (self.identity.known_nodes() if self.peers is None else self.peers)

    def refuses(self, theirs: Hello, *, accepting: bool) -> Refuse | None:
        """Why this member does not speak with the other, None if it does."""
        refuse = judge(self.presence(), theirs)
        if refuse is None and accepting:
            refuse = standing(self.presence(), theirs) or self._regressed(theirs)
        return refuse

    def may_keep(self, peer: Identity) -> bool:
        """Whether this peer fits what is known now."""
        if self.refuses(hello_of(peer, b"", NodeId(0)), accepting=True) is not None:
            return False
        return self.dials(peer.node) or peer.node not in self.linked

    def own_address(self) -> Address | None:
        """Where others would dial it."""
        record = self.identity.record
        members = self.identity.founders if record is None else record.founders()
        listed = {peer.node: peer.address for peer in members}
        listed.update({peer.node: peer.address for peer in self.roster.peers.values()})
        own = listed.get(self.node)
        return None if own is None else parse_address(own)

    def met(self, peer: Identity) -> None:
        """A hello with `peer` went well."""
        if self.sink is not None:
            self.sink.on_peer(
                Peer(node=peer.node, uuid=peer.uuid, stage=peer.stage, cluster_id=peer.cluster_id)
            )

    def link(self, peer: NodeId) -> None:
        """Its own connection to `peer` is usable."""
        self.linked.add(peer)
        if self.sink is not None:
            self.sink.on_link(peer, True)

    def part_from(self, peer: NodeId) -> None:
        """The connections between this side and `peer` are gone."""
        self.heard.discard(peer)
        if peer not in self.linked:
            return
        self.linked.discard(peer)
        if self.sink is not None:
            self.sink.on_link(peer, False)

    def _regressed(self, theirs: Hello) -> Refuse | None:
        if theirs.position is None or self.sink is None or not self.roster.names(theirs):
            return None
        if not self.sink.host.on_position(theirs.node, *theirs.position):
            return None
        return Refuse(code="regressed", text=f"node {theirs.node} holds less than it has confirmed")


class MemoryTransport:
    """`pgraft.net.transport.Transport` inside one process."""

    def __init__(self, network: MemoryNetwork, identity: Identity) -> None:
        self._network = network
        self._member = Member(identity)

    async def start(self, sink: Sink) -> None:
        """See Transport.start."""
        self._member.sink = sink
        self._network.join(self._member)

    def send(self, to: NodeId, frame: Frame) -> bool:
        """See Transport.send."""
        data = encode_append(frame) if isinstance(frame, Append) else encode(frame)
        return self._network.carry(self._member, to, data)

    def linked(self, to: NodeId) -> bool:
        """See Transport.linked."""
        return to in self._member.linked

    def set_identity(self, identity: Identity) -> None:
        """See Transport.set_identity."""
        self._member.identity = identity
        self._member.roster = Roster.recorded(identity)
        if identity.stage is Stage.STARTED and self._member.sink is not None:
            self._network.leave(self._member)
            asyncio.get_running_loop().call_soon(self._rejoin)

    def set_peers(self, peers: Sequence[PeerRecord], removed: Sequence[str]) -> None:
        """See Transport.set_peers."""
        self._member.roster = Roster.of(peers, removed)
        self._member.peers = frozenset(peer.node for peer in peers)
        if self._member.sink is not None:
            asyncio.get_running_loop().call_soon(self._revise)

    async def close(self) -> None:
        """See Transport.close."""
        self._member.sink = None
        self._network.leave(self._member)

    def _rejoin(self) -> None:
        if self._member.sink is not None:
            self._network.join(self._member)

    def _revise(self) -> None:
        if self._member.sink is not None:
            self._network.revise(self._member)
