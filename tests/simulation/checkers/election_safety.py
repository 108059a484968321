"""Election safety (Raft §5.2): at most one leader per term, and a quorum's votes behind it.

The second half is what makes the first true: of the voters of the leader's own configuration a
quorum must have this vote on disk, or have gone on to a later term since.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.config import all_voters
from pgraft.core.types import NodeId, Term
from tests.simulation.checkers.base import Checker, CheckFailed, Handler, Led
from tests.simulation.checkers.quorums import nodes, quorum


class ElectionSafety(Checker):
    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Led: self._led}

    def _led(self, led: Led) -> None:
        first = self._leaders.setdefault(led.term, led.node)
        if first != led.node:
            raise CheckFailed(f"term {led.term} has two leaders: {first} and {led.node}")
        # Whoever is left out by a configuration that is not committed yet may have to commit it.
        if not any(led.node in all_voters(config) for config in led.possible):
            raise CheckFailed(f"node {led.node} leads term {led.term}, no voter of {led.possible}")
        behind = set()
        for voter in all_voters(led.config):
            disk = led.disks.get(voter)
            ballot = disk.hard_state if disk is not None else None
            if ballot is None or ballot.term < led.term:
                continue
            if ballot.term > led.term or ballot.vote == led.node:
                behind.add(voter)
        if not quorum(led.config, frozenset(behind)):
            raise CheckFailed(
                f"node {led.node} leads term {led.term} with the votes of {nodes(behind)} on disk, "
                f"which are no quorum of {led.config}"
            )
