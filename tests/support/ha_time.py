"""Virtual time with processes that can be frozen and killed at any step.

Everything that a simulated process does runs in a context that names its `Actor`. A frozen actor's
callbacks are kept until it thaws; a dead one's never run: no handler, no `finally`, as with
SIGKILL. Start reading at `HaLoop`.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support.virtual_time import VirtualTimeLoop

NS = 1_000_000_000


class Actor:
    """One run of one process. `begin` makes its tasks; `held` waits for the thaw."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = 0
        self.held: list[events.Handle] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(ACTOR.set, self)

    def call(self, action: Callable[..., object], *args: object) -> None:
        """Soon, as this process."""
        if not self.dead:
            _loop().call_soon(action, *args, context=self.context)

    def later(self, delay_s: float, action: Callable[..., object], *args: object) -> None:
        """After `delay_s`, as this process."""
        if not self.dead:
            _loop().call_later(delay_s, action, *args, context=self.context)

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process; an error that ends it is a bug and ends the run."""
        task = _loop().create_task(work, context=self.context.copy())
        task.add_done_callback(_loop().ended)
        self.tasks.append(task)
        return task

    def kill(self) -> None:
        """Nothing of it runs any more."""
        self.dead = True

    def freeze(self) -> None:
        self.frozen += 1

    def thaw(self) -> None:
        self.frozen -= 1
        if not self.frozen and not self.dead:
            _loop().resume(self.held)
            self.held = []


ACTOR: contextvars.ContextVar[Actor | None] = contextvars.ContextVar("actor", default=None)


class _Handle(events.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if _may_run(self, self._context.get(ACTOR)):  # type: ignore[attr-defined]
            super()._run()


class _Timer(events.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        if _may_run(self, self._context.get(ACTOR)):  # type: ignore[attr-defined]
            super()._run()


def _may_run(handle: events.Handle, actor: Actor | None) -> bool:
    if actor is None or HaLoop.over:
        return True
    if actor.dead or actor.frozen:
        if not actor.held:
            handle._loop.holding.append(actor)  # type: ignore[attr-defined]
        actor.held.append(handle)
        return False
    return True


class HaLoop(VirtualTimeLoop):
    """Virtual time; callbacks obey their actor. `failure`: the first error that ended a task."""

    over = False
    """The run has ended: everything is unwound, whatever its actor."""

    def __init__(self) -> None:
        super().__init__()
        HaLoop.over = False
        self.failure: BaseException | None = None
        self.holding: list[Actor] = []
        """Actors with callbacks that could not run."""
        self.set_exception_handler(self._unhandled)

    def _call_soon(self, callback: Any, args: Any, context: Any) -> events.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> events.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def resume(self, held: list[events.Handle]) -> None:
        self._ready.extend(h for h in held if not h.cancelled())  # type: ignore[attr-defined]

    def ended(self, task: asyncio.Task[Any]) -> None:
        """A task of an actor has ended."""
        if not task.cancelled() and task.exception() is not None:
            self.fail(task.exception())

    def fail(self, error: BaseException | None) -> None:
        if self.failure is None and not HaLoop.over:
            self.failure = error

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not HaLoop.over:
            self.fail(context.get("exception") or AssertionError(context["message"]))


def _loop() -> HaLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HaLoop)
    return loop


def run_on(main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main` in virtual time; afterwards unwind everything that it left behind."""
    loop = HaLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        HaLoop.over = True
        for actor in loop.holding:
            loop.resume(actor.held)
            actor.held = []
        for _ in range(20):  # what was already unwinding may take a second word
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.close()


class HostClock:
    """CLOCK_BOOTTIME of one host: its own beginning and, within the bound, its own rate."""

    def __init__(self, begun_s: float, ppm: int) -> None:
        self._begun_s = begun_s
        self._rate = 1 + ppm / 1e6
        self._stopped_s: float | None = None

    def __call__(self) -> int:
        now_s = _loop().time() if self._stopped_s is None else self._stopped_s
        return round((now_s - self._begun_s) * self._rate * NS)

    def stop(self) -> None:
        """The machine is suspended from outside, and its clock with it."""
        self._stopped_s = _loop().time()

    def go_on(self) -> None:
        """It goes on from where it was."""
        assert self._stopped_s is not None
        self._begun_s += _loop().time() - self._stopped_s
        self._stopped_s = None

    def delay_s(self, due_ns: int) -> float:
        """How long it is until `due_ns` of this clock."""
        return max(0.0, (due_ns - self()) / NS / self._rate)
