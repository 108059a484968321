"""What other members have been seen to promise, for as long as this process runs.

Lives here: the newest end of log each peer confirmed or claimed, and who was caught with less. Must
not live here: what follows from it for quorums (see `replication`, `election`). Start reading at
`Promises.heard`.

A member whose disk was set back (a copy, a snapshot of its machine) has forgotten what others count
on: an acknowledged entry, a vote. It must not be counted again before it is admitted anew. Without
the memory of a peer this cannot be seen at all.
"""

from __future__ import annotations

from pgraft.core.types import Index, NodeId, Term

NOWHERE = (Term(0), Index(0))


class Promises:
    """By peer: the end of log it confirmed, and the round by which that was known."""

    def __init__(self) -> None:
        self._ends: dict[NodeId, tuple[Term, Index]] = {}
        self._acked: dict[NodeId, tuple[Index, int]] = {}
        self.regressed: frozenset[NodeId] = frozenset()

    def confirmed(self, peer: NodeId) -> tuple[Term, Index]:
        """The highest (last term, last index) the peer has confirmed or claimed, else zeros."""
        return self._ends.get(peer, NOWHERE)

    def claimed(self, peer: NodeId, term: Term, index: Index) -> None:
        """The peer says that its durable log reaches (term, index)."""
        self._ends[peer] = max(self._ends.get(peer, NOWHERE), (term, index))

    def acked(self, peer: NodeId, term: Term, match: Index, last_round: int) -> None:
        """The peer acknowledged entries of this leadership, whose newest round is `last_round`."""
        self.claimed(peer, term, match)
        if match > self._acked.get(peer, (0, 0))[0]:
            self._acked[peer] = (match, last_round)

    def heard(self, peer: NodeId, number: int, last: Index) -> bool:
        """The peer answered a round with the end of its log; True if it was just caught with less
        than it had acknowledged.

        Only a round that began after the acknowledgement proves it: older answers may be late. In
        one term a follower's log never falls below what the leader has matched.
        """
        match, known_by = self._acked.get(peer, (0, 0))
        if number <= known_by or last >= match or peer in self.regressed:
            return False
        self.regressed |= {peer}
        return True

    def new_leadership(self) -> None:
        """Another term: a tail that was never committed may be cut now, and that breaks nothing."""
        self._acked.clear()

    def forget(self, peer: NodeId) -> None:
        """A new member has this id now."""
        self._ends.pop(peer, None)
        self._acked.pop(peer, None)
        self.regressed -= {peer}
