"""How long writing stops when a primary is lost or moved: RAMD beside Patroni, in one run.

Four stacks by turns, each alone on the machine while its faults are done: formed, harmed, removed,
then the next one; who begins changes from round to round. PostgreSQL's own promotion, without any
manager, is measured before and after: the floor. Figures come from clients that know no manager.
Exit status 1 if a round did not heal in time. See bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.consensus.groups import GroupError
from bench.consensus.setup import SetupError, etcd_version, find_etcd
from bench.failover_report import OURS, Facts, Report
from bench.failover_rounds import (
    AGENT,
    CRASH,
    FAULTS,
    FIRST_ROWS,
    FROZEN,
    KILLED,
    SWITCH,
    Sample,
    Terms,
    Visit,
)
from bench.failover_stacks import (
    PATRONI,
    STACKS,
    SYNCHRONOUS,
    Stack,
    make_stack,
    ramd_knows_synchronous,
    settings_of,
)
from bench.figures import RESULTS, save
from bench.floor import promote_floor
from bench.peers.patroni_conf import Programs
from bench.peers.setup import install_patroni, patroni_version
from ramd.postgres.binaries import find_postgres
from tools.local_cluster import ClusterError, wait_until
from tools.writers import PATIENT, PROMPT, Writers, create_table

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
    terms: Terms
    floor_runs: int
    seed: int
    logs: Path
    keep_logs: bool
    """Also of visits in which everything healed."""

    def seconds(self) -> float:
        """About how long it takes."""
        held = {FROZEN: self.terms.node_s, AGENT: self.terms.agent_s}
        one = 0.0
        for stack in self.stacks:
            ours = stack in OURS
            one += FORM_S[ours] + sum(ROUND_S[ours][f] + held.get(f, 0.0) for f in self.faults)
        return self.rounds * one + self.floor_runs * FLOOR_S


def names_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A parser of names with commas between them; dashes stand for blanks, case does not count."""
    by_key = {name.lower().replace(" ", "-"): name for name in known}

    def parse(text: str) -> tuple[str, ...]:
        wanted = text.lower().split(",")
        unknown = [one for one in wanted if one not in by_key]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(by_key)}")
        return tuple(by_key[one] for one in wanted)

    return parse


