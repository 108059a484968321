"""What one run of the comparison does, as the command line says it, and how long that takes.

Must not live here: doing it. Start reading at `Plan`.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.failover_report import OURS
from bench.failover_rounds import AGENT, CRASH, FAULTS, FROZEN, KILLED, SWITCH, Terms
from bench.failover_stacks import STACKS, SYNCHRONOUS, ramd_knows_synchronous
from bench.figures import RESULTS

FLOOR_S: Final = 5.0
"""About what one run of the floor takes."""
FORM_S: Final = {True: 10.0, False: 40.0}
ROUND_S: Final = {
    True: {CRASH: 8.0, KILLED: 12.0, FROZEN: 10.0, AGENT: 10.0, SWITCH: 7.0},
    False: {CRASH: 20.0, KILLED: 50.0, FROZEN: 30.0, AGENT: 30.0, SWITCH: 20.0},
}
"""About what a round takes, RAMD's (True) and others', without the time of being frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run does."""

    stacks: tuple[str, ...]
    faults: tuple[str, ...]
    rounds: int
    rounds_per_visit: int
    terms: Terms
    floor_runs: int
    seed: int
    logs: Path
    keep_logs: bool
    """Also of visits in which everything healed."""
    together: bool = False
    """Every stack in a process of its own, all at once."""
    into: Path | None = None
    """Where a run that is part of another one leaves its rounds; no page then."""

    def visits(self) -> list[tuple[int, ...]]:
        """The numbers of the rounds that are done on one cluster, visit by visit."""
        numbers = tuple(range(self.rounds))
        step = self.rounds_per_visit
        return [numbers[first : first + step] for first in numbers[::step]]

    def order(self, visit: int) -> tuple[str, ...]:
        """Who is visited when: another one begins each time."""
        turn = visit % len(self.stacks)
        return (*self.stacks[turn:], *self.stacks[:turn])

    def seconds(self) -> float:
        """About how long it takes."""
        alone = [self._seconds_of(stack) for stack in self.stacks]
        return (max(alone) if self.together else sum(alone)) + self.floor_runs * FLOOR_S

    def _seconds_of(self, stack: str) -> float:
        held = {FROZEN: self.terms.node_s, AGENT: self.terms.agent_s}
        ours = stack in OURS
        one = sum(ROUND_S[ours][fault] + held.get(fault, 0.0) for fault in self.faults)
        return len(self.visits()) * FORM_S[ours] + self.rounds * one


def names_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A parser of names with commas between them; dashes stand for blanks, case does not count."""
    by_key = {key_of(name): name for name in known}

    def parse(text: str) -> tuple[str, ...]:
        wanted = text.lower().split(",")
        unknown = [one for one in wanted if one not in by_key]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(by_key)}")
        return tuple(by_key[one] for one in wanted)

    return parse


def key_of(name: str) -> str:
    """A stack or fault as the command line and file names have it."""
    return name.lower().replace(" ", "-")


def parse(argv: Sequence[str] | None = None, *, description: str | None = None) -> Plan:
    """The plan of a command line; ends the program if that makes no sense."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--stacks", type=names_of(STACKS), default=STACKS)
    add("--faults", type=names_of(FAULTS), default=FAULTS)
    add("--rounds", type=int, default=10, help="of each fault of each stack")
    add("--rounds-per-visit", type=int, default=5, help="on one cluster, before it is made anew")
    add("--together", action="store_true", help="all stacks at once, each in a process of its own")
    add("--freeze-s", type=float, default=60.0, help="of a whole node")
    add("--agent-freeze-s", type=float, default=90.0, help="of an agent alone")
    add("--synchronous", action="store_true", help="commits wait for a replica")
    add("--floor-runs", type=int, default=6)
    add("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    add("--keep-logs", action="store_true", help="in bench/results")
    add("--into", type=Path, help=argparse.SUPPRESS)
    add("--quick", action="store_true", help="a smoke run: the figures say nothing")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.rounds, chosen.freeze_s, chosen.agent_freeze_s = 1, 8.0, 8.0
        chosen.floor_runs = min(chosen.floor_runs, 2)
    if min(chosen.rounds, chosen.rounds_per_visit) < 1 or chosen.floor_runs < 0:
        parser.error("at least one round, and not fewer than no run of the floor")
    if chosen.synchronous and set(chosen.stacks) & set(OURS) and not ramd_knows_synchronous():
        parser.error(f"this RAMD does not act on {SYNCHRONOUS}")
    return Plan(
        stacks=chosen.stacks,
        faults=chosen.faults,
        rounds=chosen.rounds,
        rounds_per_visit=chosen.rounds_per_visit,
        together=chosen.together,
        terms=Terms(
            node_s=chosen.freeze_s,
            agent_s=chosen.agent_freeze_s,
            synchronous=chosen.synchronous,
        ),
        floor_runs=chosen.floor_runs,
        seed=chosen.seed,
        logs=RESULTS / f"failover-logs-{time.time():.0f}-{os.getpid()}",
        keep_logs=chosen.keep_logs,
        into=chosen.into,
    )


def arguments_of(plan: Plan, stack: str, into: Path) -> list[str]:
    """The command line of the part of `plan` that one stack is, without the floor."""
    switches = [("--synchronous", plan.terms.synchronous), ("--keep-logs", plan.keep_logs)]
    return [
        f"--stacks={key_of(stack)}",
        f"--faults={','.join(map(key_of, plan.faults))}",
        f"--rounds={plan.rounds}",
        f"--rounds-per-visit={plan.rounds_per_visit}",
        f"--freeze-s={plan.terms.node_s}",
        f"--agent-freeze-s={plan.terms.agent_s}",
        f"--seed={plan.seed}",
        "--floor-runs=0",
        f"--into={into}",
        *(switch for switch, wanted in switches if wanted),
    ]
