"""Rule S6: a replica continues the WAL of the one that it follows, record by record."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation_ha.checkers.base import (
    Broken,
    Checker,
    Handler,
    Jammed,
    Received,
)


class Lineage(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Jammed: self._jammed, Received: self._received}

    def _jammed(self, event: Jammed) -> None:
        raise Broken(
            f"S6: node {event.host.node_id} follows node {event.source.node_id}, whose WAL is"
            f" another one under the same numbers (timeline {event.host.disk.timeline})"
        )

    def _received(self, event: Received) -> None:
        host = event.host
        if host.reported is not None and host.reported == host.record.seal:
            raise Broken(
                f"H2: node {host.node_id} takes WAL after it reported under {host.reported}"
            )
        wal = event.disk.wal
        if len(wal) > 1 and wal[-1].end <= wal[-2].end:
            raise Broken(f"S6: WAL of node {event.host.node_id} runs backwards")
