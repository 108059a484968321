"""Rule S7: a data directory is deleted only because a person asked for it by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation_ha.checkers.base import Broken, Checker, Handler, Removed


class DataKept(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Removed: self._removed}

    def _removed(self, event: Removed) -> None:
        daemon = event.host.daemon
        removal = daemon.link.state().removal if daemon is not None else None
        if removal is None or not removal.remove_data:
            raise Broken(f"S7: node {event.host.node_id} deletes its data directory unasked")
