"""Rule S5: a server that just became primary, started or recovered is given no lease before k
members of its set have the end of its recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ramd.domain.sync import NO_SET, SyncMember
from ramd.execute.syncing import standing_set
from tests.simulation_ha.checkers.base import Broken, Checker, Handler, Published

if TYPE_CHECKING:
    from tests.support.ha_host import Host


class ProvenStart(Checker):
    """Looked at when a lease is first published to a start of a server."""

    def __init__(self, hosts: Mapping[int, Host]) -> None:
        super().__init__(hosts)
        self._seen: set[tuple[int, int]] = set()

    def handlers(self) -> Mapping[type, Handler]:
        return {Published: self._published}

    def _published(self, event: Published) -> None:
        host, server = event.host, event.host.server
        if server is None or host.page.lease_start != host.page.start:
            return
        key = (server.pid, host.page.start)
        if key in self._seen:
            return
        self._seen.add(key)
        if not server.primary:
            raise Broken(f"S5: node {host.node_id} gets a lease and is a replica")
        # What the group has recorded: where the primary went on alone, nobody is asked.
        target = standing_set(host.daemon.state.sync) if host.daemon is not None else NO_SET
        have = sum(1 for member in target.members if self._has(member, server.recovered_to))
        if have < target.k:
            raise Broken(
                f"S5: node {host.node_id} gets a lease; {have} of {target.k} members have its end"
                f" of recovery at {server.recovered_to}"
            )

    def _has(self, member: SyncMember, lsn: int) -> bool:
        other = self.hosts[member.node_id]
        return other.record.copy == member.copy and other.disk.end >= lsn
