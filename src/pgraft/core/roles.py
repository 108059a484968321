"""The changes of role that touch several parts at once.

Lives here: becoming leader, ceasing to be one, what a leader checks at each tick. Must not live
here: why (see `election`, `messages`). Start reading at `follow`.
"""

from __future__ import annotations

from pgraft.core.parts import Parts
from pgraft.core.types import NO_NODE, EventKind, NodeId, Role, Term


def lead(parts: Parts) -> None:
    """The election is won: lead this term."""
    state = parts.state
    state.become(Role.LEADER, state.me.node)
    parts.rounds.reset()
    parts.granter.elected()
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
        parts.reads.abandon()
        parts.granter.abandon()


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
    replication.check_transfer()
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
