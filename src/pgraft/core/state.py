"""The state every part of the core shares: term, vote, role, leader, log, clock.

Lives here: facts, and the only two ways to change term and role. Must not live here: rules for
when to change them (see `roles`). Start reading at `State`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pgraft.core.config import is_voter
from pgraft.core.log import RaftLog
from pgraft.core.outbox import Outbox
from pgraft.core.types import (
    NO_NODE,
    Config,
    CoreEvent,
    EventKind,
    HardState,
    Index,
    Nanos,
    NodeId,
    Recovered,
    Role,
    Term,
    Timing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """What does not change while the process runs.

    `since` is the index of the entry that admitted this member, 0 for a founder: an older
    configuration that names `node` means a former member that had the same id.
    """

    node: NodeId
    timing: Timing
    rng: random.Random
    since: Index = Index(0)


@dataclass(slots=True)
class Clock:
    """The latest time that was handed in; `suspect` while the host says that the clock runs off by
    more than half of what leases allow for."""

    now: Nanos
    suspect: bool = False


class State:
    """Term and vote as Raft Figure 2 has them, plus who is believed to lead; time never falls."""

    def __init__(self, me: Me, recovered: Recovered, now: Nanos) -> None:
        self.me = me
        self.log = RaftLog(recovered)
        self.out = Outbox(me.node)
        self.clock = Clock(now)
        self.term = recovered.hard_state.term
        self.vote = recovered.hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = NO_NODE

    @property
    def now(self) -> Nanos:
        """The time of the input that is being taken."""
        return self.clock.now

    @property
    def config(self) -> Config:
        """The configuration in effect."""
        return self.log.configs.effective

    @property
    def leading(self) -> bool:
        """Whether this node is the leader of its term."""
        return self.role is Role.LEADER

    @property
    def leads_committed(self) -> bool:
        """Whether this node leads and an entry of its own term is committed."""
        return self.leading and self.log.term_at(self.log.commit) == self.term

    @property
    def leads_applied(self) -> bool:
        """Whether this node leads and an entry of its own term was committed and applied here."""
        return self.leading and self.log.term_at(self.log.applied.index) == self.term

    @property
    def may_campaign(self) -> bool:
        """Whether a configuration that may still be the group's makes a voter of this member (not
        of a former one with its id).

        One that removes us and is not known to be committed is no reason to keep still: if nobody
        else has it, only we can be elected to commit it (thesis §4.2.2). Whoever is asked for a
        vote gives it whatever it is: the asker may know a newer configuration.
        """
        return any(
            since >= self.me.since and is_voter(config, self.me.node)
            for since, config in self.log.configs.possible(self.log.commit)
        )

    @property
    def hard_state(self) -> HardState:
        """What must be durable, as of now."""
        return HardState(term=self.term, vote=self.vote, commit=self.log.commit)

    def at(self, now: Nanos) -> None:
        """Let time pass; a clock read that is older than one seen before changes nothing."""
        self.clock.now = max(self.clock.now, now)

    def enter_term(self, term: Term, vote: NodeId = NO_NODE) -> None:
        """A new term, with its one vote. Terms never fall."""
        assert term > self.term
        self.term = term
        self.vote = vote

    def become(self, role: Role, leader: NodeId = NO_NODE) -> None:
        """Take a role and believe in a leader; changes are told to the host as events."""
        if role is not self.role:
            self.event(EventKind.ROLE_CHANGED, role.value)
        if leader != self.leader:
            self.event(EventKind.LEADER_CHANGED, str(leader))
        self.role = role
        self.leader = leader

    def event(self, kind: EventKind, detail: str = "") -> None:
        """Tell the host something worth a log line."""
        self.out.events.append(CoreEvent(kind=kind, term=self.term, detail=detail))
