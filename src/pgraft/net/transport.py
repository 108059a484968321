"""What every transport promises: frames to authenticated peers, bounded, without waiting.

Lives here: the `Transport` and `Sink` protocols, what is known of a peer, refused connections.
Must not live here: sockets, the hello itself. Start reading at `Transport`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pgraft.core.types import Index, NodeId, PeerRecord, Term
from pgraft.identity import Identity, JoinAnswer, JoinRequest, Stage
from pgraft.wire import Frame

_LOG = logging.getLogger("pgraft.net")
_REPEAT_NS: Final = 60_000_000_000
_CAUSES_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A peer that has passed the hello, as it presented itself then."""

    node: NodeId
    uuid: str
    stage: Stage
    cluster_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A connection that was refused.

    `code` is one of `hello.REFUSALS`, "garbage", "timeout" or "flood". "removed" and "regressed"
    said by a peer are proven: this member was removed, or holds less than it has confirmed, and
    must not go on as it is. Everything else is a claim like any other. `node` is the peer's own
    claim (0 when it made none); `by_peer`: the other side refused.
    """

    node: NodeId
    code: str
    text: str
    by_peer: bool


class Host(Protocol):
    """Who is asked during a hello. Called in the event loop; must not raise or block."""

    def on_join(self, request: JoinRequest) -> JoinAnswer:
        """A blank member that knows the cluster secret asks to be admitted."""
        ...

    def on_position(self, peer: NodeId, term: Term, index: Index) -> bool:
        """Whether `peer`, whose log is durable up to this, has lost something it had confirmed."""
        ...

    def held(self) -> tuple[Term, Index] | None:
        """Last term and index durable here at this moment; None: nobody says."""
        ...


class Sink(Protocol):
    """Who receives what a transport brings. Called in the event loop; must not raise or block."""

    def on_frame(self, sender: NodeId, frame: Frame) -> None:
        """One frame from an authenticated peer, in the order in which that connection sent it."""
        ...

    def on_link(self, peer: NodeId, up: bool) -> None:
        """The outgoing connection is usable, or is gone (end of file, reset, refused).

        A hint about liveness only. Silence is never reported here.
        """
        ...

    def on_peer(self, peer: Peer) -> None:
        """A hello was completed with this peer, in either direction."""
        ...

    def on_refused(self, refusal: Refusal) -> None:
        """A connection was refused by either side."""
        ...

    @property
    def host(self) -> Host:
        """Who is asked during a hello."""
        ...


class Transport(Protocol):
    """Connections of one member to its peers. One event loop; no call blocks."""

    async def start(self, sink: Sink) -> None:
        """Listen, and keep dialing every peer until `close`. Raises ListenError."""
        ...

    def send(self, to: NodeId, frame: Frame) -> bool:
        """Queue one frame. False when it was dropped: no connection, or the queue is full.

        True promises nothing about arrival. Raises WireError for a frame that is too large.
        """
        ...

    def linked(self, to: NodeId) -> bool:
        """Whether the outgoing connection to this peer is usable."""
        ...

    def set_identity(self, identity: Identity) -> None:
        """Present this identity from now on.

        At stage STARTED every connection that was made before either side had started is closed:
        the next hello tells the peer, and no frame of the group travels on a connection whose
        sides had no cluster id yet.
        """
        ...

    def set_peers(self, peers: Sequence[PeerRecord], removed: Sequence[str]) -> None:
        """Who the members are from now on: all but this one are dialed, and may connect.

        Connections of those that are none any more end. A member whose uuid is in `removed` is told
        that it was removed and will believe it, so give uuids of a committed configuration only. A
        member that is not listed may connect if it was admitted later than any that is: this one
        lags. Takes the place of the list and the record that the transport was made with.
        """
        ...

    async def close(self) -> None:
        """End every connection and stop listening. A second call does nothing."""
        ...


class ListenError(Exception):
    """The peer port cannot be opened. The text names address and cause."""


class Refusals:
    """Counts refused connections by cause and lets each cause be logged once a minute."""

    __slots__ = ("_clock", "_counts", "_logged_at")

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._logged_at: dict[tuple[NodeId, str, bool], int] = {}

    def note(self, refusal: Refusal) -> None:
        """Count it, and log it unless this cause from this node was logged within the minute."""
        self._counts[refusal.code] = self._counts.get(refusal.code, 0) + 1
        now = self._clock()
        cause = (refusal.node, refusal.code, refusal.by_peer)
        last = self._logged_at.get(cause)
        if last is not None and now - last < _REPEAT_NS:
            return
        if len(self._logged_at) >= _CAUSES_MAX:
            # A stranger who keeps inventing node ids must not grow this table or flood the log.
            self._logged_at = {c: t for c, t in self._logged_at.items() if now - t < _REPEAT_NS}
            if len(self._logged_at) >= _CAUSES_MAX:
                return
        self._logged_at[cause] = now
        who = "peer refused this node" if refusal.by_peer else "connection refused"
        _LOG.warning("%s (%s): %s", who, refusal.code, refusal.text)

    def counts(self) -> Mapping[str, int]:
        """How many were refused since the start, by code."""
        return dict(self._counts)
