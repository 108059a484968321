"""The coordinator's half of the control loop: hear every node, decide, direct.

Every node has one of these; it acts only while its node is the coordinator and an entry of its own
term is applied. The decision itself is `ramd.policy.decide`, a pure function; this file only
gathers its one coherent view and performs the one action that comes back. Nothing here talks to
PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ramd import events, switch_events
from ramd.domain.consensus import Consensus, GroupStatus
from ramd.domain.decision import (
    ClusterView,
    Decision,
    Directive,
    DropHandover,
    GrantTo,
    Hold,
    Memory,
    MoveCoordinator,
    Seal,
    SealAttempt,
)
from ramd.domain.errors import RamdError
from ramd.domain.model import DecisionRecord, Reign
from ramd.domain.observation import Attempt, Heard, Observation
from ramd.policy.decide import decide
from ramd.policy.memory import remember
from ramd.policy.timeline import Timeline, follow, granted
from ramd.state.apply import grant_obstacle
from ramd.state.commands import (
    CancelHandover,
    Command,
    GrantPayload,
    RecordDecision,
    encode_grant_payload,
)
from ramd.state.phases import RecordPhases

PATIENCE_NS = 2_000_000_000
"""A node that was heard within this is there; see TimingValues.patience_ns."""
LEASE_TTL_NS = 3_000_000_000
HEAR_FIRST_NS = 200_000_000
PAUSE_NS = 1_500_000_000
"""A gap between two beats above this is our own pause: hear first, then judge (attacks M6). A
shorter one leaves everybody who lives within `PATIENCE_NS`, for beats are 0.5 s apart."""


@dataclass(slots=True)
class Tenure:
    """What this coordinator remembers within one term; a new term starts from nothing."""

    term: int
    since_ns: int
    """Since when it hears and answers: its beginning, or the end of its last pause."""
    attempts: int = 0
    sealing: SealAttempt | None = None
    directive: Directive | None = None
    decision: Decision | None = None
    appended_epoch: int = 0
    """Epoch whose grant this tenure has appended; until it commits nothing else is decided."""
    refused: tuple[int, str] = (0, "")
    """The last grant that could not be appended, and why."""


@dataclass(slots=True)
class Past:
    """What outlives a tenure: own times by the own clock."""

    started_ns: int
    patience_ns: int
    ttl_ns: int
    last_beat_ns: int = 0
    last_transfer_ns: int = 0
    memory: Memory = field(default_factory=Memory)
    heard: dict[int, Heard] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)


class Coordinator:
    """Hears observations always; decides only as the ready coordinator.

    `propose` hands a command to the group and does not wait for it.
    """

    def __init__(
        self,
        *,
        me: int,
        consensus: Consensus,
        now_ns: int,
        propose: Callable[[Command], None],
        patience_ns: int = PATIENCE_NS,
        ttl_ns: int = LEASE_TTL_NS,
    ) -> None:
        self._me = me
        self._consensus = consensus
        self._propose = propose
        self._past = Past(started_ns=now_ns, patience_ns=patience_ns, ttl_ns=ttl_ns)
        self._tenure: Tenure | None = None

    @property
    def directive(self) -> Directive | None:
        """What every node is told now; None while this node does not coordinate."""
        return self._tenure.directive if self._tenure else None

    @property
    def decision(self) -> Decision | None:
        """The last decision of this tenure, for people."""
        return self._tenure.decision if self._tenure else None

    @property
    def granting(self) -> bool:
        """A grant was appended and is not applied here yet: nobody knows who is primary."""
        tenure = self._tenure
        return tenure is not None and tenure.appended_epoch > self._consensus.state().epoch

    @property
    def heard(self) -> dict[int, Heard]:
        return self._past.heard

    def hear(self, observation: Observation, received_ns: int) -> bool:
        """Keep the newest facts of a node. True if something definite changed (look again now).

        A relayed observation carries the time of its first receipt, so it never displaces a newer
        one that came directly.
        """
        node = observation.node_id
        before = self._past.heard.get(node)
        if before is not None and received_ns < before.received_ns:
            return False
        if (
            before is not None
            and before.observation.boot == observation.boot
            and observation.taken_ns < before.observation.taken_ns
        ):
            return False
        self._past.heard[node] = Heard(observation=observation, received_ns=received_ns)
        return before is None or definite(before.observation) != definite(observation)

    def beat(self, now_ns: int) -> int | None:
        """Decide once if we are to decide; returns when to look again (own ns), if sooner."""
        gap_ns = now_ns - self._past.last_beat_ns if self._past.last_beat_ns else 0
        self._past.last_beat_ns = now_ns
        status = self._consensus.status()
        view = self.view(now_ns, status, self._past.heard)
        self._past.memory = remember(view)
        self._past.timeline = follow(self._past.timeline, view)
        if not (status.is_coordinator and status.ready):
            self._tenure = None
            return None
        tenure = self._enter(status, now_ns)
        if gap_ns > PAUSE_NS:
            events.emit(events.LoopPaused(gap_ms=gap_ns // 1_000_000))
            _begin_anew(tenure, now_ns)
            return now_ns + HEAR_FIRST_NS
        if self.granting:
            return None
        self._tell_phases(view.state.epoch)
        view = self.view(now_ns, status, self._past.heard)
        decision = decide(view)
        self._note(tenure, decision)
        tenure.decision = decision
        self._perform(tenure, decision, now_ns)
        if tenure.appended_epoch > view.state.epoch:
            self._past.timeline = granted(self._past.timeline, view)
        return decision.wake_at_ns

    def _tell_phases(self, epoch: int) -> None:
        """The primary of a new epoch takes writes: how that came about goes into the history."""
        phases = self._past.timeline.due
        if phases:
            text = ", ".join(f"{phase.name} {phase.ms} ms" for phase in phases)
            events.emit(switch_events.PrimaryMoved(epoch=epoch, phases=text))
            self._propose(RecordPhases(epoch=epoch, phases=phases))

    def view(self, now_ns: int, status: GroupStatus, heard: Mapping[int, Heard]) -> ClusterView:
        """One coherent picture for `decide`, `preflight` and `explain`. `heard`: on a node that
        does not coordinate, what the coordinator told."""
        tenure = self._tenure
        return ClusterView(
            now_ns=now_ns,
            me=self._me,
            term=status.term,
            coordinator_since_ns=tenure.since_ns if tenure else now_ns,
            started_ns=self._past.started_ns,
            state=self._consensus.state(),
            heard=dict(heard),
            lease=self._consensus.lease_view(),
            sealing=tenure.sealing if tenure else None,
            next_attempt=tenure.attempts + 1 if tenure else 1,
            last_transfer_ns=self._past.last_transfer_ns,
            ready=status.ready,
            memory=self._past.memory,
            voting=status.voting,
            silent_after_ns=self._past.patience_ns,
            lease_ttl_ns=self._past.ttl_ns,
            seal_wait_ns=self._past.patience_ns * 3 // 4,
        )

    def _enter(self, status: GroupStatus, now_ns: int) -> Tenure:
        if self._tenure is None or self._tenure.term != status.term:
            self._tenure = Tenure(term=status.term, since_ns=now_ns)
            events.emit(events.CoordinatorStarted(node_id=self._me, term=status.term))
        return self._tenure

    def _perform(self, tenure: Tenure, decision: Decision, now_ns: int) -> None:
        match decision.action:
            case Hold(follow=True):
                self._follow(tenure)
            case Hold():
                pass
            case Seal(epoch=epoch, attempt=attempt):
                self._seal(tenure, epoch, attempt, now_ns)
            case GrantTo() as grant:
                self._grant(tenure, grant, decision)
            case MoveCoordinator(node_id=node_id):
                self._follow(tenure)
                self._move(node_id, now_ns)
            case DropHandover(epoch=epoch):
                self._propose(
                    CancelHandover(epoch=epoch, reason=decision.reason, at_unix_ms=_wall_ms())
                )

    def _follow(self, tenure: Tenure) -> None:
        """The only unseal (attacks H2). Renewals are answered again from here on."""
        epoch = self._consensus.state().epoch
        self._consensus.unseal()
        tenure.sealing = None
        attempt = Attempt(term=tenure.term, number=tenure.attempts)
        self._direct(tenure, Directive(epoch=epoch, attempt=attempt, sealed=False))

    def _seal(self, tenure: Tenure, epoch: int, attempt: Attempt, now_ns: int) -> None:
        self._consensus.seal(epoch)
        tenure.attempts = attempt.number
        tenure.sealing = SealAttempt(epoch=epoch, attempt=attempt, begun_ns=now_ns)
        self._direct(tenure, Directive(epoch=epoch, attempt=attempt, sealed=True))

    def _direct(self, tenure: Tenure, directive: Directive) -> None:
        tenure.directive = directive

    def _grant(self, tenure: Tenure, grant: GrantTo, decision: Decision) -> None:
        """Append it, if the state will accept it. What stands in the log before it is applied here
        by then, so the state that is asked is the one that the grant meets: on no member can it
        change the group's lease and be refused by the state, which would part the two for good."""
        if self._consensus.status().in_flight:
            return  # the next entry that is applied wakes us
        wall_ms = _wall_ms()
        reign = Reign(
            epoch=grant.epoch,
            node_id=grant.node_id,
            timeline=grant.timeline,
            start=grant.start,
            parent_timeline=grant.parent_timeline,
            seal_lsn=grant.seal_lsn,
            since_unix_ms=wall_ms,
        )
        record = record_of(decision, grant.epoch, wall_ms)
        payload = GrantPayload(reign=reign, record=record, sync=grant.sync)
        state = self._consensus.state()
        if why := grant_obstacle(state, grant.node_id, grant.epoch, payload):
            self._refused(tenure, grant.epoch, why)
            return
        try:
            self._consensus.grant(grant.node_id, grant.epoch, encode_grant_payload(payload))
        except RamdError as refusal:
            self._refused(tenure, grant.epoch, refusal.message)
            return
        tenure.appended_epoch = grant.epoch

    def _refused(self, tenure: Tenure, epoch: int, why: str) -> None:
        """Said once: it is tried again at each beat."""
        if tenure.refused != (epoch, why):
            tenure.refused = (epoch, why)
            events.emit(events.GrantRefused(epoch=epoch, reason=why))

    def _move(self, node_id: int, now_ns: int) -> None:
        self._past.last_transfer_ns = now_ns
        try:
            self._consensus.transfer(node_id)
        except RamdError as refusal:
            events.emit(events.TransferRefused(node_id=node_id, reason=refusal.message))

    def _note(self, tenure: Tenure, decision: Decision) -> None:
        """Log every change of mind; keep those that matter in the replicated history (S8)."""
        before = tenure.decision
        state = self._consensus.state()
        if before is not None and _same(before, decision):
            return
        action = type(decision.action).__name__
        events.emit(events.Decided(rule=decision.rule, action=action, reason=decision.reason))
        # A grant and a cancellation carry their own record; routine holds are only logged.
        carried = isinstance(decision.action, GrantTo | DropHandover)
        if state.formed and not carried and decision.rule not in ROUTINE_RULES:
            record = record_of(decision, state.epoch, _wall_ms())
            self._propose(RecordDecision(record=record))


