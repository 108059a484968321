"""`Fence` over the page that the server's extension reads and writes.

Must not live here: which library the server loads (`library`), the question whether a server may
write (`ramd.execute.guard`). Start reading at `PageFence.bind`.

A server is bound by what itself wrote at its start: its postmaster's process id, and the inode of
the page it has mapped. The lease word carries the start number that was read then, so a server
that anybody else starts over the same page never has a lease.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from pgraft.page.file import Page, PageError
from pgraft.page.reader import counts, flush_stuck_ns, pulse, server_start
from pgraft.page.writer import DaemonHalf, GroupPicture, PageMember
from ramd import events
from ramd.domain.consensus import GroupStatus
from ramd.domain.errors import ConfigError
from ramd.domain.fence import Fence, FenceCounts, Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState

NS_PER_MS = 1_000_000
STALE_NS = 1_000_000_000
"""A picture older than this says nothing about now."""


class PageFence(Fence):
    """See Fence. `page` is opened by `ramd.fence.place` and owned from now on."""

    def __init__(
        self,
        page: Page,
        *,
        reopen: Callable[[], Page],
        clock: Callable[[], int],
        version: str,
    ) -> None:
        self._page = page
        self._half = DaemonHalf(page)
        self._reopen = reopen
        self._clock = clock
        self._version = version
        self._postmaster_pid = 0
        self._lost = False

    @property
    def guards(self) -> bool:
        return self._postmaster_pid != 0

    def prepare(self) -> None:
        """See Fence. A page that was removed is made again, with the latch of the old one."""
        if self._page.at_path():
            return
        try:
            page = self._reopen()
        except PageError as error:
            raise page_fault(error) from error
        released_epoch = self._half.released_epoch
        self._page.close()
        self._page, self._half = page, DaemonHalf(page)
        self._half.latch(released_epoch)
        self._lost = False

    def bind(self, postmaster_pid: int) -> bool:
        found = server_start(self._page)
        ours = found.postmaster_pid == postmaster_pid and found.start != 0
        self._postmaster_pid = postmaster_pid if ours else 0
        return ours

    def unbind(self) -> None:
        self._postmaster_pid = 0

    def start_number(self) -> int:
        if not self._postmaster_pid:
            return 0
        found = server_start(self._page)
        return found.start if found.postmaster_pid == self._postmaster_pid else 0

    def publish(self, deadline_ns: int, start_number: int) -> None:
        self._half.drain(0)
        self._half.lease(deadline_ns, start_number)

    def shut(self, epoch: int, *, drain_at_ns: int = 0) -> None:
        if epoch:
            self._half.latch(epoch)
        self._half.drain(drain_at_ns)
        self._half.close_lease()

    def pulse(self) -> Pulse | None:
        start, now_ns = self.start_number(), self._clock()
        seen = pulse(self._page) if start else None
        if seen is None or seen.start != start or now_ns - seen.at_ns > STALE_NS:
            return None
        deadline_ns, given_to = self._half.leased()
        leased = given_to == start and now_ns < deadline_ns
        return Pulse(
            at_ns=seen.at_ns,
            in_recovery=seen.in_recovery,
            timeline=seen.timeline,
            insert_lsn=lsn(seen.insert_lsn),
            flushed_lsn=lsn(seen.flushed_lsn),
            open_xids=seen.open_xids,
            streams={n: Lsn(end) for n, end in enumerate(seen.stream_flushed, 1) if end},
            received_lsn=lsn(seen.received_lsn),
            replayed_lsn=lsn(seen.replayed_lsn),
            replayed_commit_unix_us=seen.replayed_commit_unix_us,
            enforce=seen.enforce,
            # From the word itself: the worker's own look at it may be some milliseconds old.
            fenced=seen.enforce and not seen.in_recovery and not leased,
            flush_stuck_ms=flush_stuck_ns(self._page, now_ns) // NS_PER_MS,
            sync_generation=seen.sync_generation,
            sync_defined=seen.sync_defined,
        )

    def counts(self) -> FenceCounts:
        seen = counts(self._page)
        return FenceCounts(
            refused_statements=seen.refused_statements,
            refused_commits=seen.refused_commits,
            dropped_acks=seen.dropped_acks,
            dropped_sync=seen.dropped_sync,
            ended_sessions=seen.ended_sessions,
        )

    def tell(
        self, status: GroupStatus, state: ClusterState, heard: Collection[int], now_ns: int
    ) -> None:
        reign = state.reign
        primary_id = reign.node_id if reign is not None else 0
        members = tuple(
            PageMember(
                node_id=member.node_id,
                name=member.name,
                host=member.hostname,
                raft_port=member.raft_port,
                postgresql_port=member.postgresql_port,
                raft_leader=member.node_id == status.coordinator,
                primary=member.node_id == primary_id,
                heard=member.node_id in heard,
            )
            for member in state.members
        )
        picture = GroupPicture(
            node_id=status.me,
            raft_role=status.raft_role,
            term=status.term,
            leader_id=status.coordinator or 0,  # Raft leader
            epoch=state.epoch,
            primary_id=primary_id,
            timeline=reign.timeline if reign is not None else 0,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            quorum=status.has_quorum,
            messages_taken=status.messages_taken,
            heartbeats_sent=status.heartbeats_sent,
            elections_begun=status.elections_begun,
            cluster_name=state.cluster_name,
            daemon_version=self._version,
            members=members,
        )
        self._half.publish(picture, now_ns)

    def beat(self, now_ns: int) -> None:
        self._half.heartbeat(now_ns, os.getpid())
        lost = not self._page.at_path()
        if lost and not self._lost:
            events.emit(events.PageLost(path=str(self._page.path)))
        self._lost = lost

    def close(self) -> None:
        self._half.end()
        self._page.close()


def lsn(value: int) -> Lsn | None:
    """An LSN of the page, where 0 is none."""
    return Lsn(value) if value else None


def page_fault(error: PageError) -> ConfigError:
    """What is wrong with the page, as a fault of its place."""
    return ConfigError(error.message, field="page_dir", hint=error.hint)
