"""Whether a node, or all of them, do their part, by what was heard of them. Plain readings."""

from __future__ import annotations

from ramd.domain.model import ClusterState
from ramd.domain.observation import Observation, ServerRole, ServerState
from ramd.domain.service import Snapshot


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
    """One primary serves and every other member streams from it, by the word of either end."""
    state = picture.state
    if state.reign is None:
        return False
    primary = picture.of(state.reign.node_id)
    if primary is None or not serves(primary.observation, state):
        return False
    others = {m.node_id for m in state.members} - {state.reign.node_id}
    heard = (picture.of(node) for node in others - set(primary.observation.streaming_replicas))
    return all(
        replica is not None and replica.observation.upstream == state.reign.node_id
        for replica in heard
    )
