"""What daemons tell each other at each beat, and the snapshot of the state, as bytes.

Lives here: `Beat` and the codecs of values that travel outside the log. Must not live here: the
log's commands (`ramd.state.commands`). Start reading at `Beat`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.decision import Directive
from ramd.domain.model import ClusterState
from ramd.domain.observation import Observation
from ramd.state.commands import decode_tagged, seal_envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What the coordinator sends to every node: the directive and what it has heard.

    `directive` is None while the coordinator must not tell nodes anything. `ages_ms[i]` is how
    long ago `observations[i]` was received when the beat was made. `state_index` is the last
    index applied at the coordinator, so that a node knows how far it is behind.
    """

    directive: Directive | None
    observations: tuple[Observation, ...]
    coordinator: int
    state_index: int
    term: int = 0
    ages_ms: tuple[int, ...] = ()


def encode_observation(observation: Observation) -> bytes:
    """The bytes of one node's observation."""
    return seal_envelope("observation", observation)


def decode_observation(data: bytes) -> Observation:
    """Reverse of `encode_observation`. Raises UndecodableError."""
    return decode_tagged(data, "observation", Observation)


def encode_directive(directive: Directive) -> bytes:
    """The bytes of a directive on its own, as kept on a node's disk."""
    return seal_envelope("directive", directive)


def decode_directive(data: bytes) -> Directive:
    """Reverse of `encode_directive`. Raises UndecodableError."""
    return decode_tagged(data, "directive", Directive)


def encode_beat(beat: Beat) -> bytes:
    """The bytes of the coordinator's broadcast."""
    return seal_envelope("beat", beat)


def decode_beat(data: bytes) -> Beat:
    """Reverse of `encode_beat`. Raises UndecodableError."""
    return decode_tagged(data, "beat", Beat)


def encode_state(state: ClusterState) -> bytes:
    """The snapshot of the replicated state."""
    return seal_envelope("state", state)


def decode_state(data: bytes) -> ClusterState:
    """Reverse of `encode_state`. Raises UndecodableError."""
    return decode_tagged(data, "state", ClusterState)
