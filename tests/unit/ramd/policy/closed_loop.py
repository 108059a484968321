"""A small closed loop: real `decide`, `plan`, `apply` and lineage over nodes that obey at once.

It knows no consensus: a lease is one number that everybody sees, and a grant is applied by all in
the same step. Start reading at `Loop.step`.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from ramd.domain.decision import (
    ClusterView,
    Directive,
    DropHandover,
    Fetch,
    FetchOrder,
    Follow,
    GiveUp,
    Goal,
    GrantTo,
    Hold,
    Lead,
    LeaseView,
    LocalFacts,
    Memory,
    Seal,
    SealAttempt,
    StaySealed,
    Yield,
)
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, DecisionRecord, Handover, Reign, Settings, StartMode
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Fetched,
    Heard,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
)
from ramd.policy.decide import decide
from ramd.policy.fetching import with_order
from ramd.policy.lineage import Rejoin, how_to_rejoin
from ramd.policy.memory import remember
from ramd.policy.plan import plan
from ramd.state.apply import apply_explained, apply_grant_explained
from ramd.state.commands import (
    CancelHandover,
    Command,
    GrantPayload,
    InitCluster,
    RecordFork,
    RecordSystem,
    RequestHandover,
)
from tests.unit.ramd.policy.views import MS, member

STEP_NS = 100 * MS
TTL_NS = 3000 * MS
SYSTEM = "1"
NOWHERE = Position(timeline=0, lsn=Lsn(0))


@dataclass
class Node:
    """A host with a daemon and a server that does at once what it is told."""

    node_id: int
    alive: bool = True
    data: bool = False
    role: ServerRole | None = None
    at: Position = NOWHERE
    opened: int = 0
    released: int = 0
    seal: Attempt | None = None
    report: SealReport | None = None
    directive: Directive | None = None
    following: int = 0
    clones: int = 0
    guards: bool = False
    """Its server checks the lease itself: it is handed over without a stop."""
    yielding: int = 0

    def stop(self) -> None:
        self.role, self.report, self.following = None, None, 0

    def observe(self) -> Observation:
        return Observation(
            node_id=self.node_id,
            boot=1,
            taken_ns=0,
            data=DataKind.CLUSTER if self.data else DataKind.ABSENT,
            state=ServerState.RUNNING if self.role else ServerState.STOPPED,
            role=self.role,
            accepting=self.role is not None,
            system_id=SYSTEM if self.data else "",
            position=self.at if self.data else None,
            upstream=self.following or None,
            sealed=self.report,
            epoch_opened=self.opened,
        )


@dataclass
class Loop:
    """The group, its one lease, and the coordinator of the moment."""

    nodes: dict[int, Node]
    state: ClusterState = field(default_factory=ClusterState)
    now_ns: int = 1_000_000 * MS
    lease_until_ns: int = 0
    boss: int = 0
    term: int = 0
    since_ns: int = 0
    attempts: int = 0
    sealing: SealAttempt | None = None
    directive: Directive | None = None
    released: LeaseView | None = None
    memory: Memory = field(default_factory=Memory)
    heard: dict[int, Heard] = field(default_factory=dict)
    resumed: int = 0
    fetched: int = 0

    # --- the group -----------------------------------------------------------------------------

    def commit(self, command: Command) -> None:
        index = self.state.applied_index + 1
        self.state = apply_explained(self.state, command, index).state

    def elect(self) -> None:
        """A living node coordinates; a new one waits a full ttl before the epoch may move."""
        if self.boss and self.nodes[self.boss].alive:
            return
        living = [n.node_id for n in self.nodes.values() if n.alive]
        if len(living) * 2 <= len(self.nodes):
            self.boss = 0
            return
        self.boss, self.term, self.since_ns = living[-1], self.term + 1, self.now_ns
        self.sealing, self.attempts, self.released = None, 0, None
        self.directive = None
        self.memory = Memory()
        self.lease_until_ns = max(self.lease_until_ns, self.now_ns) + TTL_NS

    def step(self) -> None:
        self.now_ns += STEP_NS
        self.elect()
        for node in self.nodes.values():
            if node.alive:
                self.obey(node)
        if self.boss:
            self.coordinate()
        self.check()

    def check(self) -> None:
        """Nobody is primary but the leased holder; a node on another epoch's timeline is none."""
        for node in self.nodes.values():
            if node.alive and node.role is ServerRole.PRIMARY:
                assert self.state.reign is not None
                assert node.opened <= self.state.epoch
        leased = [n for n in self.nodes.values() if n.alive and self.leads(n)]
        assert len(leased) <= 1

    def leads(self, node: Node) -> bool:
        reign = self.state.reign
        mine = reign is not None and reign.node_id == node.node_id
        return mine and node.role is ServerRole.PRIMARY and node.released < self.state.epoch

    # --- the coordinator -----------------------------------------------------------------------

    def coordinate(self) -> None:
        for node in self.nodes.values():
            if node.alive:
                self.heard[node.node_id] = Heard(
                    observation=node.observe(), received_ns=self.now_ns
                )
        view = self.view()
        self.memory = remember(view)
        decision = decide(replace(view, memory=self.memory))
        match decision.action:
            case Hold(follow=True):
                self.sealing = None
                epoch, attempt = self.state.epoch, self.mark()
                self.directive = Directive(epoch=epoch, attempt=attempt, sealed=False)
            case Seal(epoch=epoch, attempt=attempt):
                self.attempts = attempt.number
                self.sealing = SealAttempt(epoch=epoch, attempt=attempt, begun_ns=self.now_ns)
                self.directive = Directive(epoch=epoch, attempt=attempt, sealed=True)
            case Fetch(order=order):
                assert self.sealing is not None
                self.sealing = with_order(self.sealing, order, self.now_ns)
                assert self.directive is not None
                self.directive = replace(self.directive, fetch=order)
            case GrantTo() as grant:
                self.grant(grant)
            case DropHandover(epoch=epoch):
                self.commit(CancelHandover(epoch=epoch, reason=decision.reason))
        for node in self.nodes.values():
            if node.alive and self.directive:
                node.directive = self.directive

    def view(self) -> ClusterView:
        return ClusterView(
            now_ns=self.now_ns,
            me=self.boss,
            term=self.term,
            coordinator_since_ns=self.since_ns,
            started_ns=self.since_ns,
            state=self.state,
            heard=dict(self.heard),
            lease=self.released or LeaseView(may_move_at_ns=self.lease_until_ns),
            sealing=self.sealing,
            next_attempt=self.attempts + 1,
            memory=self.memory,
        )

    def mark(self) -> Attempt:
        return Attempt(term=self.term, number=self.attempts)

    def grant(self, grant: GrantTo) -> None:
        if self.state.reigns:
            assert self.released or self.now_ns >= self.lease_until_ns
        reign = Reign(
            epoch=grant.epoch,
            node_id=grant.node_id,
            timeline=grant.timeline,
            start=grant.start,
            parent_timeline=grant.parent_timeline,
            seal_lsn=grant.seal_lsn,
        )
        record = DecisionRecord(epoch=grant.epoch, rule="r", action="a", reason="r")
        payload = GrantPayload(reign=reign, record=record)
        index = self.state.applied_index + 1
        applied = apply_grant_explained(self.state, grant.node_id, grant.epoch, payload, index)
        assert not applied.refusal, applied.refusal
        self.state, self.released = applied.state, None
        self.lease_until_ns = self.now_ns + TTL_NS

    # --- the nodes -----------------------------------------------------------------------------

    def obey(self, node: Node) -> None:
        epoch = self.state.epoch
        reign = self.state.reign
        mine = reign is not None and reign.node_id == node.node_id
        sealed = self.sealing is not None and self.sealing.epoch == epoch
        if mine and self.boss and not sealed and node.released < epoch and not self.released:
            self.lease_until_ns = max(self.lease_until_ns, self.now_ns + TTL_NS)
        if mine and node.released >= epoch and self.boss and self.released is None:
            end = node.at.lsn if node.data else None
            stands = node.role is ServerRole.PRIMARY and node.yielding == epoch
            self.released = LeaseView(
                may_move_at_ns=None,
                released=True,
                release_lsn=end,
                holders=self.followers(node) if stands else (),
                stands_by=stands,
            )
        facts = LocalFacts(
            me=node.node_id,
            now_ns=self.now_ns,
            lease_epoch=epoch if mine else 0,
            lease_deadline_ns=self.lease_until_ns - 150 * MS,
            released_epoch=node.released,
            opened_epoch=node.opened,
            in_touch=bool(self.boss),
            sealed_attempt=node.seal,
            self_fenced=node.guards,
            yielding_epoch=node.yielding,
        )
        self.act(node, plan(self.state, node.directive, facts, node.observe()))

    def act(self, node: Node, goal: Goal) -> None:
        match goal:
            case Lead():
                self.lead(node, goal)
            case Yield(epoch=epoch) if node.guards and node.role is ServerRole.PRIMARY:
                self.replicate(node)
                node.yielding, node.released = epoch, max(node.released, epoch)
            case GiveUp(epoch=epoch) | Yield(epoch=epoch):
                node.yielding = 0
                if isinstance(goal, Yield):
                    self.replicate(node)
                node.stop()
                node.released = max(node.released, epoch)
            case StaySealed(epoch=epoch, attempt=attempt, fetch=order):
                node.seal, node.following, node.yielding = attempt, 0, 0
                node.role = ServerRole.REPLICA if node.data else None
                fetched = self.fetch(node, order) if order is not None else None
                node.report = (
                    SealReport(epoch=epoch, attempt=attempt, position=node.at, fetched=fetched)
                    if node.data
                    else None
                )
            case Follow(upstream=upstream):
                node.seal, node.report, node.yielding = None, None, 0
                self.follow(node, self.nodes[upstream])

    def fetch(self, node: Node, order: FetchOrder) -> Fetched:
        source = self.nodes[order.source]
        assert source.at.timeline == node.at.timeline == order.timeline
        if not source.alive:
            return Fetched(number=order.number, source=order.source, why="it is dead")
        node.at = replace(node.at, lsn=max(node.at.lsn, source.at.lsn))
        self.fetched += 1
        return Fetched(number=order.number, source=order.source, upto=source.at.lsn)

    def lead(self, node: Node, goal: Lead) -> None:
        if node.role is ServerRole.PRIMARY and node.opened == goal.epoch:
            node.at = replace(node.at, lsn=Lsn(node.at.lsn + 8))
            self.replicate(node)
            return
        reign = self.state.reigns[-1]
        start = node.at.lsn
        if goal.start is StartMode.RESUME:
            self.resume(node, goal)
            return
        node.opened, node.role, node.report = goal.epoch, ServerRole.PRIMARY, None
        if goal.start is StartMode.OPEN:
            assert not node.data
            node.data, start = True, Lsn(100)
            self.commit(RecordSystem(system_id=SYSTEM))
        else:
            assert node.at.timeline == reign.parent_timeline
            assert goal.timeline not in {n.at.timeline for n in self.nodes.values()}
            self.commit(
                RecordFork(
                    epoch=goal.epoch,
                    parent_timeline=node.at.timeline,
                    fork_lsn=start,
                )
            )
        node.at = Position(timeline=goal.timeline, lsn=start)

    def resume(self, node: Node, goal: Lead) -> None:
        """Only the very server that stood by goes on; else the epoch is given back."""
        if node.role is ServerRole.PRIMARY and node.yielding == goal.epoch - 1:
            assert node.at.timeline == goal.timeline
            node.opened = goal.epoch
            self.resumed += 1
        else:
            node.stop()
            node.released = goal.epoch
        node.yielding = 0

    def followers(self, primary: Node) -> tuple[int, ...]:
        living = (n for n in self.nodes.values() if n.alive and n.following == primary.node_id)
        return tuple(n.node_id for n in living)

    def replicate(self, primary: Node) -> None:
        for node in self.nodes.values():
            if node.alive and node.following == primary.node_id:
                node.at = primary.at

    def follow(self, node: Node, upstream: Node) -> None:
        if not upstream.alive or upstream.role is not ServerRole.PRIMARY:
            node.role = ServerRole.REPLICA if node.data else None
            node.following = 0
            return
        if not node.data:
            node.data, node.at, node.clones = True, upstream.at, node.clones + 1
        node.role = ServerRole.REPLICA
        if node.following != upstream.node_id:
            node.following = 0
            advice = how_to_rejoin(self.state.reigns, node.at, me=node.node_id)
            if advice.how is Rejoin.WAIT:
                return
            if advice.how is not Rejoin.PLAIN:
                node.at, node.clones = upstream.at, node.clones + 1
            node.following = upstream.node_id

    # --- the end -------------------------------------------------------------------------------

    def healthy(self) -> bool:
        reign = self.state.reign
        if reign is None:
            return False
        others = [n for n in self.nodes.values() if n.node_id != reign.node_id]
        primary = self.nodes[reign.node_id]
        follow = all(n.following == reign.node_id and n.role for n in others)
        return self.leads(primary) and primary.opened == reign.epoch and follow


def cluster(size: int, **changes: Any) -> Loop:
    loop = Loop(nodes={n: Node(node_id=n) for n in range(1, size + 1)})
    members = tuple(member(n) for n in range(1, size + 1))
    settings_ = Settings(startup_grace_ms=5_000, **changes)
    loop.commit(InitCluster(cluster_id="c", cluster_name="c", members=members, settings=settings_))
    return loop


def fault(loop: Loop, what: str, node_id: int) -> None:
    node = loop.nodes[(node_id - 1) % len(loop.nodes) + 1]
    match what:
        case "server":
            node.stop()
        case "node":
            node.alive = False
            node.stop()
        case "start":
            node.alive = True
        case "coordinator":
            loop.boss = 0
        case "handover":
            wanted = Handover(epoch=loop.state.epoch, target=None)
            loop.commit(RequestHandover(handover=wanted))
