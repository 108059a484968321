"""Performs goals: one transition at a time, interruptible where that is safe, with backoff.

Lives here: when a transition runs and what its end means. Must not live here: what it does (the
table in `transitions`), whether the goal is right (`ramd.policy.plan`). Start at `Executor.run`.

The work is driven by level, not by edge: a reached goal is looked at again after `refresh_ms`, and
at once when the server ended or the members changed. Every step is idempotent, so that costs one
probe.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from ramd import events
from ramd.domain.decision import Follow, GiveUp, Goal, Lead, StaySealed, Wait
from ramd.domain.errors import RamdError, Unavailable
from ramd.domain.observation import Attempt, SealReport, Standing
from ramd.execute.context import Knowledge, NotYet, Ports, Situation, Step
from ramd.execute.copies import know_copy
from ramd.execute.guard import Guard
from ramd.execute.situation import Seen, look, look_briefly, look_in_page
from ramd.execute.transitions import TRANSITIONS
from ramd.execute.work import Work

NS_PER_MS = 1_000_000
ERROR_CHARS_MAX = 200


@dataclass(slots=True)
class Intent:
    """The present goal and how it goes."""

    goal: Goal
    attempt: Attempt | None = None
    due_ns: int = 0
    """When the next run is due."""
    failures: int = 0
    last_error: str = ""
    activity: str = ""
    paused: Intent | None = None
    """Of a Wait: the goal that it came after, with what was tried for that."""
    ran_with: tuple[bool, tuple[int, ...], int] | None = None
    """(server ran, other members, start of the server) when it settled: a change is a reason to
    look again. None: it is not settled."""

    @property
    def settled(self) -> bool:
        """Reached, and nothing is under way."""
        return self.ran_with is not None


class Executor:
    """Drives this node's server towards the goal that `pursue` was last given.

    `run` performs; everything else only deposits or reads. All from the control loop's thread.
    """

    def __init__(self, ports: Ports, guard: Guard, *, rng: random.Random) -> None:
        self._ports = ports
        self._guard = guard
        self._rng = rng
        self._known = Knowledge()
        self._intent = Intent(goal=Wait(reason="just started"))
        self._work: Work | None = None
        self._task: asyncio.Task[None] | None = None
        self._poke = asyncio.Event()
        guard.attach(self.interrupt)

    # --- what others ask of it ---------------------------------------------------------------

    @property
    def goal(self) -> Goal:
        """The present goal."""
        return self._intent.goal

    async def startup(self) -> bool:
        """Adopt a running server; True if there is one. To be awaited once, before `run`.

        A server opened for an epoch not given back comes under the guard, for as long as its lease
        was noted to last; one whose epoch was given back, so that its fence was cut short by the
        daemon's end, is stopped at once. Any other running server is left as it is until the
        group has been asked.
        """
        await know_copy(self._ports)  # an adopted server's streams bear the name
        if not await self._ports.server.adopt():
            return False
        opened = self._ports.store.record.opened_epoch
        events.emit(events.ServerAdopted(opened_epoch=opened))
        if opened > self._ports.store.released_epoch:
            self._guard.adopt(opened)
        elif opened and not (await self._ports.server.data.inspect()).standby_signal:
            self._guard.shut(opened)
            self._guard.watch(opened, until_ns=self._ports.clock())
        return True

    def pursue(self, goal: Goal, *, attempt: Attempt | None = None) -> None:
        """From now on drive towards `goal`. `attempt`: the directive's; only a Follow under an
        attempt not older than the one that sealed this node unseals it (rule H2).

        An equal goal changes nothing while it is under way or waits to be tried again. Another one
        cancels what is interruptible, and else begins when the present step has ended. A Wait cuts
        no Follow short: a clone or a rewind is not begun again whenever the coordinator changes.
        """
        intent = self._intent
        if goal != intent.goal:
            self._set(goal, attempt)
            return
        if attempt != intent.attempt:
            intent.attempt = attempt
            if intent.failures:
                self._due_now()
        if intent.settled and intent.ran_with != self._setting():
            self._due_now()

    def standing(self) -> Standing:
        """What this node says of its own part; no I/O."""
        record = self._ports.store.record
        return Standing(
            opened_epoch=record.opened_epoch,
            released_epoch=self._ports.store.released_epoch,
            sealed=self._sealed(),
            rejoining=bool(self._work and self._work.progress.rejoining),
            activity=self._activity(),
            failures=self._intent.failures,
            sealed_attempt=record.seal.attempt if record.seal else None,
            settled=self._intent.settled,
            copy=record.copy,
            yielding_epoch=self._known.yielding.epoch if self._known.yielding else 0,
        )

    def interrupt(self) -> asyncio.Task[None] | None:
        """Cancel what is under way, interruptible or not: the fence has begun. Returns it."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def run(self) -> None:
        """Perform until cancelled. An error that is no RamdError, OSError or timeout is a bug and
        ends it."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wait_due()
                await self._guard.idle()
                self._task = group.create_task(self._attempt(self._intent))
                try:
                    await asyncio.wait({self._task})
                finally:
                    self._task = None

    # --- inside ------------------------------------------------------------------------------

    def _set(self, goal: Goal, attempt: Attempt | None) -> None:
        events.emit(events.GoalSet(goal=str(goal)))
        self._intent = self._intent_for(goal, attempt)
        self._poke.set()
        if self._work is not None and not _goes_on(self._work.goal, goal):
            self._work.progress.superseded = True
            if self._work.progress.interruptible and self._task is not None:
                self._task.cancel()

    def _intent_for(self, goal: Goal, attempt: Attempt | None) -> Intent:
        """Blank, unless only a Wait came between: a coordinator that comes and goes must not make
        a node that keeps failing try more often, or keep one directory after the other aside."""
        present, intent = self._intent, Intent(goal=goal, attempt=attempt)
        intent.due_ns = self._ports.clock()
        paused = present.paused if isinstance(present.goal, Wait) else present
        if isinstance(goal, Wait):
            intent.paused = paused
        elif paused is None or paused.goal != goal or paused.settled:
            self._known.forget_goal()
        elif paused.failures:
            intent.failures, intent.last_error = paused.failures, paused.last_error
            if paused.attempt == attempt:
                intent.due_ns = max(intent.due_ns, paused.due_ns)
        return intent

    def _due_now(self) -> None:
        self._intent.ran_with = None
        self._intent.due_ns = self._ports.clock()
        self._poke.set()

    async def _wait_due(self) -> None:
        while (left_ns := self._intent.due_ns - self._ports.clock()) > 0:
            self._poke.clear()
            try:
                async with asyncio.timeout(left_ns / 1e9):
                    await self._poke.wait()
            except TimeoutError:
                continue

    async def _attempt(self, intent: Intent) -> None:
        """One attempt at the goal: steps until it is reached, fails, waits or is superseded."""
        now = self._ports.clock
        try:
            await self._steps(intent)
        except NotYet as reason:
            intent.activity = str(reason)
            intent.due_ns = now() + self._ports.timing.not_yet_ms * NS_PER_MS
        except (RamdError, OSError, TimeoutError) as error:
            self._failed(intent, error)
        finally:
            if self._work is not None:
                intent.activity = intent.activity or self._work.progress.activity
            self._work = None
            self._ports.changed()

    async def _steps(self, intent: Intent) -> None:
        intent.activity = ""
        for _ in range(self._ports.timing.steps_max):
            seen = await self._look(intent.goal)
            if intent is not self._intent:
                return
            if await self._step(intent, seen) is Step.DONE:
                self._settle(intent)
                return
        raise Unavailable(f"not reached within {self._ports.timing.steps_max} steps")

    async def _look(self, goal: Goal) -> Seen:
        ends = isinstance(goal, GiveUp) and self._ports.store.record.opened_epoch == goal.epoch
        if isinstance(goal, Wait | StaySealed | Lead):
            seen = look_in_page(self._ports, self._known)
            if seen is not None:
                return seen
        return await (look_briefly if ends else look)(self._ports, self._known)

    async def _step(self, intent: Intent, seen: Seen) -> Step:
        assert isinstance(seen.situation, Situation)
        kind = type(intent.goal)
        events.emit(events.TransitionStarted(situation=seen.situation, goal=kind.__name__))
        work = Work(
            ports=self._ports,
            guard=self._guard,
            known=self._known,
            goal=intent.goal,
            attempt=intent.attempt,
            seen=seen,
        )
        self._work = work
        return await TRANSITIONS[(seen.situation, kind)](work)

    def _settle(self, intent: Intent) -> None:
        intent.failures = 0
        intent.last_error = ""
        intent.ran_with = self._setting()
        intent.due_ns = self._ports.clock() + self._ports.timing.refresh_ms * NS_PER_MS

    def _failed(self, intent: Intent, error: BaseException) -> None:
        """Backoff: doubled at each failure, bounded, and spread so that nodes do not march."""
        timing = self._ports.timing
        intent.failures += 1
        intent.ran_with = None
        intent.last_error = (str(error) or type(error).__name__)[:ERROR_CHARS_MAX]
        exponent = min(intent.failures - 1, 16)
        full_ms = min(timing.retry_max_ms, timing.retry_first_ms * 2**exponent)
        retry_ms = round(full_ms * self._rng.uniform(0.5, 1.0))
        intent.due_ns = self._ports.clock() + retry_ms * NS_PER_MS
        events.emit(
            events.TransitionFailed(
                goal=str(intent.goal),
                why=intent.last_error,
                failures=intent.failures,
                retry_ms=retry_ms,
            )
        )

    def _setting(self) -> tuple[bool, tuple[int, ...], int]:
        server = self._ports.server
        return (server.running, self._ports.others, server.fence.start_number())

    def _activity(self) -> str:
        doing = self._work.progress.activity if self._work else self._intent.activity
        if not self._intent.failures:
            return doing
        return f"{doing}; failed {self._intent.failures} times: {self._intent.last_error}"

    def _sealed(self) -> SealReport | None:
        """The report, while it stands: same seal, and the server it was read from still runs."""
        report, seal = self._known.report, self._ports.store.record.seal
        if report is None or seal is None or not self._ports.server.running:
            return None
        same = (report.epoch, report.attempt) == (seal.epoch, seal.attempt)
        return report if same else None


def _goes_on(under_way: Goal, goal: Goal) -> bool:
    """The step under way may end by itself although `goal` was set meanwhile. What a step towards
    Follow makes is judged by the record before it takes any WAL, so nothing is lost by it."""
    return isinstance(under_way, Follow) and (isinstance(goal, Wait) or goal == under_way)
