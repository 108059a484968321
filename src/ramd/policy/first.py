"""The very first primary: whose data directory the cluster begins with.

Lives here: the one node with an existing directory, else the lowest id; two existing ones are
refused. Must not live here: anything about later epochs. Start reading at `first_obstacle`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.decision import ClusterView
from ramd.domain.model import StartMode
from ramd.domain.observation import DataKind
from ramd.policy.picture import BLANK, living, observation

FRESH_TIMELINE = 1
"""What initdb begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstHolder:
    """Who begins, and on which timeline."""

    node_id: int
    timeline: int
    adopted: bool


def first_obstacle(view: ClusterView) -> str:
    """Why the first epoch cannot be granted yet; '' if it can. Only without any reign."""
    members = view.state.members
    if not members:
        return "the cluster has no members"
    missing = [m.node_id for m in members if observation(view, m.node_id) is None]
    if missing:
        return f"waiting to hear of {_nodes(missing)} for the first time"
    foreign = _with_data(view, DataKind.FOREIGN)
    if foreign:
        return f"{_nodes(foreign)}: the data directory holds something that is not ours"
    existing = _with_data(view, DataKind.CLUSTER)
    if len(existing) > 1:
        return f"{_nodes(existing)} each have a data directory: only one may keep its own"
    chosen = existing[0] if existing else members[0].node_id
    seen = living(view, chosen)
    if seen is None:
        return f"node {chosen}, which is to begin, is silent"
    if existing and (seen.position is None or seen.position.timeline < 1):
        return f"the timeline of node {chosen}'s data directory is not known yet"
    return ""


def first_holder(view: ClusterView) -> FirstHolder:
    """Who gets epoch 1. Only if there is no obstacle."""
    existing = _with_data(view, DataKind.CLUSTER)
    if not existing:
        node_id = view.state.members[0].node_id
        return FirstHolder(node_id=node_id, timeline=FRESH_TIMELINE, adopted=False)
    seen = observation(view, existing[0])
    assert seen is not None
    assert seen.position is not None
    return FirstHolder(node_id=existing[0], timeline=seen.position.timeline, adopted=True)


def only_first_has_data(view: ClusterView) -> bool:
    """The first primary has not recorded its system, and no other node is known to have data.

    The recording comes before the first clone, so until then its data exist once.
    """
    reign = view.state.reign
    if reign is None or reign.start is not StartMode.OPEN or view.state.system_id:
        return False
    return all(node_id == reign.node_id for node_id in _with_data(view, DataKind.CLUSTER))


def first_reopening(view: ClusterView) -> int:
    """The node that may begin anew after a first epoch that left no data at all; 0: none may."""
    if not only_first_has_data(view) or not view.lease.released:
        return 0
    if view.state.timeline_high != FRESH_TIMELINE:
        return 0  # an adopted directory is gone: only a person can say what that means
    seen = [living(view, member.node_id) for member in view.state.members]
    blank = all(one is not None and one.data in BLANK for one in seen)
    return min((member.node_id for member in view.state.members), default=0) if blank else 0


def _with_data(view: ClusterView, kind: DataKind) -> list[int]:
    nodes = (member.node_id for member in view.state.members)
    seen = ((node_id, observation(view, node_id)) for node_id in nodes)
    return [node_id for node_id, one in seen if one is not None and one.data is kind]


def _nodes(node_ids: list[int]) -> str:
    return "node " + ", ".join(str(node_id) for node_id in node_ids)
