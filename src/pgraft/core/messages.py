"""What one incoming message does: the term rules of Raft Figure 2, then one handler per kind.

Lives here: routing, term rules, the follower's side of replication. Must not live here: state.
Start reading at `step`.

Whoever the transport has authenticated is listened to, member or not: a member that lags must hear
a leader that it does not know yet. What counts is counted by the configuration: votes, rounds and
acknowledgements of others mean nothing, and their answers do not move our term. A former member
that asks for votes is judged as any candidate: by stickiness, PreVote and its log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from pgraft.core.config import is_member
from pgraft.core.log import is_contiguous, search
from pgraft.core.parts import Parts
from pgraft.core.roles import follow, lead, observe
from pgraft.core.types import (
    Append,
    AppendReply,
    EventKind,
    Heartbeat,
    HeartbeatReply,
    Index,
    InstallSnapshot,
    Message,
    NodeId,
    ReadReply,
    ReadRequest,
    Release,
    Renew,
    RenewReply,
    Role,
    SafetyViolation,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

_LeaseMessage: TypeAlias = Renew | RenewReply | Release
_Answer: TypeAlias = VoteReply | AppendReply | HeartbeatReply


def step(parts: Parts, sender: NodeId, message: Message) -> None:
    """Take one message from another node; an echo of our own is dropped."""
    if sender != parts.state.me.node:
        _route(parts, sender, message)


def step_local(parts: Parts, message: Message) -> None:
    """Take a message this node sent to itself."""
    _route(parts, parts.state.me.node, message)


def _route(parts: Parts, sender: NodeId, message: Message) -> None:
    if isinstance(message, VoteRequest):
        _on_vote_request(parts, sender, message)
    elif isinstance(message, _LeaseMessage):
        _LEASE_HANDLERS[type(message)](parts, sender, message)
    elif _admit(parts, sender, message):
        _HANDLERS[type(message)](parts, sender, message)


def _admit(parts: Parts, sender: NodeId, message: Any) -> bool:
    """Raft §5.1: a higher term is taken over, a lower one is refused with ours."""
    state = parts.state
    if message.term > state.term:
        if isinstance(message, _Answer) and not is_member(state.config, sender):
            return False
        # A granted pre-vote names a term nobody has entered yet.
        if not (isinstance(message, VoteReply) and message.pre and message.granted):
            follow(parts, message.term)
        return True
    if message.term == state.term:
        return True
    # Tell a superseded leader, else it would go on for as long as it hears a quorum.
    if isinstance(message, Append):
        state.out.send_after_sync(sender, AppendReply(term=state.term, ok=False))
    elif isinstance(message, Heartbeat):
        state.out.send(sender, HeartbeatReply(term=state.term, round=0))
    return False


def _on_vote_request(parts: Parts, sender: NodeId, request: VoteRequest) -> None:
    state, election = parts.state, parts.election
    parts.replication.promises.claimed(sender, request.last_term, request.last_index)
    if request.pre:
        election.on_pre_vote(sender, request)
        return
    if request.term > state.term:
        if election.sticks() and not request.transfer:
            return
        follow(parts, request.term)
    election.on_vote(sender, request)


def _on_vote_reply(parts: Parts, sender: NodeId, reply: VoteReply) -> None:
    if sender in parts.replication.promises.regressed:
        return
    if parts.election.on_reply(sender, reply):
        lead(parts)


def _heard(parts: Parts, leader: NodeId) -> None:
    """A message only the leader of our term can have sent."""
    state = parts.state
    if state.leading or state.leader not in (0, leader):
        raise SafetyViolation(f"two leaders in term {state.term}: {state.leader} and {leader}")
    state.become(Role.FOLLOWER, leader)
    parts.election.heard_leader(leader)


def _on_append(parts: Parts, sender: NodeId, append: Append) -> None:
    """Raft §5.3, the follower's side. The ack leaves when the entries are durable."""
    _heard(parts, sender)
    state, log = parts.state, parts.state.log
    prev = append.prev_index
    if not is_contiguous(prev, append.prev_term, append.entries):
        return
    if prev < log.base:
        _on_append_below_base(parts, sender, append)
        return
    if log.term_at(prev) != append.prev_term:
        hint_index, hint_term = search(log, prev, append.prev_term)
        state.out.send_after_sync(
            sender,
            AppendReply(
                term=state.term,
                ok=False,
                rejected=prev,
                hint_index=hint_index,
                hint_term=hint_term,
            ),
        )
        return
    log.splice(prev, append.entries)
    last_new = Index(prev + len(append.entries))
    # Only up to what this message proved to agree: beyond it our tail may be another leader's.
    log.commit_to(min(append.commit, last_new))
    state.out.send_after_sync(sender, AppendReply(term=state.term, ok=True, match=last_new))


