"""How long writing stops when a primary is lost or moved: RAMD beside Patroni, in one run.

Four stacks by turns, each alone on the machine while its faults are done: formed, harmed for some
rounds, removed, then the next one; who begins changes from visit to visit. With --together all at
once. PostgreSQL's own promotion, without any manager, is measured before and after: the floor.
Figures come from clients that know no manager. Exit status 1 if a round did not heal in time. See
bench/README.md. What one run does is in `failover_plan`.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.consensus.groups import GroupError
from bench.consensus.setup import SetupError, etcd_version, find_etcd
from bench.failover_plan import Plan, key_of, parse
from bench.failover_report import Facts, Report
from bench.failover_rounds import FIRST_ROWS, Sample, Visit
from bench.failover_stacks import PATRONI, Stack, make_stack, settings_of
from bench.failover_together import measure_together
from bench.figures import revision, save
from bench.floor import promote_floor
from bench.peers.patroni_conf import Programs
from bench.peers.setup import install_patroni, patroni_version
from ramd.postgres.binaries import find_postgres
from tools.local_cluster import ClusterError, wait_until
from tools.writers import PATIENT, PROMPT, Writers, create_table


def prepare(plan: Plan) -> tuple[Programs | None, dict[str, str]]:
    """See to the peers' programs, if any is to be measured; with versions. Raises SetupError."""
    versions = {"RAMD": revision(), "PostgreSQL": find_postgres(None).version}
    if not any(name.startswith(PATRONI) for name in plan.stacks):
        return None, versions
    programs = Programs(etcd=find_etcd(), patroni=install_patroni())
    versions |= {"Patroni": patroni_version(programs.patroni), "etcd": etcd_version(programs.etcd)}
    return programs, versions


def visit(plan: Plan, numbers: tuple[int, ...], stack: Stack, report: Report) -> tuple[int, ...]:
    """Some rounds of every fault on one cluster. A fault that does not heal ends the visit and is
    reported; returns the rounds that are left."""
    left, fault = numbers, "forming"
    guest = Visit(stack=stack, terms=plan.terms)
    logs = plan.logs / f"{numbers[0]}-{key_of(stack.name)}"
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
            while left:
                # The same order and pauses for every stack.
                guest.rng = random.Random(f"{plan.seed} {left[0]}")
                for fault in guest.rng.sample(plan.faults, len(plan.faults)):
                    sample = guest.round(fault, left[0], writers)
                    report.samples.append(sample)
                    print(line(sample), flush=True)
                left = left[1:]
    except (ClusterError, GroupError, TimeoutError) as error:
        failed = Sample(stack=stack.name, fault=fault, number=left[0], failed=str(error))
        report.samples.append(failed)
        stack.keep_logs(logs)
        print(f"{stack.name:16s} {fault:13s} FAILED: {error}; logs in {logs}", flush=True)
    finally:
        if plan.keep_logs:
            stack.keep_logs(logs)
    return left[1:]


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
    if plan.together:
        measure_together(plan, report)
    else:
        measure_by_turns(plan, programs, report)
    if plan.floor_runs > 1:
        report.floor_ms += promote_floor(plan.floor_runs // 2)


def measure_by_turns(plan: Plan, programs: Programs | None, report: Report) -> None:
    """One stack after the other. After a failure the rest of its rounds get another cluster."""
    for turn, numbers in enumerate(plan.visits()):
        for name in plan.order(turn):
            left = numbers
            while left:
                stack = make_stack(name, programs, synchronous=plan.terms.synchronous)
                try:
                    left = visit(plan, left, stack, report)
                finally:
                    undisturbed(stack.close)


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
    plan = parse(argv, description=__doc__)
    same_code_everywhere()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("FAILED: ended by SIGTERM"))
    try:
        programs, versions = prepare(plan)
    except SetupError as error:
        print(f"FAILED: {error}")
        return 1
    report = Report(terms=plan.terms, versions=versions, together=plan.together)
    if plan.into is None:
        print(f"seed {plan.seed}; this takes about {plan.seconds() / 60:.0f} minutes", flush=True)
    try:
        measure(plan, programs, report)
    finally:  # what was measured before Ctrl-C is kept, too
        if plan.into is not None:
            plan.into.write_text(report.json())
        elif report.samples:
            keep(report)
    return 1 if report.failures() else 0


def keep(report: Report) -> None:
    """Leave the page and its JSON in bench/results, and show the page."""
    text = report.text()
    path = save("failover-synchronous" if report.terms.synchronous else "failover", text)
    path.with_suffix(".json").write_text(report.json())
    print(f"{text}\nkept in {path} and {path.with_suffix('.json').name}")


if __name__ == "__main__":
    sys.exit(main())
