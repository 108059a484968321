"""Questions asked of a membership configuration.

Lives here: pure functions over `Config`. Must not live here: counting (see `quorum`), the log's
rule for when a configuration takes effect (see `log`). Start reading at `all_voters`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgraft.core.types import Config, NodeId


def founding(voters: Iterable[NodeId]) -> Config:
    """The first configuration of a group; ValueError if it has no voter or an id below 1."""
    config = Config(voters=frozenset(voters))
    if not config.voters or min(config.voters) < 1:
        raise ValueError("a group needs at least one voter, and node ids start at 1")
    return config


def all_voters(config: Config) -> frozenset[NodeId]:
    """Everybody whose vote may be needed: of both halves while a joint change runs."""
    return config.voters | config.outgoing


def all_members(config: Config) -> frozenset[NodeId]:
    """Everybody who receives the log: voters of both halves, and learners."""
    return all_voters(config) | config.learners | config.learners_next


def is_voter(config: Config, node: NodeId) -> bool:
    """Whether `node` may campaign and its vote and acks count."""
    return node in config.voters or node in config.outgoing


def is_member(config: Config, node: NodeId) -> bool:
    """Whether messages from `node` are listened to at all."""
    return is_voter(config, node) or node in config.learners or node in config.learners_next