def parse(argv: list[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stacks", type=names_of(STACKS), default=STACKS)
    parser.add_argument("--faults", type=names_of(FAULTS), default=FAULTS)
    parser.add_argument("--rounds", type=int, default=10, help="of each fault of each stack")
    parser.add_argument("--freeze-s", type=float, default=60.0, help="of a whole node")
    parser.add_argument("--agent-freeze-s", type=float, default=90.0, help="of an agent alone")
    parser.add_argument("--synchronous", action="store_true", help="commits wait for a replica")
    parser.add_argument("--floor-runs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep-logs", action="store_true", help="in bench/results")
    parser.add_argument("--quick", action="store_true", help="a smoke run: the figures say nothing")
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.rounds, chosen.freeze_s, chosen.agent_freeze_s = 1, 8.0, 8.0
        chosen.floor_runs = min(chosen.floor_runs, 2)
    if chosen.rounds < 1 or chosen.floor_runs < 0:
        parser.error("at least one round, and not fewer than no run of the floor")
    if chosen.synchronous and set(chosen.stacks) & set(OURS) and not ramd_knows_synchronous():
        parser.error(f"this RAMD does not act on {SYNCHRONOUS}")
    return Plan(
        stacks=chosen.stacks,
        faults=chosen.faults,
        rounds=chosen.rounds,
        terms=Terms(
            node_s=chosen.freeze_s,
            agent_s=chosen.agent_freeze_s,
            synchronous=chosen.synchronous,
        ),
        floor_runs=chosen.floor_runs,
        seed=chosen.seed,
        logs=RESULTS / f"failover-logs-{time.time():.0f}",
        keep_logs=chosen.keep_logs,
    )


def prepare(plan: Plan) -> tuple[Programs | None, dict[str, str]]:
    """See to the peers' programs, if any is to be measured; with versions. Raises SetupError."""
    versions = {"PostgreSQL": find_postgres(None).version}
    if not any(name.startswith(PATRONI) for name in plan.stacks):
        return None, versions
    programs = Programs(etcd=find_etcd(), patroni=install_patroni())
    versions |= {"Patroni": patroni_version(programs.patroni), "etcd": etcd_version(programs.etcd)}
    return programs, versions


def visit(plan: Plan, number: int, stack: Stack, report: Report) -> None:
    """One round of every fault; a fault that does not heal ends the visit and is reported."""
    rng = random.Random(f"{plan.seed} {number}")  # the same order and pauses for every stack
    faults = rng.sample(plan.faults, len(plan.faults))
    fault = "forming"
    guest = Visit(stack=stack, terms=plan.terms, rng=rng)
    logs = plan.logs / f"{number}-{stack.name.replace(' ', '-').lower()}"
    try:
        begun_s = time.monotonic()
        stack.start()
        facts = report.facts.setdefault(stack.name, Facts())
        facts.formed_s.append(round(time.monotonic() - begun_s, 1))
        facts.timing = stack.about()
        primary = create_table(stack.dsns)
        guest.ready()
        facts.settings = settings_of(stack.dsns[primary])
        with Writers(stack.dsns, (PROMPT, PATIENT)) as writers:
            wait_until("first writes", lambda: writers.acked() > FIRST_ROWS, 60)
            for fault in faults:
                sample = guest.round(fault, number, writers)
                report.samples.append(sample)
                print(line(sample), flush=True)
    except (ClusterError, GroupError, TimeoutError) as error:
        failed = Sample(stack=stack.name, fault=fault, number=number, failed=str(error))
        report.samples.append(failed)
        stack.keep_logs(logs)
        print(f"{stack.name:16s} {fault:13s} FAILED: {error}; logs in {logs}", flush=True)
    finally:
        if plan.keep_logs:
            stack.keep_logs(logs)


def line(one: Sample) -> str:
    """What is printed after a round."""
    return (
        f"{one.stack:16s} {one.fault:13s} {one.before} → {one.after}: {one.outage_ms:7.0f} ms"
        f" without writes, {one.lost} rows lost, {one.late_acks} late, two acknowledging for"
        f" {one.overlap_s:.1f} s, rejoined after {one.rejoin_s:.1f} s, load {one.load}"
    )


def measure(plan: Plan, programs: Programs | None, report: Report) -> None:
    """The whole run; half of the floor before the stacks, half after them."""
    if plan.floor_runs:
        report.floor_ms += promote_floor((plan.floor_runs + 1) // 2)
    for number in range(plan.rounds):
        turn = number % len(plan.stacks)
        for name in (*plan.stacks[turn:], *plan.stacks[:turn]):
            stack = make_stack(name, programs, synchronous=plan.terms.synchronous)
            try:
                visit(plan, number, stack, report)
            finally:
                undisturbed(stack.close)
    if plan.floor_runs > 1:
        report.floor_ms += promote_floor(plan.floor_runs // 2)


def undisturbed(close: Callable[[], None]) -> None:
    """A second Ctrl-C must not leave half of the processes behind: it is heard afterwards."""
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda one, _: heard.append(one)) for number in numbers]
    try:
        close()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if heard:
        signal.raise_signal(heard[0])


def same_code_everywhere() -> None:
    """A daemon that another one starts works in another directory, where a relative path would
    lead to the code of whatever is installed."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    found = [str(Path(entry).resolve()) for entry in entries if entry]
    if found:
        os.environ["PYTHONPATH"] = os.pathsep.join(found)


def main(argv: list[str] | None = None) -> int:
    plan = parse(argv)
    same_code_everywhere()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: ended by SIGTERM"))
    try:
        programs, versions = prepare(plan)
    except SetupError as error:
        print(f"FAILED: {error}")
        return 1
    report = Report(terms=plan.terms, versions=versions)
    print(f"seed {plan.seed}; this takes about {plan.seconds() / 60:.0f} minutes", flush=True)
    try:
        measure(plan, programs, report)
    finally:  # what was measured before Ctrl-C is kept, too
        if report.samples:
            text = report.text()
            path = save("failover-synchronous" if plan.terms.synchronous else "failover", text)
            path.with_suffix(".json").write_text(report.json())
            print(f"{text}\nkept in {path} and {path.with_suffix('.json').name}")
    return 1 if report.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