def _on_append_below_base(parts: Parts, sender: NodeId, append: Append) -> None:
    """What lies up to our base is committed, so it is the leader's as well: take what follows."""
    log = parts.state.log
    known = log.base - append.prev_index
    if len(append.entries) < known:
        reply = AppendReply(term=parts.state.term, ok=True, match=log.base)
        parts.state.out.send_after_sync(sender, reply)
        return
    at_base = append.entries[known - 1]
    if at_base.term != log.term_at(log.base):
        raise SafetyViolation(f"entry {at_base.index} is committed and would be overwritten")
    _on_append(
        parts,
        sender,
        replace(
            append,
            prev_index=at_base.index,
            prev_term=at_base.term,
            entries=append.entries[known:],
        ),
    )


def _on_snapshot(parts: Parts, sender: NodeId, message: InstallSnapshot) -> None:
    """Raft §7. An older state never takes the place of a newer one; a log that holds the
    snapshot's last entry is kept. The ack leaves when all of it is durable."""
    _heard(parts, sender)
    state, log, snapshot = parts.state, parts.state.log, message.snapshot
    if log.term_at(snapshot.index) == snapshot.term:
        log.commit_to(snapshot.index)
    elif snapshot.index > log.commit:
        before = log.applied.lease
        log.install(snapshot)
        observe(parts, before)
        state.event(EventKind.SNAPSHOT_INSTALLED, str(snapshot.index))
    reply = AppendReply(term=state.term, ok=True, match=log.commit)
    state.out.send_after_sync(sender, reply)


def _on_append_reply(parts: Parts, sender: NodeId, reply: AppendReply) -> None:
    if parts.replication.on_append_reply(sender, reply):
        parts.reads.on_commit()
    parts.handover.go_on()


def _on_heartbeat(parts: Parts, sender: NodeId, beat: Heartbeat) -> None:
    """The commit index in a heartbeat never lies past what we acknowledged to this leader."""
    _heard(parts, sender)
    state = parts.state
    state.log.commit_to(min(beat.commit, state.log.last_index))
    reply = HeartbeatReply(term=state.term, round=beat.round, last_index=state.log.last_index)
    state.out.send(sender, reply)


def _on_heartbeat_reply(parts: Parts, sender: NodeId, reply: HeartbeatReply) -> None:
    if parts.replication.on_heartbeat_reply(sender, reply):
        parts.rounds.ack(sender, reply.round)


def _on_timeout_now(parts: Parts, sender: NodeId, message: TimeoutNow) -> None:
    """Leadership is handed to us (thesis §3.10): no PreVote, and voters need not wait."""
    _heard(parts, sender)
    parts.election.campaign(transfer=True)


def _on_read_request(parts: Parts, sender: NodeId, request: ReadRequest) -> None:
    if parts.handover.transfer is not None:
        parts.reads.refuse(sender, request.context)
    else:
        parts.reads.on_request(sender, request.context)


def _on_read_reply(parts: Parts, sender: NodeId, reply: ReadReply) -> None:
    parts.reads.on_reply(reply)


# Each handler takes the message kind it is listed under; the table cannot say so in types.
_HANDLERS: dict[type, Callable[[Parts, NodeId, Any], None]] = {
    VoteReply: _on_vote_reply,
    Append: _on_append,
    AppendReply: _on_append_reply,
    InstallSnapshot: _on_snapshot,
    Heartbeat: _on_heartbeat,
    HeartbeatReply: _on_heartbeat_reply,
    TimeoutNow: _on_timeout_now,
    ReadRequest: _on_read_request,
    ReadReply: _on_read_reply,
}

_LEASE_HANDLERS: dict[type, Callable[[Parts, NodeId, Any], None]] = {
    Renew: lambda parts, sender, renew: parts.granter.on_renew(sender, renew),
    Release: lambda parts, sender, release: parts.granter.on_release(sender, release),
    RenewReply: lambda parts, _, reply: parts.holder.on_reply(reply),
}
