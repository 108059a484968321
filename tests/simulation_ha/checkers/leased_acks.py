"""Rule S2: a write is acknowledged only under an unexpired lease of the newest epoch."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation_ha.checkers.base import (
    Acked,
    Broken,
    Checker,
    Handler,
    Promoted,
    Published,
)


class LeasedAcks(Checker):
    """The lease is the one that the group granted (`Host.lease`), not what the page says."""

    newest = 0
    """Highest epoch that any server was opened to clients for."""

    def handlers(self) -> Mapping[type, Handler]:
        opened = self._opened
        return {Published: opened, Promoted: opened, Acked: self._acked}

    def _opened(self, event: Published | Promoted) -> None:
        self.newest = max(self.newest, event.host.record.opened_epoch)

    def _acked(self, event: Acked) -> None:
        host = event.host
        epoch, (held, deadline_ns) = host.record.opened_epoch, host.lease
        if epoch < self.newest:
            raise Broken(
                f"S2: node {host.node_id} acknowledges write {event.record.uid} in epoch {epoch}"
                f" after epoch {self.newest} was opened"
            )
        if held != epoch or host.clock() >= deadline_ns:
            over_ms = (host.clock() - deadline_ns) // 1_000_000
            raise Broken(
                f"S2: node {host.node_id} acknowledges write {event.record.uid} in epoch {epoch};"
                f" its lease is of epoch {held} and over for {over_ms} ms"
            )
