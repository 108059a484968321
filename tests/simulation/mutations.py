"""Classic bugs, put into the core on purpose: the simulation and the tests must notice each.

Lives here: patches. Must not live here: which test notices them (see `test_mutations`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pgraft.core import applied, messages
from pgraft.core.election import Election
from pgraft.core.lease import Dating, Granter, Holder
from pgraft.core.log import RaftLog
from pgraft.core.outbox import Outbox
from pgraft.core.quorum import committed_index
from pgraft.core.reads import Reads, Rounds, _Pending
from pgraft.core.replication import Replication
from pgraft.core.state import State
from pgraft.core.types import (
    Append,
    AppendReply,
    Entry,
    Index,
    NodeId,
    RenewReply,
    Role,
    VoteReply,
    VoteRequest,
)
from pgraft.core.writes import WriteQueue
from tests.support.raft_host import Host
from tests.support.raft_store import MemoryStore

Mutation = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    """List a mutation under its name."""
    MUTATIONS[function.__name__] = function
    return function


@mutation
def commit_counts_old_terms(patch: pytest.MonkeyPatch) -> None:
    """Figure 8: an entry of an older term is committed by counting."""

    def advance_commit(self: Replication) -> bool:
        log = self._state.log
        acked: dict[NodeId, int] = {peer: p.match for peer, p in self.progress.items()}
        acked[self._state.me.node] = log.writes.stable
        return log.commit_to(Index(committed_index(log.configs.effective, acked)))

    patch.setattr(Replication, "advance_commit", advance_commit)


@mutation
def vote_not_durable(patch: pytest.MonkeyPatch) -> None:
    """A new term or vote alone is not worth a sync."""
    patch.setattr(
        WriteQueue,
        "needed",
        lambda self, term, vote, last: last > self._handed or self._cut is not None,
    )


@mutation
def acks_do_not_wait(patch: pytest.MonkeyPatch) -> None:
    """Votes and acknowledgements leave before the sync."""

    def send_after_sync(self: Outbox, to: NodeId, message: Any) -> None:
        if to == self._node:
            self._loopback.append(message)
        else:
            self.send(to, message)

    patch.setattr(Outbox, "send_after_sync", send_after_sync)


@mutation
def leader_counts_itself_early(patch: pytest.MonkeyPatch) -> None:
    """The leader's own entry counts before it is durable."""
    patch.setattr(
        WriteQueue,
        "stable",
        property(lambda self: self._handed, lambda self, value: None),
        raising=False,
    )


@mutation
def append_cuts_what_agrees(patch: pytest.MonkeyPatch) -> None:
    """Everything after the previous entry is removed without comparing."""

    def splice(self: RaftLog, prev: Index, entries: Sequence[Entry]) -> None:
        if prev < self.last_index:
            self.commit = min(self.commit, prev)
            self._truncate(Index(prev + 1))
        self._extend(entries)

    patch.setattr(RaftLog, "splice", splice)


@mutation
def follower_commits_unverified(patch: pytest.MonkeyPatch) -> None:
    """The commit index is limited by the end of the log, not by what the message proved."""
    original = messages._on_append

    def on_append(parts: Any, sender: NodeId, append: Append) -> None:
        original(parts, sender, append)
        log = parts.state.log
        log.commit_to(min(append.commit, log.last_index))

    patch.setitem(messages._HANDLERS, Append, on_append)


@mutation
def old_acks_count(patch: pytest.MonkeyPatch) -> None:
    """An acknowledgement of an older term moves match."""
    admit = messages._admit

    def lenient(parts: Any, sender: NodeId, message: Any) -> bool:
        if isinstance(message, AppendReply) and message.term < parts.state.term:
            return True
        return admit(parts, sender, message)

    patch.setattr(messages, "_admit", lenient)


@mutation
def votes_ignore_the_log(patch: pytest.MonkeyPatch) -> None:
    """A vote is given whatever the candidate's log holds (§5.4.1 left out)."""
    patch.setattr(RaftLog, "is_current", lambda self, last_index, last_term: True)


@mutation
def second_vote_in_a_term(patch: pytest.MonkeyPatch) -> None:
    """A vote is given to whoever asks, again and again."""
    on_vote = Election.on_vote

    def generous(self: Election, candidate: NodeId, request: VoteRequest) -> None:
        if not self._state.leading:
            self._state.vote = candidate
        on_vote(self, candidate, request)

    patch.setattr(Election, "on_vote", generous)


@mutation
def votes_counted_by_message(patch: pytest.MonkeyPatch) -> None:
    """Every granted vote counts, whoever sent it and however often."""
    on_reply = Election.on_reply

    def by_message(self: Election, voter: NodeId, reply: VoteReply) -> bool:
        stranger = NodeId(1000 + len(self._votes))
        won = on_reply(self, voter, reply)
        if won or reply.pre or not reply.granted or self._state.role is not Role.CANDIDATE:
            return won
        self._votes[stranger] = True
        return sum(self._votes.values()) > len(self._state.config.voters) // 2

    patch.setattr(Election, "on_reply", by_message)


@mutation
def restored_tail_taken_for_durable(patch: pytest.MonkeyPatch) -> None:
    """A truncation does not lower what batches in flight can prove (ABA)."""

    def cut(self: WriteQueue, first: Index) -> None:
        if first <= self._handed:
            self._cut = first if self._cut is None else min(self._cut, first)
            self._handed = Index(first - 1)
        self.stable = min(self.stable, Index(first - 1))

    patch.setattr(WriteQueue, "cut", cut)


