"""What a message promises is durable before it leaves (Raft §5.1, §5.2, Figure 2).

A vote: this term and this vote are on the sender's disk. An acknowledgement: so is every entry up
to its match. A candidate's request: its term, and its vote for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from pgraft.core.types import AppendReply, NodeId, VoteReply, VoteRequest
from tests.simulation.checkers.base import Checker, CheckFailed, Handler, Sent


class PromiseDurability(Checker):
    def handlers(self) -> Mapping[type, Handler]:
        return {Sent: self._sent}

    def _sent(self, sent: Sent) -> None:
        message, disk = sent.message, sent.disk
        kept = True
        if isinstance(message, AppendReply):
            kept = not message.ok or message.match <= disk.last_index
        elif isinstance(message, VoteReply) and message.granted and not message.pre:
            kept = self._voted(sent, sent.to)
        elif isinstance(message, VoteRequest) and not message.pre:
            kept = self._voted(sent, sent.node)
        if not kept and disk.hard_state.term <= message.term:  # type: ignore[union-attr]
            raise CheckFailed(
                f"node {sent.node} sends {message} to {sent.to}; its disk: {disk.hard_state}, "
                f"entries to {disk.last_index}"
            )

    def _voted(self, sent: Sent, candidate: NodeId) -> bool:
        ballot, message = sent.disk.hard_state, sent.message
        assert isinstance(message, VoteReply | VoteRequest)
        return (ballot.term, ballot.vote) == (message.term, candidate)
