"""The coordinator's hand in membership: takes the one next step, one at a time.

Lives here: performing what `ramd.policy.membership` says. Must not live here: judgement. Every step
may be lost with its coordinator at any point: what is committed says how to go on. Start reading at
`Steward.turn`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ramd import events, member_events
from ramd.domain.consensus import Consensus, MemberChange
from ramd.domain.decision import ClusterView
from ramd.domain.errors import RamdError, Refused, Unavailable
from ramd.policy.membership import (
    Admit,
    Drop,
    Keep,
    Reconfigure,
    Renewed,
    Step,
    Withdraw,
    next_step,
    stays_learner,
)
from ramd.state.commands import Command, encode
from ramd.state.member_commands import AdmitMember, DropMember, KeepMember, WithdrawInvitation
from ramd.state.reinit import EndReinit

STEP_TIMEOUT_S = 10.0
AGAIN_NS = 1_000_000_000
"""After a step that was refused or lost."""


class Steward:
    """`turn` is called at each beat of the ready coordinator; `spawn` runs a step beside it.

    `granting`: a grant is on its way. Nobody is taken out of the group while it may be becoming
    primary, so this is asked again in the very moment of the change.
    """

    def __init__(
        self,
        consensus: Consensus,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        granting: Callable[[], bool],
        clock: Callable[[], int],
        unix_ms: Callable[[], int],
    ) -> None:
        self._consensus = consensus
        self._spawn = spawn
        self._granting = granting
        self._clock = clock
        self._unix_ms = unix_ms
        self._busy = False
        self._due_ns = 0
        self._learners: tuple[int, ...] = ()

    def turn(self, view: ClusterView) -> None:
        """Begin the next step, unless one is under way or has just failed."""
        self._say_learners(view)
        if self._busy or self._clock() < self._due_ns:
            return
        step = next_step(view, self._unix_ms())
        if step is not None:
            self._busy = True
            self._spawn(self._take(step))

    async def _take(self, step: Step) -> None:
        events.emit(member_events.MemberStep(step=str(step)))
        try:
            await self._perform(step)
        except RamdError as error:
            self._due_ns = self._clock() + AGAIN_NS
            events.emit(member_events.MemberStepFailed(step=str(step), why=error.message))
            given_up = isinstance(step, Reconfigure) and step.promote is None
            if given_up and isinstance(error, Refused):
                await self._keep(step, error.message)
        finally:
            self._busy = False

    async def _perform(self, step: Step) -> None:
        now_ms = self._unix_ms()
        match step:
            case Admit(invitation=invitation):
                await self._propose(AdmitMember(nonce=invitation.nonce, at_unix_ms=now_ms))
            case Withdraw(invitation=invitation):
                gone = WithdrawInvitation(
                    nonce=invitation.nonce, reason="it has run out", at_unix_ms=now_ms
                )
                await self._propose(gone)
            case Drop(node_id=node_id):
                await self._propose(DropMember(node_id=node_id, at_unix_ms=now_ms))
            case Keep(node_id=node_id, reason=reason):
                stays = KeepMember(node_id=node_id, reason=reason, at_unix_ms=now_ms)
                await self._propose(stays)
            case Renewed(order=order):
                why = f"node {order.node_id} streams with a new copy"
                done = EndReinit(
                    node_id=order.node_id, copy=order.copy, reason=why, at_unix_ms=now_ms
                )
                await self._propose(done)
            case Reconfigure(promote=promote, remove=remove):
                change = MemberChange(
                    promote=() if promote is None else (promote,),
                    remove=() if remove is None else (remove,),
                )
                if self._granting():
                    raise Unavailable("a grant is on its way")
                await self._consensus.change(change, timeout_s=STEP_TIMEOUT_S)

    async def _keep(self, step: Step, why: str) -> None:
        """The group itself refuses to let go of somebody: say so instead of trying for ever."""
        assert isinstance(step, Reconfigure)
        assert step.remove is not None
        try:
            await self._perform(Keep(node_id=step.remove, reason=why))
        except RamdError as error:
            events.emit(member_events.MemberStepFailed(step="keep", why=error.message))

    async def _propose(self, command: Command) -> None:
        await self._consensus.propose(encode(command), timeout_s=STEP_TIMEOUT_S)

    def _say_learners(self, view: ClusterView) -> None:
        learners = stays_learner(view)
        for node_id in learners:
            if node_id not in self._learners:
                voters = len(view.voting.voters)
                events.emit(member_events.LearnerStays(node_id=node_id, voter_count=voters))
        self._learners = learners
