"""The page of a simulated host as one daemon handles it: the lease word down, the pulse up.

Start reading at `SimFence.publish`.
"""

from __future__ import annotations

from collections.abc import Collection

from ramd.domain.consensus import GroupStatus
from ramd.domain.fence import Fence, FenceCounts, Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from tests.support.ha_host import Host
from tests.support.ha_time import Actor


class SimFence(Fence):
    """The page of the host as one daemon handles it."""

    def __init__(self, host: Host, actor: Actor) -> None:
        self._host = host
        self._actor = actor
        self._bound = 0

    @property
    def guards(self) -> bool:
        return self._bound != 0

    @property
    def _dead(self) -> bool:
        return self._actor.dead

    def prepare(self) -> None:
        return

    def bind(self, postmaster_pid: int) -> bool:
        self._bound = postmaster_pid if self._host.world.loads_extension else 0
        return self.guards

    def unbind(self) -> None:
        self._bound = 0

    def start_number(self) -> int:
        page = self._host.page
        return page.start if self._bound and self._bound == page.pid else 0

    def publish(self, deadline_ns: int, start_number: int) -> None:
        host = self._host
        if not self._dead:
            host.page.deadline_ns, host.page.lease_start = deadline_ns, start_number
            host.page.draining = False
            host.world.watch.published(host)

    def shut(self, epoch: int, *, drain_at_ns: int = 0) -> None:
        host = self._host
        page, server = host.page, host.server
        if self._dead:
            return
        page.latched = max(page.latched, epoch)
        page.deadline_ns = page.lease_start = 0
        page.draining = drain_at_ns > 0
        if drain_at_ns and server is not None:
            server.actor.later(host.clock.delay_s(drain_at_ns), server.drain)

    def pulse(self) -> Pulse | None:
        host = self._host
        server = host.server
        if server is None or self._bound != server.pid or server.actor.frozen:
            return None
        if not server.accepting:
            return None
        disk = host.disk
        replica = not server.primary
        if host.page.draining and not replica:
            server.flush(len(disk.wal))
        return Pulse(
            at_ns=host.clock(),
            in_recovery=replica,
            timeline=disk.timeline,
            insert_lsn=None if replica else Lsn(disk.inserted),
            received_lsn=Lsn(disk.end) if replica and server.streamed else None,
            replayed_lsn=Lsn(disk.lsn_at(server.replayed)) if replica else None,
            fenced=not host.acknowledges(server),
            flushed_lsn=None if replica else Lsn(disk.end),
            open_xids=server.open_xids,
            streams={s.member.node_id: Lsn(s.flushed) for s in server.senders},
            sync_generation=server.generation,
            sync_defined=server.defined,
        )

    def counts(self) -> FenceCounts:
        return FenceCounts()

    def tell(
        self, status: GroupStatus, state: ClusterState, heard: Collection[int], now_ns: int
    ) -> None:
        return

    def beat(self, now_ns: int) -> None:
        return

    def close(self) -> None:
        return
