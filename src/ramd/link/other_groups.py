"""Says once of each node that it has refused this one as a member of another group.

After a recovery from one member (`ramd.recovery`) that is what the old members meet. It is a claim
that anybody could make: it is told to people, and nothing else follows from it.
"""

from __future__ import annotations

from pgraft.net.transport import Refusal
from ramd import events

CODE = "cluster_id"
TOLD_MAX = 64


class OtherGroups:
    """Hears refused connections."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def on_refused(self, refusal: Refusal) -> None:
        """A connection was refused; what this side refuses, the other side is to be told."""
        node = int(refusal.node)
        if (
            not refusal.by_peer
            or refusal.code != CODE
            or node in self._told
            or len(self._told) >= TOLD_MAX
        ):
            return
        self._told.add(node)
        events.emit(events.OtherGroup(node=node, why=refusal.text))
