"""What one node should be doing now: its goal, from what is committed and what it was told.

Lives here: `plan`, pure and total. Must not live here: how a goal is reached (`ramd.execute`), or
who becomes primary (`ramd.policy.decide`). Start reading at `plan`.

Every goal is safe to be late with. The only urgent one, a primary whose lease ends, is also guarded
by the executor itself, earlier than any plan.
"""

from __future__ import annotations

from ramd.domain.decision import (
    Directive,
    Follow,
    GiveUp,
    Goal,
    Lead,
    Leave,
    LocalFacts,
    StaySealed,
    Wait,
    Withdraw,
    Yield,
)
from ramd.domain.model import ClusterState, Reign, StartMode
from ramd.domain.observation import Attempt, Observation, ServerRole, ServerState
from ramd.policy.reinit import due

NO_ATTEMPT = Attempt(term=0, number=0)
"""Lower than any attempt: a seal under it is lifted by the first Follow of any coordinator."""

_DEAD = (ServerState.STOPPED, ServerState.CRASHED)


def plan(
    state: ClusterState,
    directive: Directive | None,
    facts: LocalFacts,
    observation: Observation,
) -> Goal:
    """This node's goal. `directive` is the newest heard (None: none yet in this run of the daemon).

    A node that holds the present epoch leads it while its lease is in hand and never resumes it
    after its server stopped. Every other node follows or stays sealed as the coordinator says, and
    a seal is lifted only by a Follow of an attempt that is not lower (rule H2).
    """
    if facts.removed:
        return Withdraw()
    if state.removal is not None:
        return Leave(remove_data=state.removal.remove_data)
    if facts.opened_epoch > state.epoch:
        return _behind(state, facts, observation)
    if state.reign is None:
        return Wait(reason="no primary has been chosen yet")
    if state.reign.node_id != facts.me:
        return _replica(state, directive, facts, observation)
    if facts.released_epoch >= state.epoch:
        if facts.yielding_epoch == state.epoch:
            return _yielding(state.epoch, directive, facts, observation)
        return _given_up(state.reign, directive, facts, observation)
    if facts.opened_epoch == state.epoch:
        return _primary(state, directive, facts, observation)
    return _elected(state, directive, facts, observation)


def _behind(state: ClusterState, facts: LocalFacts, observation: Observation) -> Goal:
    """The server was opened for an epoch of which this daemon has not read the grant again yet."""
    epoch = facts.opened_epoch
    harmless = facts.self_fenced or not _is_primary(observation)
    if harmless or _held(facts, epoch) or _adopting(facts, epoch):
        return Wait(reason=f"epoch {epoch} was opened here, the record is at {state.epoch}")
    return GiveUp(epoch=epoch, reason="the lease has ended")


def _primary(
    state: ClusterState,
    directive: Directive | None,
    facts: LocalFacts,
    observation: Observation,
) -> Goal:
    """Holder; the server has been opened for this epoch and the epoch was not given up.

    A server that checks the lease itself stays up without one, and writes again when it returns;
    it is given up when the coordinator has begun to end the epoch.
    """
    epoch = state.epoch
    if observation.state in _DEAD:
        if _handed_over(state) and observation.state is ServerState.STOPPED:
            return Yield(epoch=epoch)
        return GiveUp(epoch=epoch, reason=f"the server has {observation.state}")
    if not _held(facts, epoch):
        if _adopting(facts, epoch) or _unprobed(observation):
            return Wait(reason=f"asking the group for the lease of epoch {epoch}")
        if facts.self_fenced:
            return _fenced(epoch, directive, facts)
        return GiveUp(epoch=epoch, reason="the lease has ended")
    return _lead(state)


def _fenced(epoch: int, directive: Directive | None, facts: LocalFacts) -> Goal:
    """The lease has ended and the server refuses writes by itself."""
    order = _order(directive, facts, epoch) if facts.in_touch else None
    if order is not None and order.sealed:
        return GiveUp(epoch=epoch, reason="the lease has ended, and the epoch is being ended")
    return Wait(reason=f"fenced: no lease of epoch {epoch} until the group renews it")


def _elected(
    state: ClusterState,
    directive: Directive | None,
    facts: LocalFacts,
    observation: Observation,
) -> Goal:
    """Holder; the server has not been opened for this epoch."""
    reign = state.reigns[-1]
    order = _order(directive, facts, state.epoch)
    if order is not None and order.sealed:
        # The coordinator takes the epoch back before it began.
        return StaySealed(epoch=order.epoch, attempt=order.attempt)
    if _held(facts, state.epoch):
        return _lead(state)
    stands_by = reign.start is StartMode.RESUME and facts.yielding_epoch == reign.epoch - 1
    if _is_primary(observation) and reign.start is not StartMode.OPEN and not stands_by:
        return StaySealed(epoch=state.epoch, attempt=facts.sealed_attempt or NO_ATTEMPT)
    return Wait(reason=f"waiting for the lease of epoch {state.epoch}")


