"""Rule S6: a replica continues the WAL of the one that it follows, record by record."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation_ha.checkers.base import (
    Attached,
    Broken,
    Checker,
    Handler,
    Jammed,
    Received,
)


class Lineage(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Jammed: self._jammed, Received: self._received, Attached: self._attached}

    def _attached(self, event: Attached) -> None:
        daemon = event.host.daemon
        if daemon is None:
            return
        sealed = event.host.record.seal
        if sealed is not None:
            raise Broken(f"H2: node {event.host.node_id} streams under the seal {sealed.attempt}")

    def _jammed(self, event: Jammed) -> None:
        raise Broken(
            f"S6: node {event.host.node_id} follows node {event.source.node_id}, whose WAL is"
            f" another one under the same numbers (timeline {event.host.disk.timeline})"
        )

    def _received(self, event: Received) -> None:
        wal = event.disk.wal
        if len(wal) > 1 and wal[-1].end <= wal[-2].end:
            raise Broken(f"S6: WAL of node {event.host.node_id} runs backwards")