def _begin_anew(tenure: Tenure, now_ns: int) -> None:
    """While we stood still nobody was heard or answered: that is nobody's silence."""
    tenure.since_ns = now_ns
    if tenure.sealing is not None:
        tenure.sealing = replace(tenure.sealing, begun_ns=now_ns)


def _same(before: Decision, decision: Decision) -> bool:
    """Nothing new to say. Why nobody can take over is said again when it is another reason."""
    stuck = decision.rule == "nobody_eligible"
    return before.rule == decision.rule and not (stuck and before.reason != decision.reason)


ROUTINE_RULES = frozenset({"unformed", "coordinator_not_ready", "primary_serving"})


def record_of(decision: Decision, epoch: int, wall_ms: int) -> DecisionRecord:
    """The decision as the history keeps it: inputs and every candidate's verdict, one line each."""
    verdicts = tuple(
        f"node {v.node_id}: {'eligible' if v.eligible else 'rejected'}: {v.reason}"
        for v in decision.candidates
    )
    return DecisionRecord(
        epoch=epoch,
        rule=decision.rule,
        action=type(decision.action).__name__,
        reason=decision.reason,
        details=(decision.inputs + verdicts)[:20],
        at_unix_ms=wall_ms,
    )


def definite(observation: Observation) -> tuple[object, ...]:
    """The part of an observation whose change is worth telling and judging at once."""
    return (
        observation.state,
        observation.role,
        observation.accepting,
        observation.data,
        observation.sealed,
        observation.epoch_opened,
        observation.fenced,
        observation.upstream,
        observation.streaming_replicas,
        observation.system_id,
        observation.copy,
        observation.position.timeline if observation.position else None,
    )


def _wall_ms() -> int:
    """Wall clock for people only; no decision reads it."""
    return time.time_ns() // 1_000_000
