"""Rule S5: a server that just became primary, or recovered, acknowledges nothing before k members
of its set have the end of its recovery."""

from __future__ import annotations

from collections.abc import Mapping

from ramd.domain.sync import SyncMember
from tests.simulation_ha.checkers.base import Acked, Broken, Checker, Handler


class ProvenStart(Checker):
    """Looked at with the first acknowledgement of each start of a server."""

    def __init__(self, hosts: Mapping[int, object]) -> None:
        super().__init__(hosts)  # type: ignore[arg-type]
        self._seen: set[tuple[int, int]] = set()

    def handlers(self) -> Mapping[type, Handler]:
        return {Acked: self._acked}

    def _acked(self, event: Acked) -> None:
        host, server = event.host, event.server
        key = (server.pid, host.page.start)
        if key in self._seen:
            return
        self._seen.add(key)
        if not host.world.loads_extension:
            return
        target = host.conf.sync.target
        if host.conf.sync.blocking:
            raise Broken(f"S5: node {host.node_id} acknowledges under a replica's configuration")
        have = sum(1 for member in target.members if self._has(member, server.recovered_to))
        if have < target.k:
            raise Broken(
                f"S5: node {host.node_id} acknowledges its first write; {have} of {target.k}"
                f" members have its end of recovery at {server.recovered_to}"
            )

    def _has(self, member: SyncMember, lsn: int) -> bool:
        other = self.hosts[member.node_id]
        return other.record.copy == member.copy and other.disk.end >= lsn
