"""A model of commits that wait for copies, under every kind of trouble, for rule S4.

Real are the record (`apply`), the judgement (`judge`, `granted_set`) and lineage. The servers are
as bad as PostgreSQL: each walsender goes by the set that it has loaded, whenever that was, and
releases commits by it alone. Start reading at `World.check`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from ramd.domain.decision import LeaseView, SealAttempt, Verdict
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, DecisionRecord, Reign, StartMode
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Heard,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)
from ramd.domain.sync import ALONE, NO_SET, SyncMember, SyncMode, SyncRecord, SyncSet
from ramd.policy.candidates import judge, sealed_reports
from ramd.policy.lineage import Rejoin, how_to_rejoin
from ramd.policy.syncset import granted_set
from ramd.state.apply import apply_explained, apply_grant_explained
from ramd.state.commands import Command, GrantPayload, RecordFork
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync
from tests.unit.ramd.policy.views import NOW_NS, member, view

NODES = (1, 2, 3, 4)
COPIES = itertools.count(1)
WHY = DecisionRecord(epoch=0, rule="r", action="a", reason="w")


BEGINNING = Position(timeline=1, lsn=Lsn(100))
NOTHING = Lsn(0)


def new_copy() -> str:
    return f"{next(COPIES):016x}"


@dataclass
class Node:
    """A data directory and, while `up`, a server."""

    node_id: int
    copy: str = field(default_factory=new_copy)
    at: Position = BEGINNING
    up: bool = True
    follows: bool = True
    """It streams from the primary."""
    loaded: SyncSet = NO_SET
    """By which its walsender on the primary releases commits."""
    confirmed: Lsn = NOTHING

    @property
    def member(self) -> SyncMember:
        return SyncMember(node_id=self.node_id, copy=self.copy)


class World:
    """One primary at a time; `acknowledged` is the end of the last commit that a client was told
    of. All calls are total: what cannot be is passed over."""

    def __init__(self) -> None:
        self.nodes = {n: Node(n) for n in NODES}
        self.nodes[1].follows = False
        settings = replace(ClusterState().settings, synchronous_replication=SyncMode.ON)
        self.state = ClusterState(
            cluster_id="c",
            members=tuple(member(n) for n in NODES),
            settings=settings,
            system_id="1",
            reigns=(Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN),),
            timeline_high=1,
            sync=SyncRecord(primary_copy=self.nodes[1].copy),
        )
        self.acknowledged = Lsn(100)
        self.told: SyncSet = NO_SET
        self.barrier: Lsn | None = None
        self.open = True
        """The primary has a lease that is published."""
        self.attempt = 0
        self.promotions = 0
        self.promised = False
        """A first set was proven: commits before it are nobody's promise."""

    # --- the primary ---------------------------------------------------------------------------

    @property
    def primary(self) -> Node:
        return self.nodes[self.state.reigns[-1].node_id]

    @property
    def streams(self) -> list[Node]:
        return [n for n in self.nodes.values() if n.up and n.follows and n is not self.primary]

    def write(self) -> None:
        if self.primary.up:
            at = self.primary.at
            self.primary.at = replace(at, lsn=Lsn(at.lsn + 10))

    def replicate(self, node_id: int) -> None:
        node = self.nodes[node_id]
        if self.primary.up and node in self.streams:
            node.at = self.primary.at
            node.confirmed = node.at.lsn
            self.release(node)

    def release(self, node: Node) -> None:
        """The walsender of `node` has heard from it: it releases whom it can, by its own set."""
        if self.open and node.loaded.members:
            have = sorted(n.confirmed for n in self.streams if n.member in node.loaded.members)
            if len(have) >= node.loaded.k:
                self.acknowledge(have[-node.loaded.k])

    def alone(self) -> None:
        """Nobody is waited for: what is on the primary's disk is acknowledged."""
        if self.open and self.primary.up and self.told == ALONE and self.promised:
            self.acknowledge(self.primary.at.lsn)

    def acknowledge(self, upto: Lsn) -> None:
        if self.promised:
            self.acknowledged = max(self.acknowledged, upto)

    def reload(self, node_id: int) -> None:
        """One walsender has loaded what the server was told."""
        self.nodes[node_id].loaded = self.told

    # --- the record ----------------------------------------------------------------------------

    def apply(self, command: Command) -> bool:
        applied = apply_explained(self.state, command, self.state.applied_index + 1)
        self.state = applied.state
        return not applied.refusal

    def change(self, nodes: list[int], k: int) -> None:
        """The primary begins a change, and tells its server once it is committed."""
        if not (self.primary.up and self.open):
            return
        members = tuple(
            self.nodes[n].member for n in sorted(set(nodes)) if n != self.primary.node_id
        )
        target = SyncSet(members=members, k=min(k, len(members))) if members else ALONE
        done = self.apply(
            ChangeSync(
                epoch=self.state.epoch,
                generation=self.state.sync.generation + 1,
                target=target,
                primary_copy=self.primary.copy,
                record=WHY,
            )
        )
        if done and target.members:
            self.told, self.barrier = target, None

    def relax(self) -> None:
        epoch, generation = self.state.epoch, self.state.sync.generation
        relaxing = RelaxSync(epoch=epoch, generation=generation, record=WHY)
        if self.primary.up and self.open and self.apply(relaxing):
            self.told = ALONE

    def prove(self) -> None:
        """As `ramd.execute.syncing` does: all have loaded it, then what is on disk is confirmed."""
        target = self.state.sync.goal
        if not self.primary.up or not target.members or self.told != target:
            return
        if any(n.loaded != target for n in self.streams):
            return
        if self.barrier is None:
            self.barrier = self.primary.at.lsn
        have = [
            n for n in self.streams if n.member in target.members and n.confirmed >= self.barrier
        ]
        if len(have) >= target.k:
            self.open = True
            epoch, generation = self.state.epoch, self.state.sync.generation
            if self.apply(SettleSync(epoch=epoch, generation=generation)) and not self.promised:
                self.promised, self.acknowledged = True, Lsn(100)

    # --- trouble -------------------------------------------------------------------------------

    def stop(self, node_id: int) -> None:
        self.nodes[node_id].up = False
        self.nodes[node_id].follows = False
        if self.primary.node_id == node_id:
            self.open = False

    def start(self, node_id: int) -> None:
        node = self.nodes[node_id]
        node.up = True

    def follow(self, node_id: int) -> None:
        """By the ladder: plainly, or made anew from the primary."""
        node = self.nodes[node_id]
        if not (node.up and self.primary.up) or node is self.primary or node.follows:
            return
        advice = how_to_rejoin(self.state.reigns, node.at, me=node_id)
        if advice.how is Rejoin.WAIT:
            return
        if advice.how is not Rejoin.PLAIN:
            node.copy, node.at = new_copy(), self.primary.at
        node.follows, node.loaded, node.confirmed = True, self.told, Lsn(0)

    def clone(self, node_id: int, source: int) -> None:
        """A person puts a copy of another replica's directory in its place."""
        node = self.nodes[node_id]
        if node is not self.primary and source != node_id:
            node.copy, node.at, node.follows = new_copy(), self.nodes[source].at, False
            node.confirmed = Lsn(0)

    # --- failover ------------------------------------------------------------------------------

    def failover(self, *, released: bool) -> None:
        """The lease has run out; whoever is up is sealed and judged, and one is promoted."""
        self.open = False
        self.attempt += 1
        under = Attempt(term=5, number=self.attempt)
        if released and not self.primary.up:
            lease = LeaseView(may_move_at_ns=None, released=True, release_lsn=self.primary.at.lsn)
        else:
            lease = LeaseView(may_move_at_ns=0)
        heard = {n: self.sealed(node, under) for n, node in self.nodes.items() if node.up}
        looked = view(
            self.state,
            heard=heard,
            lease=lease,
            sealing=SealAttempt(epoch=self.state.epoch, attempt=under, begun_ns=0),
        )
        field_ = judge(looked)
        fit = [*field_.others, *([field_.former] if field_.former.eligible else [])]
        for node in self.nodes.values():
            node.follows = False
        if not fit:
            return
        winner = fit[self.attempt % len(fit)]
        target = granted_set(looked, winner.node_id, winner.lsn or Lsn(0), sealed_reports(looked))
        self.grant(winner, GrantPayload(reign=self.reign(winner), record=WHY, sync=target))

    def reign(self, winner: Verdict) -> Reign:
        return Reign(
            epoch=self.state.epoch + 1,
            node_id=winner.node_id,
            timeline=self.state.timeline_high + 1,
            start=StartMode.PROMOTE,
            parent_timeline=winner.timeline,
            seal_lsn=winner.lsn,
        )

    def sealed(self, node: Node, under: Attempt) -> Heard:
        report = SealReport(epoch=self.state.epoch, attempt=under, position=node.at, copy=node.copy)
        seen = Observation(
            node_id=node.node_id,
            boot=1,
            taken_ns=0,
            data=DataKind.CLUSTER,
            state=ServerState.RUNNING,
            role=ServerRole.REPLICA,
            accepting=True,
            system_id="1",
            position=node.at,
            sealed=report,
            copy=node.copy,
        )
        return Heard(observation=seen, received_ns=NOW_NS)

    def grant(self, winner: Verdict, payload: GrantPayload) -> None:
        epoch = self.state.epoch + 1
        applied = apply_grant_explained(
            self.state, winner.node_id, epoch, payload, self.state.applied_index + 1
        )
        assert not applied.refusal, applied.refusal
        self.state = applied.state
        self.promotions += 1
        node = self.primary
        fork = node.at.lsn
        self.apply(RecordFork(epoch=epoch, parent_timeline=node.at.timeline, fork_lsn=fork))
        node.at = Position(timeline=payload.reign.timeline, lsn=fork)
        self.told, self.barrier = self.state.sync.goal, None
        self.open = not self.told.members
        self.check()

    def check(self) -> None:
        """Rule S4: whoever is promoted has every acknowledged commit."""
        assert self.primary.at.lsn >= self.acknowledged, (
            f"node {self.primary.node_id} has {self.primary.at.lsn},"
            f" acknowledged was {self.acknowledged}: {self.state.sync}"
        )
