"""What a daemon remembers between beats so that `decide` can stay a pure function.

Lives here: the fold, and what follows from it about a server that ends again and again. Start
reading at `remember`.
"""

from __future__ import annotations

from dataclasses import replace

from ramd.domain.decision import ClusterView, Memory
from ramd.domain.model import StartMode
from ramd.policy.picture import living, serving

QUICK_NS = 30_000_000_000
"""An epoch that a node got again itself and that ends within this time ended quickly."""
PAUSE_FIRST_NS = 2_000_000_000
PAUSE_MAX_NS = 60_000_000_000


def remember(view: ClusterView) -> Memory:
    """`view.memory` brought up to date with what the rest of `view` shows.

    To be called at each beat, before `decide`, whether or not this node is the coordinator.
    """
    before, epoch = _furthest(view, _heard(view, _of_this_epoch(view))), view.state.epoch
    if not serving(view):
        return replace(before, serving_since_ns=None)
    since_ns = before.serving_since_ns if before.served_epoch == epoch else None
    return replace(
        before,
        served_epoch=max(before.served_epoch, epoch),
        serving_since_ns=view.now_ns if since_ns is None else since_ns,
    )


def restart_pause_ns(view: ClusterView) -> int:
    """How long a further restart in place must wait: doubled with each quick end, bounded; 0 for
    a server that did not just get its own epoch again."""
    quick = view.memory.quick_ends + _ended_quickly(view, view.memory)
    if not quick:
        return 0
    return min(PAUSE_MAX_NS, PAUSE_FIRST_NS << min(quick - 1, 10))


def _heard(view: ClusterView, before: Memory) -> Memory:
    """Since when the holder has had somebody to talk to."""
    reign = view.state.reign
    if reign is None or living(view, reign.node_id) is None:
        return replace(before, heard_since_ns=None)
    return before if before.heard_since_ns else replace(before, heard_since_ns=view.now_ns)


def _furthest(view: ClusterView, before: Memory) -> Memory:
    """What the holder said of its WAL counts also when it has nothing to say any more: its daemon
    has begun anew beside a server that is down."""
    reign = view.state.reign
    seen = view.heard.get(reign.node_id) if reign is not None else None
    position = seen.observation.position if seen is not None else None
    if reign is None or position is None or position.timeline != reign.timeline:
        return before
    furthest = max(before.primary_lsn or position.lsn, position.lsn)
    return replace(before, primary_lsn=furthest)


def _of_this_epoch(view: ClusterView) -> Memory:
    """`view.memory`, with the epoch before counted if another has begun since."""
    before, epoch = view.memory, view.state.epoch
    if before.epoch == epoch:
        return before
    again = len(view.state.reigns) > 1 and _in_place(view, -1)
    quick = before.quick_ends + _ended_quickly(view, before, last=-2) if again else 0
    return replace(
        before,
        epoch=epoch,
        epoch_since_ns=view.now_ns,
        heard_since_ns=None,
        primary_lsn=None,
        quick_ends=quick,
    )


def _ended_quickly(view: ClusterView, memory: Memory, last: int = -1) -> bool:
    """The epoch that `memory` is of was a restart in place and is younger than `QUICK_NS`."""
    if len(view.state.reigns) < 1 - last:
        return False
    again = _in_place(view, last)
    known = view.state.reigns[last].epoch == memory.epoch
    return again and known and view.now_ns - memory.epoch_since_ns < QUICK_NS


def _in_place(view: ClusterView, position: int) -> bool:
    """The server of that epoch was restarted for it, where it was."""
    reign, before = view.state.reigns[position], view.state.reigns[position - 1]
    return reign.node_id == before.node_id and reign.start is not StartMode.RESUME
