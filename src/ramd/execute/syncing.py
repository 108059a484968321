"""Keeps this node's server and the recorded synchronous set together, and proves that they are.

Lives here: telling the server, the proof (attacks C5, C6, H6), and proposing what the primary wants
(`ramd.policy.syncing`). Must not live here: which set is wanted, what a failover makes of it. Start
reading at `Syncing.turn`.

A set is proven on one start of the server when, in this order: every process that can release a
waiting commit has loaded it (the page says so); no stream is counted that is no member's; and all
WAL that was on disk after that is confirmed by k members. Until then no lease is published to a
server that has just become primary, restarted or recovered, and no change is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ramd import events, sync_events
from ramd.domain.consensus import Consensus
from ramd.domain.errors import RamdError
from ramd.domain.fence import Pulse
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.model import ClusterState, DecisionRecord
from ramd.domain.server import Server
from ramd.domain.sync import (
    Stream,
    SyncConf,
    SyncFacts,
    SyncMember,
    SyncMode,
    SyncRecord,
    SyncSeen,
    SyncSet,
)
from ramd.execute.local import LocalStore
from ramd.policy.syncing import Change, Keep, Relax, SyncMemory, SyncView, consider, recall, waiting
from ramd.state.apply import refusal
from ramd.state.commands import Command, encode
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync

NS_PER_MS = 1_000_000
TICK_MS = 50
"""How often it is looked whether there is something to do; costs no SQL."""
HURRY_MS = 2
"""The same while a proof is under way or about to begin, for up to `TELL_WAIT_NS`: clients may wait
for it. The page says when it is worth to ask by SQL; that is done every `TICK_MS` anyway."""
LOOK_MS = 1_000
"""How often a primary whose set is proven is asked who streams from it."""
QUESTION_MS = 1_000
PROPOSE_S = 3.0
TELL_WAIT_NS = 2_000_000_000
"""A proof that takes longer is told of."""
AGAIN_NS = 1_000_000_000
"""A server that does not show for so long that it has loaded its set reads it once more: a process
that was forked with it, after the postmaster had made its memory with an older one, says which it
has loaded only when it reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a proof is of: one set on one start of one server."""

    epoch: int
    generation: int
    start_number: int


@dataclass(slots=True)
class Proof:
    """How far it is. `upto`: all WAL on disk when every process had loaded the set."""

    subject: Subject
    begun_ns: int
    upto: Lsn | None = None
    done: bool = False
    why: str = "not looked yet"
    told: bool = False
    again_ns: int = 0
    """When the server was made to read it again."""


@dataclass(slots=True)
class Course:
    """What this daemon remembers of its time as primary."""

    read: bool = False
    """Everything that was committed before this run of the daemon has been read."""
    proof: Proof | None = None
    memory: SyncMemory = field(default_factory=SyncMemory)
    facts: SyncFacts | None = None
    looked_ns: int = 0
    epoch: int = 0
    proposed: tuple[int, str] = (0, "")
    """The change that was told of last."""
    reason: str = ""
    """Why commits wait for nobody although that is not off, or are not acknowledged at all."""


class Syncing:
    """See module. All calls from the control loop's thread. `changed` wakes who waits."""

    def __init__(
        self,
        *,
        me: int,
        server: Server,
        consensus: Consensus,
        store: LocalStore,
        clock: Callable[[], int],
        unix_ms: Callable[[], int] = lambda: 0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._me = me
        self._server = server
        self._consensus = consensus
        self._store = store
        self._clock = clock
        self._unix_ms = unix_ms
        self._changed = changed
        self._course = Course()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.turn()
            except (RamdError, OSError, TimeoutError) as error:
                self._waits(str(error))
            await asyncio.sleep((HURRY_MS if self._hurries else TICK_MS) / 1000)

    @property
    def _hurries(self) -> bool:
        """A primary's writes wait for the proof, or will as soon as it is promoted."""
        course = self._course
        if course.epoch == 0 or (course.proof is not None and course.proof.done):
            return False
        begun_ns = course.looked_ns if course.proof is None else course.proof.begun_ns
        return self._clock() - begun_ns < TELL_WAIT_NS

    def obstacle(self, epoch: int) -> str:
        """Why no lease of `epoch` may be published to the server that runs now; '' if it may."""
        state = self._consensus.state()
        if not self._course.read or state.epoch != epoch:
            return f"the record was not read yet, or is not at epoch {epoch}"
        if not standing_set(state.sync).members:
            return ""
        if not self._server.fence.guards:
            return "the server does not load the extension, so its synchronous set cannot be proven"
        proof = self._course.proof
        if proof is None or proof.subject != self._subject(state):
            return "its synchronous set is not proven yet"
        return "" if proof.done else proof.why

    def seen(self) -> SyncSeen | None:
        """What a primary tells of it; None elsewhere."""
        facts, proof = self._course.facts, self._course.proof
        if facts is None:
            return None
        done = proof is not None and proof.done
        return SyncSeen(
            streams=facts.streams,
            generation=proof.subject.generation if proof is not None and done else 0,
            waits_for=proof.why if proof is not None and not done else self._course.reason,
        )

    async def turn(self) -> None:
        """One look, and at most one proposal."""
        if not self._course.read:
            # What an earlier run of the daemon told the server was committed by then. Until all
            # of that is applied here, telling it anything could take it back to an older set.
            await self._consensus.read_barrier(timeout_s=PROPOSE_S)
            self._course.read = True
        state = self._consensus.state()
        reign, server = state.reign, self._server
        if not state.formed or reign is None or not server.running:
            self._course = Course(read=True)
            return
        if reign.node_id != self._me:
            self._course = Course(read=True)
            # Whatever happens to it, a replica alone can acknowledge nothing.
            await server.tell_sync(SyncConf(blocking=not state.sync.asynchronous))
            return
        if self._course.epoch != state.epoch:
            self._course = Course(read=True, epoch=state.epoch)
        target = standing_set(state.sync)
        await server.tell_sync(SyncConf(target=target, generation=state.sync.generation))
        if self._store.record.opened_epoch == state.epoch:
            await self._lead(state, target)
        elif target.members:
            await self._warm_up()

    async def _warm_up(self) -> None:
        """Open the session while the promotion is under way. A replica has no answer to give."""
        if not self._course.looked_ns:
            self._course.looked_ns = self._clock()
            with contextlib.suppress(RamdError, TimeoutError):
                await self._server.sync_facts(timeout_ms=QUESTION_MS)

    # --- as primary ----------------------------------------------------------------------------

    async def _lead(self, state: ClusterState, target: SyncSet) -> None:
        course, now_ns = self._course, self._clock()
        pulse = self._server.fence.pulse()
        if pulse is not None and pulse.in_recovery:
            return
        subject = self._subject(state)
        if course.proof is None or course.proof.subject != subject:
            course.proof = Proof(subject=subject, begun_ns=now_ns, done=not target.members)
        settled = course.proof.done and state.sync.target is None
        if settled and now_ns - course.looked_ns < LOOK_MS * NS_PER_MS:
            return
        # The order counts: who has loaded the set was seen before the WAL is looked at.
        loaded = _not_loaded(pulse, state.sync, target)
        proof, looked_ns = course.proof, course.looked_ns
        asked = now_ns - looked_ns < TICK_MS * NS_PER_MS
        if asked and not proof.done and not _worth_asking(proof, loaded, pulse, target):
            return
        course.facts = await self._server.sync_facts(timeout_ms=QUESTION_MS)
        course.looked_ns = now_ns
        if not proof.done:
            self._prove(proof, target, loaded, course.facts)
        await self._propose_next(state, course.facts)

    def _prove(self, proof: Proof, target: SyncSet, loaded: str, facts: SyncFacts) -> None:
        proof.why = loaded or counted_wrongly(target, facts)
        if not proof.why:
            proof.upto = facts.flushed if proof.upto is None else proof.upto
            proof.why = _unconfirmed(target, facts, proof.upto)
        if not proof.why and proof.upto is not None:
            proof.done = True
            events.emit(
                sync_events.SyncProven(
                    epoch=proof.subject.epoch,
                    generation=proof.subject.generation,
                    upto=format_lsn(proof.upto),
                )
            )
            self._changed()
            return
        now_ns = self._clock()
        if loaded and now_ns - max(proof.begun_ns, proof.again_ns) > AGAIN_NS:
            proof.again_ns = now_ns
            self._server.tell_again()
        if now_ns - proof.begun_ns > TELL_WAIT_NS:
            self._waits(proof.why)

    async def _propose_next(self, state: ClusterState, facts: SyncFacts) -> None:
        course = self._course
        view = SyncView(
            now_ns=self._clock(),
            me=self._me,
            state=state,
            streams=facts.streams,
            provable=self._server.fence.guards,
            memory=course.memory,
        )
        course.memory = recall(view)
        command = self._next(state, course, replace(view, memory=course.memory))
        if command is None or not self._leased(state.epoch):
            return
        if why := refusal(state, command):
            self._waits(f"the record takes no change now: {why}")
            return
        await self._consensus.propose(encode(command), timeout_s=PROPOSE_S)
        self._changed()

    def _next(self, state: ClusterState, course: Course, view: SyncView) -> Command | None:
        record, choice = state.sync, consider(view)
        off = state.settings.synchronous_replication is SyncMode.OFF
        unmet = not off and not record.goal.members
        course.reason = choice.reason if unmet else waiting(view)
        match choice:
            case Change():
                return self._change(state, choice)
            case Relax(reason=reason):
                self._tell(record.generation, reason)
                return RelaxSync(
                    epoch=state.epoch,
                    generation=record.generation,
                    record=self._record(state, "sync_relaxed", reason),
                )
            case Keep():
                proven = course.proof is not None and course.proof.done
                if record.target is None or not proven:
                    return None
                return SettleSync(epoch=state.epoch, generation=record.generation)

    def _change(self, state: ClusterState, choice: Change) -> Command:
        generation = state.sync.generation + 1
        self._tell(generation, choice.reason)
        return ChangeSync(
            epoch=state.epoch,
            generation=generation,
            target=choice.target,
            primary_copy=self._store.record.copy,
            record=self._record(state, "sync_changed", choice.reason),
        )

    def _record(self, state: ClusterState, rule: str, reason: str) -> DecisionRecord:
        facts = self._course.facts
        streams = facts.streams if facts is not None else ()
        return DecisionRecord(
            epoch=state.epoch,
            rule=rule,
            action="ChangeSync",
            reason=reason,
            details=tuple(
                f"node {s.node_id}: copy {s.copy or 'without a name'} has confirmed"
                f" {format_lsn(s.flushed)}"
                for s in streams
            ),
            actor=f"primary, node {self._me}",
            at_unix_ms=self._unix_ms(),
        )

    def _tell(self, generation: int, reason: str) -> None:
        """Once for each change, however often it cannot be proposed."""
        if self._course.proposed != (generation, reason):
            self._course.proposed = (generation, reason)
            events.emit(sync_events.SyncProposed(generation=generation, reason=reason))

    def _waits(self, why: str) -> None:
        proof = self._course.proof
        if proof is not None and not proof.told:
            proof.told = True
            told = sync_events.SyncStands if proof.done else sync_events.SyncWaits
            events.emit(told(generation=proof.subject.generation, why=why))

    def _subject(self, state: ClusterState) -> Subject:
        return Subject(
            epoch=state.epoch,
            generation=state.sync.generation,
            start_number=self._server.fence.start_number(),
        )

    def _leased(self, epoch: int) -> bool:
        """Only a holder changes its set (attacks H7)."""
        held, deadline_ns = self._consensus.lease()
        latched = self._store.released_epoch
        return held == epoch > latched and self._clock() < deadline_ns


def standing_set(record: SyncRecord) -> SyncSet:
    """What the server goes by: the goal, but the old set while a change to nobody only begins."""
    if record.target is not None and not record.target.members:
        return record.rules[-1]
    return record.goal


def _not_loaded(pulse: Pulse | None, record: SyncRecord, target: SyncSet) -> str:
    if not target.members:
        return ""
    if pulse is None:
        return "the page of the server is silent"
    if pulse.sync_generation < record.generation:
        return (
            f"a process of the server still goes by set {pulse.sync_generation},"
            f" not {record.generation}"
        )
    return "" if pulse.sync_defined else "the checkpointer has not told sessions to wait yet"


def counted_wrongly(target: SyncSet, facts: SyncFacts) -> str:
    """A stream that the server counts and should not; '' if there is none."""
    members = set(target.members)
    if not facts.as_told:
        return "the server goes by other names than it was told"
    counted = (s for s in (*facts.streams, *facts.behind) if s.counts)
    wrong = [stream.node_id for stream in counted if _member(stream) not in members]
    if facts.strangers:
        return "a stream bears the name of a member without its slot"
    return f"the stream of node {wrong[0]} is still counted" if wrong else ""


def _worth_asking(proof: Proof, loaded: str, pulse: Pulse | None, target: SyncSet) -> bool:
    """By the page, the next step of the proof can be taken. What the page says proves nothing."""
    if loaded:
        return False
    if proof.upto is None or pulse is None:
        return True
    have = [node for node in target.nodes if pulse.streams.get(node, Lsn(0)) >= proof.upto]
    return len(have) >= target.k


def _unconfirmed(target: SyncSet, facts: SyncFacts, upto: Lsn) -> str:
    members = set(target.members)
    have = {_member(s) for s in facts.streams if s.counts and s.flushed >= upto}
    missing = target.k - len(have & members)
    if missing <= 0:
        return ""
    return (
        f"{len(have & members)} of {target.k} members have confirmed WAL to {format_lsn(upto)};"
        f" waiting for any {missing} more of {target.text()}"
    )


def _member(stream: Stream) -> SyncMember:
    return SyncMember(node_id=stream.node_id, copy=stream.copy)
