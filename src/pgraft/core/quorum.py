"""Who is enough: the two pure functions every majority in pgraft comes from.

Lives here: counting over majority and joint configurations (thesis §4.3: both halves must agree).
Must not live here: state, messages, membership rules. Start reading at `committed_index`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pgraft.core.types import Config, NodeId


class VoteResult(StrEnum):
    """Outcome of counting votes: decided either way, or still open."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def committed_index(config: Config, acked: Mapping[NodeId, int]) -> int:
    """The largest value that a quorum of `config` has acknowledged; who is missing counts as 0.

    Serves log indexes (Raft §5.3), quorum rounds and times of last contact alike. A configuration
    without voters has acknowledged nothing: 0.
    """
    index = _majority_index(config.voters, acked)
    if config.outgoing:
        index = min(index, _majority_index(config.outgoing, acked))
    return index


def vote_result(config: Config, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Whether `votes` (True = granted) decide an election; votes of non-voters do not count.

    A joint configuration is won only in both halves and lost as soon as one half is (thesis §4.3).
    A configuration without voters can elect nobody.
    """
    result = _majority_vote(config.voters, votes)
    if not config.outgoing or result is VoteResult.LOST:
        return result
    other = _majority_vote(config.outgoing, votes)
    return result if other is VoteResult.WON else other


def _majority_index(voters: frozenset[NodeId], acked: Mapping[NodeId, int]) -> int:
    if not voters:
        return 0
    ranked = sorted((acked.get(voter, 0) for voter in voters), reverse=True)
    return ranked[len(ranked) // 2]


def _majority_vote(voters: frozenset[NodeId], votes: Mapping[NodeId, bool]) -> VoteResult:
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    needed = len(voters) // 2 + 1
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING
