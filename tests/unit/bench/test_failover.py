"""The comparison of failovers: what is concluded from acknowledgements, and how it is shown."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bench import failover, failover_plan
from bench.failover_plan import Plan, arguments_of, parse
from bench.failover_report import Facts, Report
from bench.failover_rounds import AGENT, CRASH, FAULTS, KILLED, SWITCH, Sample, Terms, seen_by
from bench.failover_stacks import FASTEST, PATRONI, RAMD, RAMD_FAST, STACKS
from bench.failover_together import measure_together
from tests.support.wait import wait_for
from tools.local_cluster import ClusterError
from tools.writers import Ack

OLD, NEW = 1, 2


def acks(*of: tuple[float, int]) -> list[Ack]:
    return [Ack(at_s=at_s, node=node, row=row) for row, (at_s, node) in enumerate(of)]


# --- what the clients saw ------------------------------------------------------------------------


def test_the_outage_is_the_longest_gap_that_ends_after_the_fault() -> None:
    seen = seen_by(acks((0.0, OLD), (5.0, OLD), (5.5, OLD), (7.5, NEW), (7.6, NEW)), OLD, 5.2)
    assert seen.outage_ms == pytest.approx(2000)
    assert seen.after == NEW


def test_a_clean_takeover_has_nothing_late() -> None:
    seen = seen_by(acks((1.0, OLD), (2.0, NEW), (2.1, NEW)), OLD, 1.5)
    assert (seen.late_acks, seen.overlap_s) == (0, 0)


def test_a_row_of_the_old_primary_after_the_takeover_is_late() -> None:
    both = acks((1.0, OLD), (2.0, NEW), (2.01, OLD), (2.02, OLD), (2.5, NEW), (2.51, OLD), (3, NEW))
    seen = seen_by(both, OLD, 1.5)
    assert seen.late_acks == 3
    assert seen.overlap_s == pytest.approx(0.2)


def test_one_late_row_of_a_thawed_primary_is_no_minute_of_overlap() -> None:
    seen = seen_by(acks((1.0, OLD), (4.0, NEW), (60.0, NEW), (60.01, OLD), (61, NEW)), OLD, 1.5)
    assert seen.late_acks == 1
    assert seen.overlap_s == pytest.approx(0.1)


def test_a_primary_that_came_back_when_the_other_fell_silent_is_not_late() -> None:
    seen = seen_by(acks((1.0, OLD), (2.0, NEW), (3.0, NEW), (4.0, OLD), (5.0, OLD)), OLD, 1.5)
    assert (seen.late_acks, seen.after) == (0, OLD)


def test_a_restart_in_place_is_an_outage_without_a_takeover() -> None:
    seen = seen_by(acks((1.0, OLD), (4.0, OLD), (4.1, OLD)), OLD, 1.5)
    assert seen.outage_ms == pytest.approx(3000)
    assert (seen.late_acks, seen.after) == (0, OLD)


# --- how it is shown -----------------------------------------------------------------------------


def report() -> Report:
    made = Report(terms=Terms(), versions={"PostgreSQL": "18.6"})
    made.floor_ms += [100.0, 100.0]
    made.facts[RAMD] = Facts(timing={"primary_lease_ttl_ms": 3000}, formed_s=[5.0])
    for outage_ms, lost in ((300.0, 0), (450.0, 2)):
        made.samples.append(
            Sample(stack=RAMD, fault=CRASH, number=0, outage_ms=outage_ms, lost=lost, rejoin_s=1)
        )
    made.samples.append(Sample(stack=RAMD, fault=KILLED, number=0, outage_ms=3600.0))
    made.samples.append(
        Sample(stack=PATRONI, fault=AGENT, number=0, late_acks=9, overlap_s=59.5, rejoin_s=3)
    )
    made.samples.append(Sample(stack=PATRONI, fault=SWITCH, number=0, failed="no answer"))
    return made


def test_every_stack_and_fault_that_was_measured_has_a_row() -> None:
    page = report().text()
    assert "| promote floor |  | 2 | 100 | 100 | 100 |" in page
    assert "| server crash | RAMD | 2 | 375 | 450 | 450 | 2 | 0 | 0.0 (0.0) | 1.0 (1.0) |" in page
    assert "| agent frozen | Patroni | 1 | 0 | 0 | 0 | 0 | 9 | 59.5 (59.5) | 3.0 (3.0) |" in page
    assert "| switchover | Patroni" not in page
    assert "- Patroni, switchover: no answer" in page


def test_aims_are_judged_by_median_floor_and_lease() -> None:
    assert report().verdicts() == [
        "RAMD, server crash: 375 ms, aim 500 (absolute): met",
        "RAMD, server crash: 375 ms, aim 400 (two floors and 200 ms): met",
        "RAMD, node killed: 3600 ms, aim 3500 (the lease and 500 ms): MISSED",
        "RAMD: 2 rows lost, 0 acknowledged late, aim 0: MISSED",
    ]


def test_machines_get_every_round_and_the_failures() -> None:
    made = report()
    read = json.loads(made.json())
    assert len(read["rounds"]) == len(made.samples)
    crash = next(cell for cell in read["cells"] if cell["fault"] == CRASH)
    assert (crash["rows_lost"], crash["runs_with_rows_lost"]) == (2, 1)
    assert [one.failed for one in made.failures()] == ["no answer"]


# --- what is run ---------------------------------------------------------------------------------


def test_a_plain_run_does_ten_rounds_of_everything() -> None:
    plan = parse([])
    assert (plan.stacks, plan.faults, plan.rounds) == (STACKS, FAULTS, 10)
    assert plan.terms == Terms(node_s=60, agent_s=90)
    assert plan.seconds() > 10 * len(STACKS) * 150


def test_a_cluster_is_formed_for_several_rounds() -> None:
    plan = parse(["--rounds", "7", "--rounds-per-visit", "3"])
    assert plan.visits() == [(0, 1, 2), (3, 4, 5), (6,)]
    assert [plan.order(visit)[0] for visit in range(5)] == [*STACKS, STACKS[0]]
    every_round = replace(plan, rounds_per_visit=1)
    assert every_round.seconds() - plan.seconds() == pytest.approx(4 * (10 + 10 + 40 + 40))
    with pytest.raises(SystemExit):
        parse(["--rounds-per-visit", "0"])


def test_all_at_once_take_as_long_as_the_slowest() -> None:
    plan = parse(["--floor-runs", "0", "--together"])
    slowest = replace(plan, together=False, stacks=(PATRONI,))
    assert plan.seconds() == slowest.seconds() < replace(plan, together=False).seconds()


def test_stacks_and_faults_are_chosen_by_name() -> None:
    plan = parse(["--stacks", "ramd,patroni-fastest", "--faults", "Server-Crash"])
    assert (plan.stacks, plan.faults) == (("RAMD", "Patroni fastest"), (CRASH,))
    with pytest.raises(SystemExit):
        parse(["--stacks", "other"])


def test_the_part_of_one_stack_is_the_same_plan(tmp_path: Path) -> None:
    chosen = ["--together", "--rounds=4", "--rounds-per-visit=2", "--freeze-s=7", "--keep-logs"]
    for more in ([], ["--synchronous", "--faults=agent-frozen,switchover"]):
        plan = parse([*chosen, *more])
        part = parse(arguments_of(plan, RAMD_FAST, tmp_path))
        wanted = replace(plan, stacks=(RAMD_FAST,), together=False, floor_runs=0, into=tmp_path)
        assert replace(part, logs=plan.logs) == wanted


def test_synchronous_is_refused_where_it_would_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover_plan, "ramd_knows_synchronous", lambda: False)
    with pytest.raises(SystemExit):
        parse(["--synchronous"])
    assert parse(["--synchronous", "--stacks", "patroni"]).terms.synchronous


def test_the_fastest_patroni_is_within_what_it_accepts() -> None:
    assert FASTEST.loop_wait + 2 * FASTEST.retry_timeout <= FASTEST.ttl


# --- all at once ---------------------------------------------------------------------------------

PART = """
import pathlib, signal, sys, time
from bench.failover_plan import parse
from bench.failover_report import Facts, Report
from bench.failover_rounds import CRASH, Sample
plan = parse()
report = Report(terms=plan.terms, versions={plan.stacks[0]: "1"})
def leave():
    report.samples.append(Sample(stack=plan.stacks[0], fault=CRASH, number=0, outage_ms=200.0))
    report.facts[plan.stacks[0]] = Facts(formed_s=[5.0], timing={"primary_lease_ttl_ms": 3000})
    plan.into.write_text(report.json())
