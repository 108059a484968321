"""Judge a history against what the servers hold at the end. Pure: values in, violations out.

The rules, and what each would show:

- lost: an acknowledged row is on the primary, with all its parts; an acknowledged count is not
  above where the counter ended.
- refused and yet there: every row was acknowledged, or its client was left without an answer.
- torn: a transaction of unknown outcome is there as a whole or not at all.
- twice: no row is there twice; no value of a counter was acknowledged twice.
- order: a count that was sent after another one was acknowledged got a higher value.
- two primaries: once a server of a later timeline has acknowledged, nothing that is sent
  afterwards is acknowledged by one of an earlier timeline. Every promotion begins a timeline.
- copies: every server holds the same rows with the same history.
- balance: pgbench's four sums are equal, as each of its transactions keeps them.

Start reading at `judge`.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.chaos.history import PARTS, Ack, Final, History, Work

SHOWN_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that was broken, how often, and the first cases in words."""

    rule: str
    count: int
    cases: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rule}: {self.count} ({'; '.join(self.cases)})"


def judge(history: History, final: Final) -> list[Violation]:
    """Every broken rule, each once."""
    found = (
        ("lost", lost(history.acks, final)),
        ("refused and yet there", unasked(history, final)),
        ("torn transaction", torn(history, final)),
        ("there twice", twice(final)),
        ("copies differ", copies_differ(final)),
        ("balances differ", balances_differ(final)),
    )
    return [*gather_all(found), *judge_answers(history)]


def judge_answers(history: History) -> list[Violation]:
    """The rules that need no look at the servers: when none can be had."""
    return gather_all(
        (
            ("value acknowledged twice", values_twice(history.acks)),
            ("counted out of order", out_of_order(history.acks)),
            ("two primaries acknowledged", two_primaries(history.acks)),
        )
    )


def gather_all(found: Iterable[tuple[str, Iterable[str]]]) -> list[Violation]:
    """Those that have a case."""
    return [violation for rule, cases in found if (violation := gather(rule, cases))]


def gather(rule: str, cases: Iterable[str]) -> Violation | None:
    """One violation out of its cases; None if there is none."""
    listed = list(cases)
    if not listed:
        return None
    return Violation(rule=rule, count=len(listed), cases=tuple(listed[:SHOWN_MAX]))


def lost(acks: Iterable[Ack], final: Final) -> Iterator[str]:
    """Acknowledged, and the primary does not have it."""
    for ack in acks:
        if ack.work is Work.COUNT:
            if final.counters.get(ack.counter, 0) < ack.value:
                yield f"{_name(ack)}, counter {ack.counter} ends below {ack.value}"
            continue
        parts = range(PARTS[ack.work])
        missing = [part for part in parts if (ack.client, ack.number, part) not in final.rows]
        if missing:
            yield f"{_name(ack)}, parts {missing} are missing"


def unasked(history: History, final: Final) -> Iterator[str]:
    """There, although its client was told that it is not, or never sent it."""
    known = {(ack.client, ack.number) for ack in history.acks} | history.unknown.keys()
    for client, number, part in final.rows:
        if (client, number) not in known:
            yield f"row {client}/{number} part {part}"


def torn(history: History, final: Final) -> Iterator[str]:
    """Half of a transaction whose outcome its client does not know."""
    for (client, number), work in history.unknown.items():
        there = [part for part in range(PARTS[work]) if (client, number, part) in final.rows]
        if there and len(there) < PARTS[work]:
            yield f"{work} {client}/{number}: only parts {there}"


def twice(final: Final) -> Iterator[str]:
    """A row that one statement made and that is there more than once."""
    for (client, number, part), times in final.rows.items():
        if times > 1:
            yield f"row {client}/{number} part {part}: {times} times"


def values_twice(acks: Iterable[Ack]) -> Iterator[str]:
    """One value of a counter given to two clients: both read the same value before it."""
    counts = [ack for ack in acks if ack.work is Work.COUNT]
    given = Counter((ack.counter, ack.value) for ack in counts)
    for counter, value in sorted(key for key, times in given.items() if times > 1):
        holders = [_name(a) for a in counts if (a.counter, a.value) == (counter, value)]
        yield f"counter {counter}, value {value}: {' and '.join(holders)}"


def out_of_order(acks: Iterable[Ack]) -> Iterator[str]:
    """A value that is not above one that was known before its statement was sent."""
    by_counter: dict[int, list[Ack]] = {}
    for ack in acks:
        if ack.work is Work.COUNT:
            by_counter.setdefault(ack.counter, []).append(ack)
    for counter, counts in sorted(by_counter.items()):
        times, highest = _rising([(ack.received_s, ack.value) for ack in counts])
        for ack in counts:
            before = bisect.bisect_left(times, ack.sent_s)
            if before and highest[before - 1] >= ack.value:
                yield (
                    f"{_name(ack)}: counter {counter} gave {ack.value},"
                    f" after {highest[before - 1]} was known"
                )


def two_primaries(acks: Sequence[Ack]) -> Iterator[str]:
    """Sent after a later timeline had acknowledged, acknowledged by an earlier one."""
    times, newest = _rising([(ack.received_s, ack.timeline) for ack in acks])
    for ack in acks:
        before = bisect.bisect_left(times, ack.sent_s)
        if before and newest[before - 1] > ack.timeline:
            yield f"{_name(ack)}, {ack.sent_s - _first(times, newest, ack.timeline):.3f} s late"


def late(acks: Sequence[Ack]) -> int:
    """Acknowledgements of an earlier timeline that were read after a later one's first.

    Not wrong by itself: the answer may have been under way. Told, so that a rise is noticed.
    """
    times, newest = _rising([(ack.received_s, ack.timeline) for ack in acks])
    return sum(
        1
        for ack in acks
        if (before := bisect.bisect_left(times, ack.received_s))
        and newest[before - 1] > ack.timeline
    )


def copies_differ(final: Final) -> Iterator[str]:
    """A server whose rows, timeline or history are not the primary's."""
    first = next(copy for copy in final.copies if copy.node == final.primary)
    for copy in final.copies:
        if (copy.timeline, copy.lineage) != (first.timeline, first.lineage):
            yield f"node {copy.node} is on timeline {copy.timeline}, not {first.timeline}"
        for mine, its in zip(first.sums, copy.sums, strict=True):
            if mine != its:
                yield f"node {copy.node} has {its}, the primary {mine}"


def balances_differ(final: Final) -> Iterator[str]:
    """What pgbench moved does not add up."""
    if len(set(final.balances)) > 1:
        yield f"accounts, tellers, branches, history: {final.balances}"


def _rising(points: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Times in order, and the highest value up to and with each."""
    times: list[float] = []
    highest: list[int] = []
    for at_s, value in sorted(points):
        times.append(at_s)
        highest.append(max(value, highest[-1]) if highest else value)
    return times, highest


def _first(times: list[float], newest: list[int], timeline: int) -> float:
    """When a timeline after `timeline` first acknowledged."""
    return times[bisect.bisect_right(newest, timeline)]


def _name(ack: Ack) -> str:
    return f"{ack.work} {ack.client}/{ack.number} by node {ack.node} on timeline {ack.timeline}"
