"""The comparison of failovers: what is concluded from acknowledgements, and how it is shown."""

from __future__ import annotations

import json
import signal

import pytest

from bench import failover
from bench.failover_report import Facts, Report
from bench.failover_rounds import AGENT, CRASH, FAULTS, KILLED, SWITCH, Sample, Terms, seen_by
from bench.failover_stacks import FASTEST, PATRONI, RAMD, STACKS
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
    plan = failover.parse([])
    assert (plan.stacks, plan.faults, plan.rounds) == (STACKS, FAULTS, 10)
    assert plan.terms == Terms(node_s=60, agent_s=90)
    assert plan.seconds() > 10 * len(STACKS) * 150


def test_stacks_and_faults_are_chosen_by_name() -> None:
    plan = failover.parse(["--stacks", "ramd,patroni-fastest", "--faults", "Server-Crash"])
    assert (plan.stacks, plan.faults) == (("RAMD", "Patroni fastest"), (CRASH,))
    with pytest.raises(SystemExit):
        failover.parse(["--stacks", "other"])


def test_synchronous_is_refused_where_it_would_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "ramd_knows_synchronous", lambda: False)
    with pytest.raises(SystemExit):
        failover.parse(["--synchronous"])
    assert failover.parse(["--synchronous", "--stacks", "patroni"]).terms.synchronous


def test_the_fastest_patroni_is_within_what_it_accepts() -> None:
    assert FASTEST.loop_wait + 2 * FASTEST.retry_timeout <= FASTEST.ttl


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
