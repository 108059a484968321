"""One member of a Raft group: everything the host calls.

Lives here: inputs, and putting a `Ready` together. Must not live here: any rule of Raft or of the
lease (see `messages`, `roles`, `election`, `replication`, `reads`, `lease`). Start reading at
`Raft`, after the package docstring.
"""

from __future__ import annotations

import random

from pgraft.core import messages, roles
from pgraft.core.limits import ENTRY_BYTES_MAX, UNCOMMITTED_ENTRIES_MAX
from pgraft.core.parts import Parts, wire
from pgraft.core.state import Me, State
from pgraft.core.types import (
    NO_NODE,
    EntryKind,
    EventKind,
    Grant,
    Index,
    Message,
    Nanos,
    NodeId,
    ProposalRefused,
    Ready,
    Recovered,
    Status,
    Term,
    Timing,
)
from pgraft.core.writes import NO_BATCH


class Raft:
    """A member of a group. Not thread-safe; every input carries `now`, CLOCK_BOOTTIME in ns.

    After each input the host takes `ready()` until it is None. `holder` and `granter` are the two
    halves of the primary lease; what is called on them comes out of the next `ready()` as well.
    """

    def __init__(
        self,
        node: NodeId,
        recovered: Recovered,
        timing: Timing,
        rng: random.Random,
        now: Nanos,
        *,
        boot: int,
        released_epoch: int = 0,
    ) -> None:
        """`boot` is drawn anew by each run of the daemon; `released_epoch` is what it had stored.

        ValueError if what storage recovered is no log.
        """
        state = State(Me(node=node, timing=timing, rng=rng), recovered, now)
        self._parts: Parts = wire(state, boot, released_epoch)
        self.holder = self._parts.holder
        self.granter = self._parts.granter

    def step(self, sender: NodeId, message: Message, now: Nanos) -> None:
        """Take a message that the transport has authenticated as coming from `sender`.

        SafetyViolation means a bug or a member that forgot what it had promised: the host stops.
        """
        self._parts.state.at(now)
        messages.step(self._parts, sender, message)

    def tick(self, now: Nanos) -> None:
        """Let time pass; call it at or after `next_deadline()`, however late."""
        parts, state = self._parts, self._parts.state
        state.at(now)
        paused = parts.election.paused()
        if paused:
            state.event(EventKind.PAUSED)
        if state.leading:
            roles.tick_leader(parts, paused=paused)
        else:
            roles.tick_follower(parts, paused=paused)
        parts.holder.tick()

    def propose(self, data: bytes, now: Nanos) -> tuple[Term, Index]:
        """Append a command; it is committed once an entry of this (term, index) comes out.

        ProposalRefused: not_leader, transferring, too_large, overloaded.
        """
        self._parts.state.at(now)
        return self._append(EntryKind.COMMAND, data=data)

    def propose_grant(self, grant: Grant, now: Nanos) -> tuple[Term, Index]:
        """Append the grant of the next epoch; from now on nobody's renewal is answered.

        ProposalRefused, beside the reasons of `propose`: not_ready (nothing of our own term is
        applied yet), wrong_epoch (not the applied one + 1), grant_in_flight, lease_running.
        """
        state = self._parts.state
        state.at(now)
        self._require_leader()
        epoch = state.log.grant.epoch if state.log.grant is not None else 0
        movable_ns = self.granter.may_move_at(state.now)
        if not state.leads_applied:
            raise ProposalRefused("not_ready", state.leader)
        if state.log.has_unapplied_grant():
            raise ProposalRefused("grant_in_flight", state.leader)
        if grant.epoch != epoch + 1:
            raise ProposalRefused("wrong_epoch", state.leader)
        if movable_ns is None or state.now < movable_ns:
            raise ProposalRefused("lease_running", state.leader)
        return self._append(EntryKind.GRANT, grant=grant)

    def read_index(self, context: int, now: Nanos) -> None:
        """Ask for a linearizable read; the answer comes in `Ready.reads`, on any role.

        `context` is the host's and unique among its open reads. Unanswered reads are given up
        (index None) after E at the latest on a follower, and when leadership is lost.
        """
        parts = self._parts
        parts.state.at(now)
        if parts.replication.transfer is not None:
            parts.reads.refuse(parts.state.me.node, context)
        else:
            parts.reads.ask(context)

    def transfer(self, to: NodeId, now: Nanos) -> None:
        """Hand leadership to a voter; no proposals and reads until it is done or given up after E.

        ProposalRefused: not_leader, transferring, not_a_voter.
        """
        self._parts.state.at(now)
        self._require_leader()
        self._parts.replication.start_transfer(to)

    def link(self, peer: NodeId, up: bool, now: Nanos) -> None:
        """A hint of the transport: the link to `peer` broke (end of file, refused) or is back."""
        self._parts.state.at(now)
        self._parts.election.link(peer, up)
        self._parts.replication.on_link(peer)

    def persisted(self, token: int, now: Nanos) -> None:
        """The batch of this token, and all before it, are durable."""
        state = self._parts.state
        state.at(now)
        state.out.local.extend(state.log.writes.persisted(token))
        roles.advance(self._parts)

    def ready(self) -> Ready | None:
        """The next work for the host, None if there is none; `committed` counts as applied now."""
        self._settle()
        parts, state = self._parts, self._parts.state
        log, out = state.log, state.out
        grant = log.grant
        committed = log.take_committed()
        if log.grant is not None and log.grant is not grant:
            parts.holder.observe(log.grant)
            parts.granter.moved()
        batch = NO_BATCH
        if log.writes.needed(state.term, state.vote, log.last_index):
            loopback = out.take_loopback()
            batch = log.writes.take(state.hard_state, log.last_index, state.now, loopback)
        elif not log.writes.in_flight:
            # All that was decided is durable already.
            out.now.extend(out.take_after_sync())
        if not committed and out.empty and batch is NO_BATCH:
            return None
        ready = Ready(
            token=batch.token,
            hard_state=batch.hard_state,
            truncate_from=batch.truncate_from,
            entries=log.slice_from(batch.first, bounded=False) if batch.token else (),
            send_now=tuple(out.now),
            send_after_sync=out.take_after_sync() if batch.token else (),
            committed=committed,
            reads=tuple(out.reads),
            events=tuple(out.events),
        )
        out.clear()
        return ready

    def next_deadline(self) -> Nanos:
        """When `tick` wants to be called next."""
        parts = self._parts
        wake = parts.election.wake_ns
        if parts.state.leading:
            wake = min(wake, parts.replication.beat_due_ns)
        return wake

    def status(self) -> Status:
        """A picture for people; nothing safe may be decided on it."""
        parts, state, log = self._parts, self._parts.state, self._parts.state.log
        progress = parts.replication.progress
        match = {peer: p.match for peer, p in progress.items()}
        contact = {peer: p.heard_ns for peer, p in progress.items()}
        if state.leading:
            match[state.me.node] = log.writes.stable
        elif state.leader != NO_NODE:
            contact[state.leader] = parts.election.contact_ns
        return Status(
            node=state.me.node,
            role=state.role,
            term=state.term,
            leader=state.leader,
            commit=log.commit,
            applied=log.applied,
            last_index=log.last_index,
            config=log.config,
            match=match,
            last_contact_ns=contact,
            epoch=log.grant.epoch if log.grant is not None else 0,
            holder=log.grant.holder if log.grant is not None else NO_NODE,
        )

    def _require_leader(self) -> None:
        state = self._parts.state
        if not state.leading:
            raise ProposalRefused("not_leader", state.leader)
        if self._parts.replication.transfer is not None:
            raise ProposalRefused("transferring", self._parts.replication.transfer.to)

    def _append(
        self, kind: EntryKind, data: bytes = b"", grant: Grant | None = None
    ) -> tuple[Term, Index]:
        state = self._parts.state
        self._require_leader()
        if len(data) + len(grant.payload if grant is not None else b"") > ENTRY_BYTES_MAX:
            raise ProposalRefused("too_large", state.leader)
        if state.log.last_index - state.log.commit >= UNCOMMITTED_ENTRIES_MAX:
            raise ProposalRefused("overloaded", state.leader)
        entry = self._parts.replication.append(kind, data, grant)
        return entry.term, entry.index

    def _settle(self) -> None:
        """Step messages to oneself, begin the round that was asked for, step what that answered."""
        parts = self._parts
        self._step_local()
        parts.reads.settle()
        if not parts.state.leading:
            return
        number = parts.rounds.begin()
        if number is not None:
            parts.replication.beat(number)
        if parts.reads.waiting or parts.granter.waiting:
            confirmed = parts.rounds.confirmed()
            parts.reads.on_round(confirmed)
            parts.granter.on_round(confirmed)
        # Answers to our own renewals: they cause no further message to ourselves.
        self._step_local()

    def _step_local(self) -> None:
        local = self._parts.state.out.local
        for _ in range(len(local)):
            messages.step_local(self._parts, local.popleft())