@mutation
def read_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """A read is answered without asking a quorum."""
    on_commit = Reads.on_commit

    def at_once(self: Reads) -> None:
        on_commit(self)
        self.on_round(1 << 62)

    patch.setattr(Reads, "on_commit", at_once)


@mutation
def read_before_commit_in_term(patch: pytest.MonkeyPatch) -> None:
    """A new leader answers reads before it has committed anything."""

    def on_commit(self: Reads) -> None:
        self._pending = [
            _Pending(
                asker=read.asker,
                context=read.context,
                round=read.round or self._rounds.request(),
                index=self._state.log.commit if not read.round else read.index,
            )
            for read in self._pending
        ]

    patch.setattr(Reads, "on_commit", on_commit)


@mutation
def renew_after_grant_appended(patch: pytest.MonkeyPatch) -> None:
    """A renewal is answered although a later grant stands in the log (C1a)."""
    patch.setattr(RaftLog, "has_unapplied_grant", lambda self: False)


@mutation
def renew_before_own_entry_applied(patch: pytest.MonkeyPatch) -> None:
    """A new coordinator renews before it has applied an entry of its own term (C1b)."""
    patch.setattr(State, "leads_applied", State.leading)


@mutation
def renew_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """A renewal is answered without asking a quorum."""
    on_renew = Granter.on_renew

    def at_once(self: Granter, sender: NodeId, renew: Any) -> None:
        on_renew(self, sender, renew)
        self.on_round(1 << 62)

    patch.setattr(Granter, "on_renew", at_once)


@mutation
def round_of_one(patch: pytest.MonkeyPatch) -> None:
    """A round counts as soon as one other member has answered it."""
    patch.setattr(Rounds, "confirmed", lambda self: max(self._acks.values(), default=0))


@mutation
def new_coordinator_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    """A new coordinator moves the epoch as if it knew that nobody held a lease."""
    elected = Granter.elected

    def hasty(self: Granter, contacts: Dating) -> None:
        elected(self, contacts)
        self._dating = Dating(since_ns=0)

    patch.setattr(Granter, "elected", hasty)


@mutation
def epoch_moves_too_early(patch: pytest.MonkeyPatch) -> None:
    """The coordinator does not wait for the lease to run out."""
    patch.setattr(Granter, "_wait_ns", lambda self, ttl_ns: ttl_ns // 2)


@mutation
def holder_counts_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    """The deadline is counted from when the answer arrived, not from when it was asked."""
    on_reply = Holder.on_reply

    def late(self: Holder, reply: RenewReply) -> None:
        now = self._state.now
        on_reply(
            self,
            RenewReply(
                epoch=reply.epoch,
                boot=reply.boot,
                sent_at_ns=now,
                ttl_ns=reply.ttl_ns,
                refusal=reply.refusal,
            ),
        )

    patch.setattr(Holder, "on_reply", late)


@mutation
def drift_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Neither side allows for clocks that run at different rates, nor for scheduling."""
    on_reply = Holder.on_reply

    def full(self: Holder, reply: RenewReply) -> None:
        on_reply(self, reply)
        if self.deadline_ns and reply.ttl_ns:
            self.deadline_ns = max(self.deadline_ns, reply.sent_at_ns + reply.ttl_ns)

    patch.setattr(Holder, "on_reply", full)
    patch.setattr(Granter, "_wait_ns", lambda self, ttl_ns: ttl_ns)


@mutation
def release_does_not_latch(patch: pytest.MonkeyPatch) -> None:
    """An answer still on its way revives a lease that was given back (C4a)."""

    def on_reply(self: Holder, reply: RenewReply) -> None:
        if reply.boot == self.boot and reply.epoch == self.epoch and reply.ttl_ns:
            ttl = int(reply.ttl_ns * (1 - self._state.me.timing.drift))
            self.deadline_ns = max(self.deadline_ns, reply.sent_at_ns + ttl)

    patch.setattr(Holder, "on_reply", on_reply)


@mutation
def renew_after_release(patch: pytest.MonkeyPatch) -> None:
    """A release is forgotten by a restart, and the coordinator renews on (C4b)."""
    observe = Holder.observe

    def forgetful(self: Holder, grant: Any) -> None:
        observe(self, grant)
        self.released_epoch = 0

    patch.setattr(Holder, "observe", forgetful)


@mutation
def learners_campaign(patch: pytest.MonkeyPatch) -> None:
    """Whoever misses the leader campaigns: learners, and members that were removed."""
    patch.setattr(State, "may_campaign", True)


@mutation
def wiped_disk_keeps_its_id(patch: pytest.MonkeyPatch) -> None:
    """A member whose disk was lost comes back, blank, as the member it was."""

    def lose(self: Host) -> None:
        if self.process is not None:
            self.crash()
        self.store = MemoryStore(self.node)
        self.start()

    patch.setattr(Host, "lose", lose)


@mutation
def retried_commands_are_applied_again(patch: pytest.MonkeyPatch) -> None:
    """Sessions are not looked at."""
    patch.setattr(applied, "admit", lambda sessions, origin: (sessions, True))