def _lead(state: ClusterState) -> Goal:
    """The lease of the epoch is in hand."""
    reign = state.reigns[-1]
    if _handed_over(state):
        return Yield(epoch=reign.epoch)
    return Lead(epoch=reign.epoch, timeline=reign.timeline, start=reign.start)


def _yielding(
    epoch: int, directive: Directive | None, facts: LocalFacts, observation: Observation
) -> Goal:
    """Holder whose server is fenced for a switchover: it stands by until the epoch moves, unless
    the coordinator compares positions after all."""
    if observation.state in _DEAD:
        return GiveUp(epoch=epoch, reason=f"the server has {observation.state} in the switchover")
    order = _order(directive, facts, epoch)
    if order is not None and order.sealed:
        return GiveUp(epoch=epoch, reason="the switchover has become a failover")
    return Yield(epoch=epoch)


def _given_up(
    reign: Reign,
    directive: Directive | None,
    facts: LocalFacts,
    observation: Observation,
) -> Goal:
    """Holder that released the epoch: it must move. Reads go on, on a replica of nobody."""
    if _is_primary(observation):
        return GiveUp(epoch=reign.epoch, reason="the epoch was given up")
    order = _order(directive, facts, reign.epoch)
    attempt = order.attempt if order is not None else facts.sealed_attempt
    return StaySealed(epoch=reign.epoch, attempt=attempt or NO_ATTEMPT)


def _replica(
    state: ClusterState,
    directive: Directive | None,
    facts: LocalFacts,
    observation: Observation,
) -> Goal:
    """Not the holder."""
    reign = state.reigns[-1]
    order = _order(directive, facts, reign.epoch) if facts.in_touch else None
    if order is not None and order.sealed:
        return StaySealed(epoch=order.epoch, attempt=order.attempt)
    if _succeeded(reign, facts, observation):
        return Wait(reason=f"standing by, fenced, until node {reign.node_id} is promoted")
    if order is not None and order.epoch == reign.epoch:
        anew = observation.copy if due(state, facts.me, observation.copy) else ""
        return Follow(epoch=reign.epoch, upstream=reign.node_id, anew=anew)
    if facts.sealed_attempt is not None or _is_primary(observation):
        # A primary whose epoch is over stops at once, told or not.
        return StaySealed(epoch=reign.epoch, attempt=facts.sealed_attempt or NO_ATTEMPT)
    if not facts.in_touch:
        return Wait(reason="no coordinator is heard")
    return Wait(reason=f"waiting to be told what to do in epoch {reign.epoch}")


def _succeeded(reign: Reign, facts: LocalFacts, observation: Observation) -> bool:
    """Its own switchover ends here, and the successor has not recorded where its timeline begins.

    A server that ended now would take the successor's stream away, which costs it time; and where
    the fork is decides how this one rejoins.
    """
    mine = facts.yielding_epoch == reign.epoch - 1 and facts.in_touch and facts.self_fenced
    beginning = reign.start is StartMode.PROMOTE and reign.fork_lsn is None
    return mine and beginning and _is_primary(observation)


def _order(directive: Directive | None, facts: LocalFacts, epoch: int) -> Directive | None:
    """The directive, unless it is of an epoch that is over or of a lower attempt than our seal."""
    if directive is None or directive.epoch < epoch:
        return None
    sealed = facts.sealed_attempt
    if sealed is not None and directive.attempt.key() < sealed.key():
        return None
    return directive


def _held(facts: LocalFacts, epoch: int) -> bool:
    if facts.released_epoch >= epoch:
        return False
    return facts.lease_epoch == epoch and facts.now_ns < facts.lease_deadline_ns


def _adopting(facts: LocalFacts, epoch: int) -> bool:
    """A restarted daemon still waits for its first renewal of the epoch its server runs in."""
    if facts.released_epoch >= epoch:
        return False
    return facts.lease_epoch != epoch and facts.now_ns < facts.adopt_until_ns


def _unprobed(observation: Observation) -> bool:
    return observation.state is ServerState.UNKNOWN and not _is_primary(observation)


def _is_primary(observation: Observation) -> bool:
    return observation.role is ServerRole.PRIMARY


def _handed_over(state: ClusterState) -> bool:
    return state.handover is not None and state.handover.epoch == state.epoch
