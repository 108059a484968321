"""The changes of role that touch several parts at once.

Lives here: becoming leader, ceasing to be one, what a leader checks at each tick. Must not live
here: why (see `election`, `messages`). Start reading at `follow`.
"""

from __future__ import annotations

from pgraft.core.parts import Parts
from pgraft.core.types import NO_NODE, EventKind, LeaseTerms, NodeId, Role, Term


def lead(parts: Parts) -> None:
    """The election is won: lead this term."""
    state = parts.state
    state.become(Role.LEADER, state.me.node)
    parts.rounds.reset()
    parts.granter.elected(parts.election.contacts())
    parts.handover.abandon()
    parts.replication.start()


def follow(parts: Parts, term: Term, leader: NodeId = NO_NODE, why: str = "higher term") -> None:
    """Be a follower of `term`, the current or a later one; a leader gives up all it had begun."""
    state = parts.state
    was_leading = state.leading
    if was_leading:
        state.event(EventKind.STEPPED_DOWN, why)
        # A leader is its own contact until now (dating of leases).
        parts.election.contact_ns = state.now
    if term > state.term:
        state.enter_term(term)
    state.become(Role.FOLLOWER, leader)
    if was_leading:
        parts.election.rearm()
        parts.replication.stop()
        parts.handover.abandon()
        parts.reads.abandon()
        parts.granter.abandon()


def step_down(parts: Parts, why: str) -> None:
    """A leader gives up of its own accord, and names the best voter to go on."""
    parts.handover.leave()
    follow(parts, parts.state.term, why=why)


def settle_membership(parts: Parts) -> None:
    """What follows from a configuration that was appended, reverted or committed."""
    if parts.membership.quiet:
        return
    parts.membership.tell()
    parts.membership.leave_if_due()
    if parts.membership.leads_from_outside:
        step_down(parts, "no voter any more")


def observe(parts: Parts, before: LeaseTerms) -> None:
    """Entries, or a snapshot, were applied; `before` are the terms that stood until then."""
    lease = parts.state.log.applied.lease
    if lease == before:
        return
    parts.granter.applied(before)
    if lease.grant is not None and lease.grant != before.grant:
        parts.holder.observe(lease.grant)


def tick_leader(parts: Parts, *, paused: bool) -> None:
    """CheckQuorum, stalled disk, transfer, heartbeat."""
    state, replication = parts.state, parts.replication
    if paused:
        # What others sent meanwhile, and our disk's answer, may still wait in the host's queues.
        replication.forgive_silence()
        parts.rounds.resumed()
    why = "" if paused else replication.failing()
    if why:
        follow(parts, state.term, why=why)
        return
    parts.handover.check()
    replication.dismiss_former()
    if state.now >= replication.beat_due_ns:
        parts.rounds.request()


def tick_follower(parts: Parts, *, paused: bool) -> None:
    """Campaign at the timeout; after our own pause the leader gets a fresh one."""
    if paused:
        parts.election.rearm()
    parts.election.tick()


def advance(parts: Parts) -> None:
    """Something new is durable somewhere: commit it, and start reads that waited for a commit."""
    if parts.state.leading and parts.replication.advance_commit():
        parts.reads.on_commit()
