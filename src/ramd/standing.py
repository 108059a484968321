"""Whether a node, or all of them, do their part, by what was heard of them. Plain readings."""

from __future__ import annotations

from ramd.domain.model import ClusterState
from ramd.domain.observation import FenceKind, Observation, ServerRole, ServerState
from ramd.domain.service import Snapshot
from ramd.policy.syncset import synchronous


def serves(observation: Observation, state: ClusterState) -> bool:
    """This node accepts writes as the primary of the present epoch."""
    return (
        observation.role is ServerRole.PRIMARY
        and observation.state is ServerState.RUNNING
        and observation.accepting
        and not observation.fenced
        and observation.epoch_opened == state.epoch
    )


def all_serve(picture: Snapshot) -> bool:
    """One primary serves and every other member streams from it, by the word of either end; where
    commits are to wait for replicas, they do."""
    state = picture.state
    if state.reign is None:
        return False
    primary = picture.of(state.reign.node_id)
    if primary is None or not serves(primary.observation, state):
        return False
    if not _waits_as_wanted(primary.observation, state):
        return False
    others = {m.node_id for m in state.members} - {state.reign.node_id}
    heard = (picture.of(node) for node in others - set(primary.observation.streaming_replicas))
    return all(
        replica is not None and replica.observation.upstream == state.reign.node_id
        for replica in heard
    )


def _waits_as_wanted(primary: Observation, state: ClusterState) -> bool:
    """No synchronous set is wanted or can be proven, or there is one and it is proven."""
    if primary.fence is not FenceKind.EXTENSION or not synchronous(state, primary.node_id):
        return True
    return state.sync.target is None and bool(state.sync.goal.members)
