"""Changing who is a member, and telling the host of it.

Lives here: who may change the configuration and when (thesis §4.2, §4.3), leaving a joint one, what
the host hears. Must not live here: what a changed configuration looks like (see `config`), when it
takes effect (see `configs`). Start reading at `Membership.change`.

One change at a time, and none before an entry of the leader's own term is committed: so the
configuration before the effective one is always committed, and their quorums meet.
"""

from __future__ import annotations

from pgraft.core.config import (
    all_members,
    describe,
    enter_joint,
    is_joint,
    is_member,
    is_voter,
    leave_joint,
    refusal,
    simple,
    touches_voters,
)
from pgraft.core.limits import LEARNER_LAG_ENTRIES_MAX
from pgraft.core.replication import Replication
from pgraft.core.state import State
from pgraft.core.types import (
    Change,
    Config,
    Entry,
    EntryKind,
    EventKind,
    Index,
    NodeId,
    ProposalRefused,
)


class Membership:
    """Changes of the configuration by a leader; events about it on every node."""

    def __init__(self, state: State, replication: Replication) -> None:
        self._state = state
        self._replication = replication
        self._told = state.config
        self._belongs = self._belongs_now()
        self._quiet: Config | None = None

    @property
    def quiet(self) -> bool:
        """Whether all that follows from the configuration in effect has been done: the usual case,
        which is asked for after every input."""
        return self._state.log.configs.effective is self._quiet

    def change(self, change: Change) -> Entry:
        """Append what `change` makes of the configuration. The caller has checked that we lead.

        ProposalRefused: see `Raft.change`.
        """
        why = self._refusal(change)
        if why:
            raise ProposalRefused(why, self._state.me.node)
        step = enter_joint if touches_voters(self._state.config, change) else simple
        at = Index(self._state.log.last_index + 1)
        config = step(self._state.config, change, at)
        return self._replication.append(EntryKind.CONFIG, config=config)

    def leave_if_due(self) -> None:
        """Leave a joint configuration once it is committed, whoever entered it."""
        state = self._state
        joint = is_joint(state.config) and state.config.auto_leave
        if joint and state.leads_committed and self._settled:
            self._replication.append(EntryKind.CONFIG, config=leave_joint(state.config))

    @property
    def leads_from_outside(self) -> bool:
        """Whether this leader is no voter any more by a configuration that is committed."""
        state = self._state
        return state.leading and self._settled and not is_voter(state.config, state.me.node)

    def tell(self) -> None:
        """Tell the host what has changed since the last call."""
        state = self._state
        if state.config != self._told:
            for node in all_members(state.config) - all_members(self._told):
                self._replication.promises.forget(node)
            self._told = state.config
            state.event(EventKind.CONFIG_CHANGED, describe(state.config))
        belongs = self._belongs_now()
        if self._belongs and not belongs:
            state.event(EventKind.REMOVED)
        self._belongs = belongs
        self._quiet = state.config if self._settled and not is_joint(state.config) else None

    @property
    def _settled(self) -> bool:
        """Whether the configuration in effect is committed."""
        return self._state.log.configs.since <= self._state.log.commit

    def _belongs_now(self) -> bool:
        """Whether the committed configuration holds this member, not a former one with its id."""
        me = self._state.me
        since, config = self._state.log.configs.at(self._state.log.commit)
        return since >= me.since and is_member(config, me.node)

    def _refusal(self, change: Change) -> str:
        state = self._state
        if not state.leads_committed:
            return "not_ready"
        if is_joint(state.config) or not self._settled:
            return "change_in_flight"
        why = refusal(state.config, change)
        if not why and not all(self._has_caught_up(node) for node in change.promote):
            return "learner_behind"
        return why

    def _has_caught_up(self, learner: NodeId) -> bool:
        """Whether a learner could vote tomorrow without holding up commits: near, and alive."""
        state, progress = self._state, self._replication.progress[learner]
        return (
            learner not in self._replication.promises.regressed
            and progress.match + LEARNER_LAG_ENTRIES_MAX >= state.log.last_index
            and state.now - progress.heard_ns <= state.me.timing.election_ns
        )
