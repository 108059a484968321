"""Linearizable reads without the log: ReadIndex (thesis §6.4), and the quorum rounds under it.

Lives here: rounds (numbered heartbeats that prove leadership after the fact), reads that wait for
one, reads forwarded to the leader. Must not live here: leases (see `lease`, which shares the
rounds). Start reading at `Rounds`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgraft.core.limits import READS_MAX
from pgraft.core.quorum import committed_index
from pgraft.core.state import State
from pgraft.core.types import (
    NO_NODE,
    Index,
    Nanos,
    NodeId,
    ReadDone,
    ReadReply,
    ReadRequest,
)


class Rounds:
    """Numbered heartbeat rounds. A round confirmed by a quorum proves that this node still led
    when the round began, so it answers for everything received before that.

    Requests made between two flushes share one round; its heartbeats leave after all of them.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._latest = 0
        self._wanted = False
        self._acks: dict[NodeId, int] = {}
        self._begun_ns: Nanos = state.now
        self._resumed = 0

    def request(self) -> int:
        """The number of a round that has not begun yet."""
        self._wanted = True
        return self._latest + 1

    def begin(self) -> int | None:
        """Begin the round that was asked for; None if nobody asked."""
        if not self._wanted:
            return None
        self._wanted = False
        self._latest += 1
        if not self._awake(self._state.now):
            self._resumed = self._latest
        self._begun_ns = self._state.now
        return self._latest

    def ack(self, peer: NodeId, number: int) -> None:
        """A member answered this round, and so all rounds of this term before it."""
        if number <= self._latest:
            self._acks[peer] = max(number, self._acks.get(peer, 0))

    def confirmed(self) -> int:
        """The newest round that a quorum has answered; this node answers its own at once."""
        return committed_index(self._state.config, self._acks | {self._state.me.node: self._latest})

    def resumed(self) -> None:
        """This process stood still: what it did not hear proves nothing before the next round."""
        self._resumed = self.request()

    def judges_silence(self, now: Nanos) -> bool:
        """Whether this leader listened without a pause, or has completed a round since its last.

        A leader begins a round at every beat, so it knows of a pause by its rounds, whichever of
        its timers fires first afterwards.
        """
        return self._awake(now) and self.confirmed() >= self._resumed

    def reset(self) -> None:
        """A new leadership: answers to rounds of older terms prove nothing. Numbers go on."""
        self._acks = {}
        self._wanted = True
        self._begun_ns = self._state.now
        self._resumed = 0

    def _awake(self, now: Nanos) -> bool:
        return now - self._begun_ns <= self._state.me.timing.election_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A read at the leader; `round` is 0 until an entry of the leader's term is committed."""

    asker: NodeId
    context: int
    round: int
    index: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forwarded:
    context: int
    leader: NodeId
    deadline_ns: Nanos


class Reads:
    """Reads of this node and, on the leader, of the others. Every read gets an answer or a None."""

    def __init__(self, state: State, rounds: Rounds) -> None:
        self._state = state
        self._rounds = rounds
        self._pending: list[_Pending] = []
        self._forwarded: dict[int, _Forwarded] = {}

    @property
    def waiting(self) -> bool:
        """Whether reads wait for a round, or for a commit before it."""
        return bool(self._pending)

    def ask(self, context: int) -> None:
        """A read of this node: served here by a leader, else forwarded to it.

        The number on the wire is drawn anew, so that an answer to an earlier process of this node
        can never be taken for an answer to this one.
        """
        state = self._state
        if state.leading:
            self.on_request(state.me.node, context)
        elif state.leader == NO_NODE or len(self._forwarded) >= READS_MAX:
            self._answer(state.me.node, context, None)
        else:
            ticket = state.me.rng.getrandbits(62)
            deadline = state.now + state.me.timing.election_ns
            self._forwarded[ticket] = _Forwarded(
                context=context, leader=state.leader, deadline_ns=deadline
            )
            state.out.send(state.leader, ReadRequest(term=state.term, context=ticket))

    def on_request(self, asker: NodeId, context: int) -> None:
        """A read arrives at the leader; it waits for a commit in this term, then for one round."""
        if not self._state.leading or len(self._pending) >= READS_MAX:
            self._answer(asker, context, None)
            return
        self._pending.append(_Pending(asker=asker, context=context, round=0, index=Index(0)))
        self.on_commit()

    def refuse(self, asker: NodeId, context: int) -> None:
        """No read is taken now (a transfer is under way)."""
        self._answer(asker, context, None)

    def on_commit(self) -> None:
        """The commit index may have moved: reads can start once it is of our own term (§6.4)."""
        log = self._state.log
        if log.term_at(log.commit) != self._state.term:
            return
        self._pending = [
            read
            if read.round
            else _Pending(
                asker=read.asker,
                context=read.context,
                round=self._rounds.request(),
                index=log.commit,
            )
            for read in self._pending
        ]

    def on_round(self, confirmed: int) -> None:
        """Rounds up to `confirmed` hold: answer what waited for them."""
        done = [read for read in self._pending if 0 < read.round <= confirmed]
        self._pending = [read for read in self._pending if not 0 < read.round <= confirmed]
        for read in done:
            self._answer(read.asker, read.context, read.index)

    def on_reply(self, reply: ReadReply) -> None:
        """The leader answered a read we forwarded."""
        forwarded = self._forwarded.pop(reply.context, None)
        if forwarded is not None:
            self._answer(self._state.me.node, forwarded.context, reply.index)

    def abandon(self) -> None:
        """Leadership is lost: nothing that waits can be confirmed any more."""
        pending, self._pending = self._pending, []
        for read in pending:
            self._answer(read.asker, read.context, None)

    def settle(self) -> None:
        """Give up reads forwarded to a leader that is no longer ours, or that was silent for E."""
        state = self._state
        lost = [
            ticket
            for ticket, read in self._forwarded.items()
            if read.leader != state.leader or state.now >= read.deadline_ns
        ]
        for ticket in lost:
            self._answer(state.me.node, self._forwarded.pop(ticket).context, None)

    def _answer(self, asker: NodeId, context: int, index: Index | None) -> None:
        state = self._state
        if asker == state.me.node:
            state.out.reads.append(ReadDone(context=context, index=index))
        else:
            reply = ReadReply(term=state.term, context=context, index=index)
            state.out.send(asker, reply)
