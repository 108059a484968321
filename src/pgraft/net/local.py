"""This member as all its connections see it: identity, secret, roster, whom to tell.

Lives here: what listener and links share. Must not live here: which connections there are.
Start reading at `Local`.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

from pgraft.core.types import Index, NodeId, Term
from pgraft.identity import Identity, JoinAnswer, JoinRequest, Stage
from pgraft.net.connection import Connection, predates_start
from pgraft.net.hello import Hello
from pgraft.net.judge import Presence, Roster
from pgraft.net.tls import Tls
from pgraft.net.transport import Peer, Refusal, Refusals, Sink


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Local:
    """One member. Without a sink nobody is told, nobody is admitted."""

    identity: Identity
    secret: bytes
    rng: random.Random
    roster: Roster
    tls: Tls | None = None
    refusals: Refusals = field(default_factory=lambda: Refusals(_now))
    sink: Sink | None = None

    def presence(self) -> Presence:
        """This member at this moment."""
        position = None if self.sink is None else self.sink.host.held()
        return Presence(identity=self.identity, roster=self.roster, position=position)

    def refused(self, refusal: Refusal) -> None:
        """Count, log and tell."""
        self.refusals.note(refusal)
        if self.sink is not None:
            self.sink.on_refused(refusal)

    def met(self, hello: Hello) -> None:
        """A hello was completed."""
        if self.sink is not None:
            peer = Peer(
                node=hello.node,
                uuid=hello.uuid,
                stage=hello.stage,
                cluster_id=hello.cluster_id,
            )
            self.sink.on_peer(peer)

    def layered(self, connection: Connection, *, accepting: bool) -> asyncio.Protocol:
        """What the socket of this connection speaks to: TLS around it, where there is TLS."""
        return connection if self.tls is None else self.tls.layer(connection, accepting=accepting)

    def belongs(self, peer: Hello) -> bool:
        """Whether this peer may speak by what is known now; it may have changed since its hello."""
        if self.identity.stage is not Stage.STARTED:
            return True
        return peer.uuid not in self.roster.removed and self.roster.fault(peer) is None

    def fits(self, connection: Connection) -> bool:
        """Whether this connection may go on by what is known now.

        Once this member has started, one that was made before either side had may not; one that is
        still in its hello is judged when that is done.
        """
        if self.identity.stage is Stage.STARTED and predates_start(connection):
            return False
        peer = connection.peer()
        return not connection.is_open or peer is None or self.belongs(peer)

    # pgraft.net.handshake.HelloHost

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """See Host.on_join."""
        if self.sink is None:
            return JoinAnswer.pending(f"node {self.identity.node} is stopping")
        return self.sink.host.on_join(request)

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """See Host.on_position."""
        return self.sink is not None and self.sink.host.on_position(peer, term, index)
