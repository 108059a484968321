"""Is a history of operations on one object linearizable? The search of Wing, Gong and Lowe.

Lives here: histories, the search, one model (a register that also adds and compares-and-sets).
Must not live here: where histories come from (see `raft_load`). Start reading at `linearizable`.

An operation whose outcome nobody knows may have taken effect at any time after it was asked, or
never. The search walks the events in the order of time, takes any operation that was asked and
whose answer fits as the next one, and goes back where an answer was passed that no order explains.
What was taken already, with the state it led to, is remembered, so no place is searched twice
(G. Lowe, Testing for linearizability, 2017). Objects are independent: each key is searched alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

CONFIGURATIONS_MAX = 20_000
"""Places the search may visit before it gives up."""


class Undecided(Exception):
    """The search visited too many places; the history is neither good nor bad."""


class Kind(IntEnum):
    """What an operation does. READ, WRITE `new`, CAS `old` to `new`, ADD `new`."""

    READ = 0
    WRITE = 1
    CAS = 2
    ADD = 3


@dataclass(slots=True)
class Operation:
    """One call and its answer. `result` is the value read, whether a CAS took place, or the sum.

    `returned` None: the outcome is unknown, so `result` means nothing. Times in any one unit.
    """

    kind: Kind
    asked: int
    old: int = 0
    new: int = 0
    returned: int | None = None
    result: int = 0


def step(state: int, operation: Operation) -> int | None:
    """The state after `operation`, None if its answer does not fit the state before."""
    known = operation.returned is not None
    if operation.kind is Kind.READ:
        return state if operation.result == state else None
    if operation.kind is Kind.WRITE:
        return operation.new
    if operation.kind is Kind.ADD:
        total = state + operation.new
        return total if not known or operation.result == total else None
    fits = state == operation.old
    if known and bool(operation.result) != fits:
        return None
    return operation.new if fits else state


class _Event:
    """A call (`answer` is set) or an answer, in a list from which calls are lifted out."""

    __slots__ = ("after", "answer", "before", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.answer: _Event | None = None
        self.before: _Event = self
        self.after: _Event = self


def linearizable(history: Sequence[Operation], initial: int = 0) -> bool:
    """Whether some order of the operations explains every answer and agrees with time.

    Raises Undecided after `CONFIGURATIONS_MAX` places.
    """
    history = [o for o in history if o.kind is not Kind.READ or o.returned is not None]
    awaited = sum(1 << n for n, o in enumerate(history) if o.returned is not None)
    head = _events(history)
    state, taken = initial, 0
    seen: set[tuple[int, int]] = set()
    path: list[tuple[_Event, int]] = []
    event = head.after
    while taken & awaited != awaited:  # bounded by the size of `seen`
        if event.answer is None:
            # An answer (or the end) was reached with its call not taken: go back and take another.
            if not path:
                return False
            event, state = path.pop()
            taken ^= 1 << event.number
            _put_back(event)
            event = event.after
            continue
        following = step(state, history[event.number])
        place = (taken | 1 << event.number, following if following is not None else 0)
        if following is None or place in seen:
            event = event.after
            continue
        if len(seen) >= CONFIGURATIONS_MAX:
            raise Undecided(f"{len(history)} operations, {len(seen)} places")
        seen.add(place)
        path.append((event, state))
        state, taken = following, place[0]
        _lift(event)
        event = head.after
    return True


def _events(history: Sequence[Operation]) -> _Event:
    """All calls and answers by time; at one time calls come first, which only allows more.

    Behind them stands an answer that nobody can give.
    """
    order: list[tuple[int, int, _Event]] = []
    for number, operation in enumerate(history):
        call, answer = _Event(number), _Event(number)
        call.answer = answer
        order.append((operation.asked, 0, call))
        if operation.returned is not None:
            order.append((operation.returned, 1, answer))
    order.sort(key=lambda place: place[:2])
    head = last = _Event(-1)
    for event in [event for _, _, event in order] + [_Event(-1)]:
        last.after, event.before = event, last
        last = event
    return head


def _lift(call: _Event) -> None:
    for event in _both(call):
        event.before.after = event.after
        event.after.before = event.before


def _put_back(call: _Event) -> None:
    for event in reversed(_both(call)):
        event.before.after = event
        event.after.before = event


def _both(call: _Event) -> list[_Event]:
    """The call and, unless the outcome is unknown, its answer."""
    assert call.answer is not None
    listed = call.answer.before is not call.answer
    return [call, call.answer] if listed else [call]


def explain(history: Iterable[Operation]) -> str:
    """The history in the order in which it was asked, for people."""
    lines = []
    for o in sorted(history, key=lambda o: o.asked):
        what = {
            Kind.READ: "read",
            Kind.WRITE: f"write {o.new}",
            Kind.CAS: f"cas {o.old} to {o.new}",
            Kind.ADD: f"add {o.new}",
        }[o.kind]
        end = f"{o.returned}: {o.result}" if o.returned is not None else "unknown"
        lines.append(f"  {o.asked} {what} -> {end}")
    return "\n".join(lines)
