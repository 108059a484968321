"""The control loop of one node: observe → decide (coordinator only) → tell → execute.

One beat looks at one coherent picture and acts once; probes, messages and commits only deposit
facts and wake it. Must not live here: any judgement (`ramd.policy`), any action (`ramd.execute`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from ramd import events
from ramd.coordinator import Coordinator, definite
from ramd.domain.consensus import GroupStatus
from ramd.domain.decision import Directive, LocalFacts
from ramd.domain.fence import Fence
from ramd.domain.observation import Heard, Observation, RaftMark
from ramd.domain.sync import SyncSeen
from ramd.execute.executor import Executor
from ramd.execute.local import LocalStore
from ramd.link import Link
from ramd.observe.observer import Observer
from ramd.policy.plan import plan
from ramd.state.commands import UndecodableError
from ramd.state.wire import Beat, decode_beat, decode_observation, encode_beat, encode_observation

NS_PER_MS = 1_000_000
BEAT_MS = 500
PATIENCE_NS = 2_000_000_000
PAUSE_MIN_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a beat works with."""

    me: int
    consensus: Link
    store: LocalStore
    observer: Observer
    executor: Executor
    coordinator: Coordinator
    fence: Fence
    clock: Callable[[], int]
    synced: Callable[[], SyncSeen | None] = lambda: None
    """What a primary tells of its synchronous set."""
    patience_ns: int = PATIENCE_NS
    """A coordinator not heard for this long is not in touch."""
    adopt_until_ns: int = 0
    """See LocalFacts: until when a server found running may wait for its first renewal."""


@dataclass(slots=True)
class Told:
    """The newest word of a coordinator, this node's own included."""

    directive: Directive | None = None
    term: int = 0
    heard_ns: int = 0


