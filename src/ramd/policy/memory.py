"""What a daemon remembers between beats so that `decide` can stay a pure function.

Lives here: the fold. Start reading at `remember`.
"""

from __future__ import annotations

from ramd.domain.decision import ClusterView, Memory
from ramd.policy.picture import serving


def remember(view: ClusterView) -> Memory:
    """`view.memory` brought up to date with what the rest of `view` shows.

    To be called at each beat, before `decide`, whether or not this node is the coordinator.
    """
    before, epoch = view.memory, view.state.epoch
    if not serving(view):
        return Memory(served_epoch=before.served_epoch)
    since_ns = before.serving_since_ns if before.served_epoch == epoch else None
    return Memory(
        served_epoch=max(before.served_epoch, epoch),
        serving_since_ns=view.now_ns if since_ns is None else since_ns,
    )
