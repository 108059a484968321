"""Handing leadership to somebody who can have it at once (thesis §3.10).

Lives here: transfers that were asked for, and the last act of a leader that steps down. Must not
live here: how the one elected campaigns (see `messages`). Start reading at `Handover.start`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgraft.core.replication import Replication
from pgraft.core.state import State
from pgraft.core.types import EventKind, Nanos, NodeId, ProposalRefused, TimeoutNow


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A leadership transfer under way; it is given up at `deadline_ns`."""

    to: NodeId
    deadline_ns: Nanos


class Handover:
    """The transfer of a leader; none on any other node."""

    def __init__(self, state: State, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self.transfer: Transfer | None = None

    def start(self, to: NodeId) -> None:
        """Hand leadership to `to` once its log is complete; ProposalRefused if it cannot lead."""
        state, replication = self._state, self._replication
        if to not in dict(replication.counted()) or to not in state.config.voters:
            raise ProposalRefused("not_a_voter", state.me.node)
        deadline = state.now + state.me.timing.election_ns
        self.transfer = Transfer(to=to, deadline_ns=deadline)
        state.event(EventKind.TRANSFER_STARTED, str(to))
        if replication.progress[to].match < state.log.last_index:
            # What is under way to it may be lost; a transfer should not wait for the next beat.
            replication.on_link(to)
        self.go_on()

    def go_on(self) -> None:
        """A peer's log may have become complete: then it is told to campaign."""
        state = self._state
        if self.transfer is None:
            return
        if self._replication.progress[self.transfer.to].match == state.log.last_index:
            state.out.send(self.transfer.to, TimeoutNow(term=state.term))

    def check(self) -> None:
        """Give up a transfer that took longer than an election timeout."""
        state = self._state
        if self.transfer is not None and state.now >= self.transfer.deadline_ns:
            state.event(EventKind.TRANSFER_ABORTED, str(self.transfer.to))
            self.transfer = None

    def abandon(self) -> None:
        """Leadership begins, or is over."""
        self.transfer = None

    def leave(self) -> None:
        """This node is about to step down: the best voter need not wait for its timeout.

        The best is one whose log is complete, heard last. If there is none, an election follows.
        """
        state = self._state
        ready = [
            (progress.heard_ns, peer)
            for peer, progress in self._replication.counted()
            if peer in state.config.voters and progress.match == state.log.last_index
        ]
        if ready:
            state.out.send(max(ready)[1], TimeoutNow(term=state.term))