class ControlLoop:
    """Beats every `BEAT_MS`, at each wake, and when a decision asked to be looked at again."""

    def __init__(self, parts: Parts, *, wake: asyncio.Event, beaten: Callable[[], None]) -> None:
        self._parts = parts
        self._wake = wake
        self._beaten = beaten
        self._told = Told()
        self._sent = (0, 0, Observation(node_id=parts.me, boot=0, taken_ns=0))
        self._sent_beat: tuple[int, Directive | None] = (0, None)
        self._news = False
        parts.consensus.receive("observe", self._on_observation)
        parts.consensus.receive("beat", self._on_beat)

    @property
    def board(self) -> tuple[Heard, ...]:
        """The newest that is known here of every node, this one included."""
        return tuple(self._parts.coordinator.heard.values())

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._wake.clear()
            now_ns = self._parts.clock()
            due_ns = self.beat(now_ns)
            pause_s = max(PAUSE_MIN_S, (due_ns - self._parts.clock()) / 1e9)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def beat(self, now_ns: int) -> int:
        """One turn; returns when the next is due at the latest (own ns)."""
        parts = self._parts
        lease, status = parts.consensus.lease(), parts.consensus.status()
        observation = parts.observer.observation(
            now_ns,
            standing=parts.executor.standing(),
            lease=lease,
            loop_lag_ms=status.loop_lag_ms,
            raft=RaftMark(
                role=status.raft_role,
                term=status.term,
                commit_index=status.commit_index,
                applied_index=status.applied_index,
            ),
        )
        observation = replace(observation, sync=parts.synced())
        self._news |= parts.coordinator.hear(observation, now_ns)
        wake_ns = parts.coordinator.beat(now_ns)
        # Deciding may have changed term or state: everything below looks at what is now.
        status = parts.consensus.status()
        if status.is_coordinator:
            self._lead(status, now_ns)
        else:
            self._report(status, observation, now_ns)
        self._pursue(observation, lease, status, now_ns)
        self._beaten()
        due_ns = now_ns + BEAT_MS * NS_PER_MS
        return min(due_ns, wake_ns) if wake_ns else due_ns

    def _pursue(
        self, observation: Observation, lease: tuple[int, int], status: GroupStatus, now_ns: int
    ) -> None:
        parts, told = self._parts, self._told
        seal = parts.store.record.seal
        facts = LocalFacts(
            me=parts.me,
            now_ns=now_ns,
            lease_epoch=lease[0] if lease[1] else 0,
            lease_deadline_ns=lease[1],
            released_epoch=parts.store.released_epoch,
            opened_epoch=parts.store.record.opened_epoch,
            in_touch=told.term == status.term and now_ns - told.heard_ns < parts.patience_ns,
            sealed_attempt=seal.attempt if seal else None,
            self_fenced=parts.fence.guards,
            removed=bool(status.removed),
            yielding_epoch=parts.executor.standing().yielding_epoch,
            adopt_until_ns=parts.adopt_until_ns,
        )
        goal = plan(parts.consensus.state(), told.directive, facts, observation)
        attempt = told.directive.attempt if told.directive else None
        parts.executor.pursue(goal, attempt=attempt)

    def _lead(self, status: GroupStatus, now_ns: int) -> None:
        """The coordinator tells every other node, and itself: at each beat, and at once when what
        it wants or what is definite of any node has changed."""
        parts = self._parts
        if not status.ready:
            return
        directive, board = parts.coordinator.directive, self.board
        self._told = Told(directive=directive, term=status.term, heard_ns=now_ns)
        sent_ns, sent = self._sent_beat
        fresh = directive == sent and not self._news
        if fresh and now_ns - sent_ns < BEAT_MS * NS_PER_MS * 9 // 10:
            return
        self._sent_beat = (now_ns, directive)
        self._news = False
        state = parts.consensus.state()
        beat = Beat(
            directive=directive,
            observations=tuple(heard.observation for heard in board),
            coordinator=parts.me,
            state_index=state.applied_index,
            term=status.term,
            ages_ms=tuple((now_ns - heard.received_ns) // NS_PER_MS for heard in board),
        )
        payload = encode_beat(beat)
        for member in state.members:
            if member.node_id != parts.me:
                parts.consensus.cast(member.node_id, "beat", payload)

    def _report(self, status: GroupStatus, observation: Observation, now_ns: int) -> None:
        """Everybody else tells the coordinator: at each beat, and at once what is definite, and a
        new coordinator, which calls nobody silent before it had time to hear."""
        sent_ns, to, sent = self._sent
        due = to != status.coordinator or now_ns - sent_ns >= BEAT_MS * NS_PER_MS * 9 // 10
        if status.coordinator is None or not (due or definite(sent) != definite(observation)):
            return
        self._sent = (now_ns, status.coordinator, observation)
        self._parts.consensus.cast(status.coordinator, "observe", encode_observation(observation))

    def _on_observation(self, sender: int, payload: bytes) -> None:
        try:
            observation = decode_observation(payload)
        except UndecodableError as error:
            events.emit(events.MessageIgnored(method="observe", sender=sender, why=str(error)))
            return
        now_ns = self._parts.clock()
        if observation.node_id == sender and self._parts.coordinator.hear(observation, now_ns):
            self._news = True
            self._wake.set()

    def _on_beat(self, sender: int, payload: bytes) -> None:
        try:
            beat = decode_beat(payload)
        except UndecodableError as error:
            events.emit(events.MessageIgnored(method="beat", sender=sender, why=str(error)))
            return
        status = self._parts.consensus.status()
        if beat.term != status.term or sender != status.coordinator:
            return
        now_ns = self._parts.clock()
        for observation, age_ms in zip(beat.observations, beat.ages_ms, strict=False):
            # Whoever coordinates next must know what was known: silence is judged from here.
            if observation.node_id != self._parts.me:
                self._parts.coordinator.hear(observation, now_ns - age_ms * NS_PER_MS)
        changed = beat.directive != self._told.directive or self._told.term != beat.term
        self._told = Told(directive=beat.directive, term=beat.term, heard_ns=now_ns)
        if changed:
            self._wake.set()
