"""The fence inside the server: what the daemon tells it and learns from it, without any SQL.

`ramd.fence` implements it over the page that pgraft's extension reads; a server without the
extension has `NoFence`, and the executor's guard stands in for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ramd.domain.consensus import GroupStatus
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """The server's own picture, some ten milliseconds old. None always means "not known"."""

    at_ns: int
    """CLOCK_BOOTTIME."""
    in_recovery: bool
    timeline: int
    insert_lsn: Lsn | None = None
    flushed_lsn: Lsn | None = None
    """On a primary: end of WAL on its disk."""
    open_xids: int = 0
    """Client sessions in a transaction that has an xid, counted before `insert_lsn` was read."""
    streams: Mapping[int, Lsn] = field(default_factory=dict)
    """On a primary: by node, what its stream has confirmed to be on its disk."""
    received_lsn: Lsn | None = None
    replayed_lsn: Lsn | None = None
    replayed_commit_unix_us: int = 0
    enforce: bool = True
    fenced: bool = False
    flush_stuck_ms: int = 0
    """For how long the present flush of WAL has been under way."""
    sync_generation: int = 0
    """The synchronous set that every process goes by which can release a waiting commit."""
    sync_defined: bool = False
    """Commits wait for replicas."""

    @property
    def position(self) -> Position | None:
        """Primary: insert position. Replica: the greater of received and replayed."""
        if not self.timeline:
            return None
        known = [
            lsn
            for lsn in (self.insert_lsn, self.received_lsn, self.replayed_lsn)
            if lsn is not None
        ]
        return Position(timeline=self.timeline, lsn=max(known)) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preload:
    """What a server's configuration must say so that it loads the extension and finds the page."""

    library_dir: Path
    share_dir: Path
    """Holds `extension/`, where servers from 18 on find what CREATE EXTENSION needs."""
    page: Path
    grace_ms: int
    """How long sessions may stay after a lease has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceCounts:
    """How often the fence acted since the page was made."""

    refused_statements: int = 0
    refused_commits: int = 0
    dropped_acks: int = 0
    dropped_sync: int = 0
    ended_sessions: int = 0

    def since(self, before: FenceCounts) -> FenceCounts:
        """What was added since `before`; all of it if the page was made again meanwhile."""
        again = self.refused_statements < before.refused_statements
        again |= self.dropped_acks < before.dropped_acks
        if again:
            return self
        return FenceCounts(
            refused_statements=self.refused_statements - before.refused_statements,
            refused_commits=max(0, self.refused_commits - before.refused_commits),
            dropped_acks=self.dropped_acks - before.dropped_acks,
            dropped_sync=max(0, self.dropped_sync - before.dropped_sync),
            ended_sessions=max(0, self.ended_sessions - before.ended_sessions),
        )


class Fence(Protocol):
    """One server's fence. All calls from the control loop's thread; none of them blocks."""

    @property
    def guards(self) -> bool:
        """The running server has been verified to check the lease itself."""

    def prepare(self) -> None:
        """Before a start: the page lies where the server will look. Raises ConfigError."""

    def bind(self, postmaster_pid: int) -> bool:
        """Verify the server of this postmaster, just started or adopted; returns `guards`."""

    def unbind(self) -> None:
        """That server has ended, or is watched no more: nothing is published for it."""

    def start_number(self) -> int:
        """Which start of the bound server runs now: another one after a crash that it survived by
        itself. 0 if there is no bound server."""

    def publish(self, deadline_ns: int, start_number: int) -> None:
        """That start of the server may acknowledge writes until `deadline_ns`."""

    def shut(self, epoch: int, *, drain_at_ns: int = 0) -> None:
        """Nothing is acknowledged from now on; `epoch` and all before it are latched first
        (0: nothing is latched). With `drain_at_ns` sessions that have an xid are ended from then
        on (BOOTTIME), and WAL is flushed as it comes, until the next lease."""

    def pulse(self) -> Pulse | None:
        """The newest picture of the bound server, None if there is none."""

    def counts(self) -> FenceCounts: ...

    def tell(
        self, status: GroupStatus, state: ClusterState, heard: Collection[int], now_ns: int
    ) -> None:
        """What SQL functions in the server shall say of the group."""

    def beat(self, now_ns: int) -> None:
        """The daemon lives."""

    def close(self) -> None:
        """The daemon ends. A lease that was published stands until its deadline."""


class NoFence(Fence):
    """A server that checks nothing: the guard has to stop it in time."""

    @property
    def guards(self) -> bool:
        return False

    def prepare(self) -> None:
        return

    def bind(self, postmaster_pid: int) -> bool:
        return False

    def unbind(self) -> None:
        return

    def start_number(self) -> int:
        return 0

    def publish(self, deadline_ns: int, start_number: int) -> None:
        raise AssertionError("there is no fence to publish a lease to")

    def shut(self, epoch: int, *, drain_at_ns: int = 0) -> None:
        return

    def pulse(self) -> Pulse | None:
        return None

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
