"""Rule S8: whoever becomes primary does so by a recorded decision, with reason and inputs."""

from __future__ import annotations

from collections.abc import Mapping

from ramd.domain.model import StartMode
from ramd.policy.rules import RULES
from tests.simulation_ha.checkers.base import Broken, Checker, Granted, Handler

NAMES = {rule.name for rule in RULES}


class Explained(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Granted: self._granted}

    def _granted(self, event: Granted) -> None:
        record, first = event.payload.record, event.payload.reign.start is StartMode.OPEN
        if record.rule not in NAMES or not record.reason or not record.details:
            raise Broken(f"S8: epoch {event.epoch} begins by no rule: {record}")
        judged = f"node {event.holder}: eligible"
        if not first and not any(line.startswith(judged) for line in record.details):
            raise Broken(f"S8: epoch {event.epoch} does not say why node {event.holder}: {record}")
