"""What a message promises is durable before it leaves (Raft §5.1, §5.2, Figure 2).

A vote: this term and this vote are on the sender's disk. An acknowledgement: so is every entry up
to its match. A candidate's request: its term, and its vote for itself.
"""

from __future__ import annotations

from pgraft.core.types import AppendReply, Message, NodeId, VoteReply, VoteRequest
from tests.simulation.checkers.base import Checker, CheckFailed
from tests.support.raft_store import Image


class PromiseDurability(Checker):
    def on_send(self, node: NodeId, to: NodeId, message: Message, disk: Image) -> None:
        kept = True
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            kept = (disk.hard_state.term, disk.hard_state.vote) == (message.term, to)
            kept = kept or disk.hard_state.term > message.term
        elif isinstance(message, VoteRequest) and not message.pre:
            kept = (disk.hard_state.term, disk.hard_state.vote) == (message.term, node)
            kept = kept or disk.hard_state.term > message.term
        elif isinstance(message, AppendReply) and message.ok:
            kept = message.match <= len(disk.entries) or disk.hard_state.term > message.term
        if not kept:
            raise CheckFailed(f"node {node} sends {message} to {to}; its disk: {disk.hard_state}")