def told(*_):
    leave()
    sys.exit(1)
signal.signal(signal.SIGTERM, told)
"""


def together(*stacks: str) -> tuple[Plan, Report]:
    names = ",".join(failover_plan.key_of(stack) for stack in stacks)
    plan = parse(["--together", "--stacks", names, "--rounds", "1"])
    return plan, Report(terms=plan.terms, versions={"PostgreSQL": "18"}, together=True)


def test_what_each_process_found_is_on_one_page() -> None:
    plan, made = together(RAMD, PATRONI)
    measure_together(plan, made, (sys.executable, "-c", f"{PART}\nleave()"))
    assert [(one.stack, one.outage_ms) for one in made.samples] == [(RAMD, 200), (PATRONI, 200)]
    assert made.versions == {"PostgreSQL": "18", RAMD: "1", PATRONI: "1"}
    page = made.text()
    assert "The stacks shared the machine" in page
    assert "| server crash | Patroni | 1 | 200 |" in page
    assert "shared the machine" not in report().text()


def test_a_process_that_leaves_nothing_is_a_failure() -> None:
    plan, made = together(RAMD)
    measure_together(plan, made, (sys.executable, "-c", "raise SystemExit(3)"))
    assert [one.failed for one in made.failures()] == ["its process ended with 3 and left nothing"]


def test_what_is_measured_when_the_run_is_cut_short_is_kept(tmp_path: Path) -> None:
    plan, made = together(RAMD)
    ready = tmp_path / "ready"
    code = f"{PART}\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"

    def cut() -> None:
        wait_for(ready.exists, 30, "the process is at work")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            measure_together(plan, made, (sys.executable, "-c", code))
    finally:
        signal.signal(signal.SIGINT, before)
    assert [one.outage_ms for one in made.samples] == [200]


class Unformed:
    """A stack that never comes to be."""

    name = RAMD

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        raise ClusterError("no")

    def keep_logs(self, into: Path) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_is_left_of_a_visit_that_failed_gets_another_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "make_stack", Unformed)
    plan = parse(["--rounds", "3", "--rounds-per-visit", "2", "--stacks", "ramd"])
    made = Report(terms=plan.terms, versions={})
    failover.measure_by_turns(plan, None, made)
    assert [one.number for one in made.failures()] == [0, 1, 2]


def test_a_signal_during_the_cleaning_up_is_heard_after_it() -> None:
    done: list[str] = []

    def close() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("closed")

    # Whoever started the tests in the background may have had this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            failover.undisturbed(close)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["closed"]
    failover.undisturbed(lambda: done.append("again"))
    assert done == ["closed", "again"]
