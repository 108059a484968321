"""This node's lease as its holder keeps it: renewed in time, or given back again and again.

Must not live here: the rules of the lease (`pgraft.core.lease`). Start reading at `LeaseKeeper`.
"""

from __future__ import annotations

from pgraft.node import Node

RENEWALS_PER_TTL = 10


class LeaseKeeper:
    """Renews the epoch this node holds; once it was released, repeats the release instead."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._evidence: tuple[int, bytes] | None = None

    def turn(self) -> None:
        """Ask for one more ttl, or tell once more that the epoch was given back. Called several
        times per ttl, and at once when there is a new grant or somebody new to ask."""
        holder = self._node.holder
        if holder.epoch == 0:
            return
        if self._evidence is not None and self._evidence[0] == holder.epoch:
            holder.release(self._evidence[1])
        else:
            holder.renew()

    def release(self, epoch: int, evidence: bytes) -> None:
        """Give `epoch` back, now and until it has moved. The caller has latched it durably."""
        self._evidence = (epoch, evidence)
        if self._node.holder.epoch == epoch:
            self._node.holder.release(evidence)
