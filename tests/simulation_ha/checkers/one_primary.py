"""Rules S3 and S6: one primary per epoch, and each timeline number is one reign's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tests.simulation_ha.checkers.base import Broken, Checker, Handler, Promoted, Started

if TYPE_CHECKING:
    from tests.support.ha_host import Host


class OnePrimary(Checker):
    def __init__(self, hosts: Mapping[int, Host]) -> None:
        super().__init__(hosts)
        self._holders: dict[int, int] = {}
        self._timelines: dict[int, int] = {}

    def handlers(self) -> Mapping[type, Handler]:
        return {Promoted: self._promoted, Started: self._started}

    def _started(self, event: Started) -> None:
        if event.primary:
            self._one(event.host.record.opened_epoch, event.host.node_id)

    def _promoted(self, event: Promoted) -> None:
        host = event.host
        epoch, timeline = host.record.opened_epoch, host.disk.timeline
        self._one(epoch, host.node_id)
        other = self._timelines.setdefault(timeline, epoch)
        if other != epoch:
            raise Broken(f"S6: timeline {timeline} is of epoch {other} and of epoch {epoch}")

    def _one(self, epoch: int, node_id: int) -> None:
        other = self._holders.setdefault(epoch, node_id)
        if other != node_id:
            raise Broken(f"S3: node {other} and node {node_id} are primary of epoch {epoch}")
