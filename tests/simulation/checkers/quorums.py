"""Quorums counted afresh, so that the checkers do not lean on the arithmetic of the core."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import combinations

from pgraft.core.types import Config, NodeId


def majority(group: frozenset[NodeId], some: frozenset[NodeId]) -> bool:
    """Whether `some` hold more than half of `group`."""
    return 2 * len(group & some) > len(group)


def quorum(config: Config, some: frozenset[NodeId]) -> bool:
    """Whether `some` decide for `config`: in both halves while it is joint (thesis §4.3)."""
    return majority(config.voters, some) and (
        not config.outgoing or majority(config.outgoing, some)
    )


@cache
def _all_meet(halves: tuple[frozenset[NodeId], ...]) -> bool:
    first, second = (
        Config(voters=halves[0], outgoing=halves[1]),
        Config(voters=halves[2], outgoing=halves[3]),
    )
    everybody = frozenset[NodeId]().union(*halves)
    return not any(
        quorum(first, frozenset(some)) and quorum(second, everybody - frozenset(some))
        for size in range(len(everybody) + 1)
        for some in combinations(sorted(everybody), size)
    )


def all_meet(first: Config, second: Config) -> bool:
    """Whether every quorum of one shares a voter with every quorum of the other."""
    return _all_meet((first.voters, first.outgoing, second.voters, second.outgoing))


def nodes(some: Iterable[NodeId]) -> str:
    """Node ids for a message."""
    return "{" + ", ".join(str(node) for node in sorted(some)) + "}"
