"""Consensus in memory, for one node: a state, a lease moved by tests, proposals applied."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from ramd.domain.consensus import (
    Consensus,
    GroupStatus,
    Handler,
    MemberChange,
    ReleaseEvidence,
)
from ramd.domain.decision import LeaseView
from ramd.domain.errors import Unavailable
from ramd.domain.model import ClusterState, Member, Reign, StartMode
from ramd.state.apply import apply_explained
from ramd.state.commands import CancelHandover, RecordFork, RecordSystem, decode
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync


def member(node_id: int) -> Member:
    """A member with invented addresses."""
    return Member(
        node_id=node_id,
        name=f"node{node_id}",
        hostname=f"host{node_id}",
        postgresql_port=5430 + node_id,
        raft_port=7400 + node_id,
        http_port=8000 + node_id,
    )


def cluster(*reigns: Reign, system_id: str = "", members: int = 3) -> ClusterState:
    """A formed cluster of `members` nodes with `reigns`."""
    return ClusterState(
        cluster_id="c1",
        cluster_name="demo",
        members=tuple(member(n) for n in range(1, members + 1)),
        system_id=system_id,
        reigns=reigns,
        timeline_high=max((r.timeline for r in reigns), default=0),
    )


def reign(epoch: int, node_id: int, timeline: int = 0, **more: int | None) -> Reign:
    """A reign; the first epoch is an opening, the others promotions."""
    start = StartMode.OPEN if epoch == 1 else StartMode.PROMOTE
    given = Reign(epoch=epoch, node_id=node_id, timeline=timeline or epoch, start=start)
    return replace(given, **more)  # type: ignore[arg-type]


@dataclass(slots=True)
class Lease:
    """The holder's half as tests set it."""

    epoch: int = 0
    deadline_ns: int = 0


class FakeConsensus(Consensus):
    """`released` holds (epoch, evidence) in order; `on_release` sees each as it happens."""

    def __init__(self, me: int, state: ClusterState) -> None:
        self.me = me
        self.cluster = state
        self.held = Lease()
        self.released: list[tuple[int, ReleaseEvidence]] = []
        self.on_release: Callable[[int], None] = lambda epoch: None
        self.proposed: list[object] = []
        self.failures: deque[BaseException] = deque()
        self.unread = False
        """No read is confirmed."""

    def status(self) -> GroupStatus:
        return GroupStatus(
            me=self.me,
            coordinator=None,
            is_coordinator=False,
            ready=False,
            term=1,
            commit_index=0,
            applied_index=0,
            has_quorum=True,
        )

    def state(self) -> ClusterState:
        return self.cluster

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        if self.failures:
            raise self.failures.popleft()
        decoded = decode(command)
        self.proposed.append(decoded)
        match decoded:
            case RecordSystem(system_id=system_id):
                self.cluster = replace(self.cluster, system_id=system_id)
            case RecordFork() as fork:
                self.cluster = replace(self.cluster, reigns=self._with_fork(fork))
            case ChangeSync() | SettleSync() | RelaxSync():
                applied = apply_explained(self.cluster, decoded, self.cluster.applied_index + 1)
                assert not applied.refusal, applied.refusal
                self.cluster = applied.state
            case CancelHandover():
                self.cluster = replace(self.cluster, handover=None)
            case _:
                raise AssertionError(f"not proposed by an executor: {decoded}")

    def _with_fork(self, fork: RecordFork) -> tuple[Reign, ...]:
        return tuple(
            replace(r, parent_timeline=fork.parent_timeline, fork_lsn=fork.fork_lsn)
            if r.epoch == fork.epoch
            else r
            for r in self.cluster.reigns
        )

    async def read_barrier(self, *, timeout_s: float) -> None:
        if self.unread:
            raise Unavailable("no leader confirmed the read in time", code="no_quorum")

    def lease(self) -> tuple[int, int]:
        return (self.held.epoch, self.held.deadline_ns)

    def release(self, epoch: int, evidence: bytes) -> None:
        self.on_release(epoch)
        self.released.append((epoch, ReleaseEvidence.decode(evidence)))

    # --- what an executor has no business with -------------------------------------------------

    def grant(self, holder: int, epoch: int, payload: bytes) -> None:
        raise NotImplementedError

    async def change(self, change: MemberChange, *, timeout_s: float) -> None:
        raise NotImplementedError

    def transfer(self, node_id: int) -> None:
        raise NotImplementedError

    def lease_view(self) -> LeaseView:
        raise NotImplementedError

    def seal(self, epoch: int) -> None:
        raise NotImplementedError

    def unseal(self) -> None:
        raise NotImplementedError

    def cast(self, node_id: int, method: str, payload: bytes) -> None:
        raise NotImplementedError

    async def call(self, node_id: int, method: str, payload: bytes, *, timeout_s: float) -> bytes:
        raise NotImplementedError

    def register(self, method: str, handler: Handler) -> None:
        raise NotImplementedError
