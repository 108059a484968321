"""What is measured: commits one by one and many at once, and the silence after a lost leader.

Lives here: the order of things, so that both groups meet the same minutes of the machine. Must not
live here: clients, processes, tables. Start reading at `commits` and `faults`.
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.consensus.clients import Client, hunt
from bench.consensus.groups import MEMBERS, Group

VALUE_BYTES: Final = 300
WARM_UP: Final = 30
IN_FLIGHT: Final = 64
SETTLE_S: Final = 1.0
"""Rest of a group that is healthy again before it loses the next leader."""
GIVE_UP_S: Final = 30.0

LEADER: Final = "one by one, at the leader"
FOLLOWER: Final = "one by one, at a follower"
WINDOW: Final = f"{IN_FLIGHT} in flight, at the leader"
HOP: Final = "to the leader and back, nothing done"
KILLED: Final = "SIGKILL"
FROZEN: Final = "SIGSTOP"


@dataclass(slots=True)
class Sample:
    """Latencies of one kind, ms, and how long all of them took together."""

    took_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def p50(self) -> float:
        return statistics.median(self.took_ms)

    @property
    def p99(self) -> float:
        """Nearest rank."""
        return sorted(self.took_ms)[math.ceil(0.99 * len(self.took_ms)) - 1]

    @property
    def per_second(self) -> float:
        return len(self.took_ms) / self.seconds

    def figures(self) -> dict[str, float]:
        """For JSON."""
        shown = {"p50_ms": self.p50, "p99_ms": self.p99, "ops_s": self.per_second}
        return {"n": len(self.took_ms)} | {name: round(v, 3) for name, v in shown.items()}


def pooled(samples: Sequence[Sample]) -> Sample:
    """All of them as one."""
    return Sample(
        took_ms=[value for sample in samples for value in sample.took_ms],
        seconds=sum(sample.seconds for sample in samples),
    )


Rounds = list[dict[str, dict[str, Sample]]]
"""Each round: group → kind → sample."""


def commits(groups: Sequence[Group], rounds: int, count: int) -> Rounds:
    """`count` commits of each kind, in each round, each group; who begins changes every round."""
    done: Rounds = []
    for number in range(rounds):
        order = groups if number % 2 == 0 else list(reversed(groups))
        done.append({group.name: _round(group, count) for group in order})
        print(f"round {number + 1} of {rounds} done", flush=True)
    return done


def _round(group: Group, count: int) -> dict[str, Sample]:
    leader = group.healthy()
    follower = next(member for member in MEMBERS if member != leader)
    value = os.urandom(VALUE_BYTES)
    samples: dict[str, Sample] = {}
    client = group.connect(leader)
    try:
        samples[HOP] = _sequence(client.hop, count)
        samples[LEADER] = _sequence(lambda: client.put(value), count)
        samples[WINDOW] = _window(client, value, 2 * count)
    finally:
        client.close()
    client = group.connect(follower)
    try:
        samples[FOLLOWER] = _sequence(lambda: client.put(value), count)
    finally:
        client.close()
    return samples


def _sequence(act: Callable[[], None], count: int) -> Sample:
    for _ in range(WARM_UP):
        act()
    sample = Sample()
    begun = time.perf_counter()
    for _ in range(count):
        before = time.perf_counter()
        act()
        sample.took_ms.append(1e3 * (time.perf_counter() - before))
    sample.seconds = time.perf_counter() - begun
    return sample


def _window(client: Client, value: bytes, count: int) -> Sample:
    client.window(value, WARM_UP, IN_FLIGHT)
    begun = time.perf_counter()
    took = client.window(value, count, IN_FLIGHT)
    return Sample(took_ms=[1e3 * each for each in took], seconds=time.perf_counter() - begun)


def faults(
    groups: Sequence[Group], kind: str, count: int, every_s: float
) -> dict[str, list[float]]:
    """ms from losing the leader to the next commit, `count` times each group, by turns.

    `every_s`: a client begins another try at the next member that often.
    """
    found: dict[str, list[float]] = {group.name: [] for group in groups}
    for number in range(count):
        for group in groups if number % 2 == 0 else list(reversed(groups)):
            found[group.name].append(1e3 * _fault(group, kind, every_s, number))
    print(f"{count} × {kind} done", flush=True)
    return found


def _fault(group: Group, kind: str, every_s: float, number: int) -> float:
    leader = group.healthy()
    time.sleep(SETTLE_S)
    value = os.urandom(VALUE_BYTES)
    at = number % len(MEMBERS)
    clients = [group.connect(member) for member in MEMBERS[at:] + MEMBERS[:at]]
    try:
        for client in clients:
            client.put(value)
        begun = group.kill(leader) if kind == KILLED else group.freeze(leader)
        return hunt(clients, value, every_s=every_s, max_s=GIVE_UP_S) - begun
    finally:
        for client in clients:
            client.close()
        if kind == KILLED:
            group.start(leader)
        else:
            group.signal(leader, signal.SIGCONT)
