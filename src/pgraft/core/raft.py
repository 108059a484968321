"""One member of a Raft group: everything the host calls.

Lives here: inputs, and putting a `Ready` together. Must not live here: any rule of Raft or of the
lease (see `messages`, `roles`, `election`, `replication`, `reads`, `lease`). Start reading at
`Raft`, after the package docstring.
"""

from __future__ import annotations

import random

from pgraft.core import messages, proposals, roles
from pgraft.core.limits import SNAPSHOT_BYTES_MAX
from pgraft.core.parts import Parts, wire
from pgraft.core.state import Me, State
from pgraft.core.types import (
    NO_NODE,
    NO_ORIGIN,
    Change,
    Config,
    Entry,
    EventKind,
    Grant,
    Index,
    LeaseTerms,
    Message,
    Nanos,
    NodeId,
    Origin,
    ProposalRefused,
    Ready,
    Recovered,
    Snapshot,
    Status,
    Term,
    Timing,
    TtlChange,
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
        since: Index = Index(0),
    ) -> None:
        """`boot` is drawn anew by each run of the daemon; `released_epoch` is what it had stored;
        `since` is the index of the entry that admitted this member (`PeerRecord.since`).

        ValueError if what storage recovered is no log.
        """
        state = State(Me(node=node, timing=timing, rng=rng, since=since), recovered, now)
        self._parts: Parts = wire(state, boot, released_epoch)
        roles.observe(self._parts, LeaseTerms())
        self.holder = self._parts.holder
        self.granter = self._parts.granter
        self.confirmed = self._parts.replication.promises.confirmed

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

    def propose(self, data: bytes, now: Nanos, origin: Origin = NO_ORIGIN) -> tuple[Term, Index]:
        """Append a command; it is committed once an entry of this (term, index) comes out.

        A command of an `origin` that was applied before comes out as a NOOP (see `sessions`).
        ProposalRefused: not_leader, transferring, too_large, overloaded.
        """
        self._parts.state.at(now)
        return _place(proposals.command(self._parts, data, origin))

    def propose_grant(self, grant: Grant, now: Nanos) -> tuple[Term, Index]:
        """Append the grant of the next epoch; from now on nobody's renewal is answered.

        ProposalRefused, beside the reasons of `propose`: not_ready (nothing of our own term is
        applied yet), wrong_epoch (not the applied one + 1), grant_in_flight, lease_running.
        """
        self._parts.state.at(now)
        return _place(proposals.grant(self._parts, grant))

    def change_ttl(self, epoch: int, ttl_ns: Nanos, now: Nanos) -> tuple[Term, Index]:
        """Append another ttl for the epoch in force; answers carry it once it is applied.

        ValueError for a ttl below 1. ProposalRefused, beside the reasons of `propose`: not_ready,
        wrong_epoch.
        """
        if ttl_ns < 1:
            raise ValueError("a lease lasts longer than nothing")
        self._parts.state.at(now)
        return _place(proposals.ttl(self._parts, TtlChange(epoch=epoch, ttl_ns=ttl_ns)))

    def change(self, change: Change, now: Nanos) -> tuple[Term, Index]:
        """Append the configuration that `change` makes, or the joint one on the way to it; it is in
        effect at once. A joint one is left by itself when it is committed.

        A leader that is no voter afterwards leads until that is committed, then hands over.
        ProposalRefused: not_leader, transferring, not_ready (nothing of our own term is committed
        yet), change_in_flight, nothing_to_change, used_id, used_address, used_uuid, unknown_member,
        not_a_learner, not_a_voter, learner_behind, last_voter, too_many_voters, too_many_members.
        """
        self._parts.state.at(now)
        return _place(proposals.change(self._parts, change))

    def snapshot(self, data: bytes) -> Snapshot:
        """Everything that was handed out so far; `data` is the host's state of exactly that point.

        ProposalRefused: too_large.
        """
        state, log = self._parts.state, self._parts.state.log
        if len(data) > SNAPSHOT_BYTES_MAX:
            raise ProposalRefused("too_large", state.leader)
        term = log.term_at(log.applied.index)
        assert term is not None
        return Snapshot(
            index=log.applied.index,
            term=term,
            config=log.configs.at(log.applied.index)[1],
            lease=log.applied.lease,
            sessions=log.applied.sessions,
            data=data,
        )

    def compacted(self, snapshot: Snapshot, now: Nanos) -> None:
        """This snapshot is durable: entries before it may be forgotten; an old one is ignored.

        SafetyViolation if it is not one of this log.
        """
        self._parts.state.at(now)
        self._parts.state.log.compact(snapshot)

    def clock_suspect(self, suspect: bool, now: Nanos) -> None:
        """Whether our clock runs off by more than half the drift that leases allow for.

        Then a holder does not renew and gives up a part of what it has left, votes say so, and a
        coordinator waits longer from its election.
        """
        state = self._parts.state
        state.at(now)
        if state.clock.suspect is suspect:
            return
        state.clock.suspect = suspect
        state.event(EventKind.CLOCK, "suspect" if suspect else "sound")
        if suspect:
            self.granter.doubt()
            self.holder.doubt()

    def step_down(self, why: str, now: Nanos) -> None:
        """The host does not want this node to lead any more; `why` is for people."""
        self._parts.state.at(now)
        if self._parts.state.leading:
            roles.step_down(self._parts, why)

    def read_index(self, context: int, now: Nanos) -> None:
        """Ask for a linearizable read; the answer comes in `Ready.reads`, on any role.

        `context` is the host's and unique among its open reads. Unanswered reads are given up
        (index None) after E at the latest on a follower, and when leadership is lost.
        """
        parts = self._parts
        parts.state.at(now)
        if parts.handover.transfer is not None:
            parts.reads.refuse(parts.state.me.node, context)
        else:
            parts.reads.ask(context)

    def transfer(self, to: NodeId, now: Nanos) -> None:
        """Hand leadership to a voter; no proposals and reads until it is done or given up after E.

        ProposalRefused: not_leader, transferring, not_a_voter.
        """
        self._parts.state.at(now)
        proposals.require_leader(self._parts)
        self._parts.handover.start(to)

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
        lease = log.applied.lease
        committed = log.take_committed()
        roles.observe(parts, lease)
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
            snapshot=batch.snapshot,
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

    @property
    def config(self) -> Config:
        """The configuration in effect, committed or not."""
        return self._parts.state.config

    def status(self) -> Status:
        """A picture for people; nothing safe may be decided on it."""
        parts, state, log = self._parts, self._parts.state, self._parts.state.log
        progress, transfer = parts.replication.progress, parts.handover.transfer
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
            applied=log.applied.index,
            last_index=log.last_index,
            config=log.configs.effective,
            committed_config=log.configs.at(log.commit)[1],
            snapshot_index=log.snapshot.index,
            transfer_to=transfer.to if transfer is not None else NO_NODE,
            match=match,
            last_contact_ns=contact,
            epoch=log.applied.epoch,
            holder=log.applied.grant.holder if log.applied.grant is not None else NO_NODE,
        )

    def _settle(self) -> None:
        """Step messages to oneself, begin the round that was asked for, step what that answered."""
        parts = self._parts
        self._step_local()
        roles.settle_membership(parts)
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


def _place(entry: Entry) -> tuple[Term, Index]:
    return entry.term, entry.index
