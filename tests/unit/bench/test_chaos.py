"""The chaos run's plan, its figures, its command line, and what a victim looks like."""

from __future__ import annotations

import itertools

import psycopg
import pytest

from bench.chaos.__main__ import parse
from bench.chaos.availability import Begun, available, by_fault, outages
from bench.chaos.clients import undone
from bench.chaos.harm import fits
from bench.chaos.history import Ack, History, Work
from bench.chaos.plan import INSTANT, ROLES, WEIGHTS, Kind, Role, Step, Terms, draw
from bench.chaos.report import Findings, text
from bench.chaos.switchovers import why
from bench.chaos.verdict import Violation

MANY = 2000


def steps(seed: int, terms: Terms | None = None, count: int = MANY) -> list[Step]:
    return list(itertools.islice(draw(seed, terms or Terms()), count))


# --- the plan ------------------------------------------------------------------------------------


def test_a_seed_is_a_plan() -> None:
    assert steps(7) == steps(7)
    assert steps(7) != steps(8)


def test_every_kind_comes_to_every_role_it_may_hit() -> None:
    assert WEIGHTS.keys() == set(Kind)
    seen = {(step.kind, step.role) for step in steps(1)}
    for kind in Kind:
        roles = {ROLES[kind]} if kind in ROLES else {Role.PRIMARY, Role.REPLICA}
        assert {role for of, role in seen if of is kind} == roles


def test_holds_and_pauses_keep_to_the_terms() -> None:
    terms = Terms(hold_s_max=5)
    for step in steps(3, terms):
        assert 0 <= step.hold_s <= 5
        assert 0 <= step.second_hold_s <= 5
        assert step.pause_s > 0
        assert (step.hold_s > 0) <= (step.kind not in INSTANT)
    longest = max(step.hold_s for step in steps(3, terms))
    assert longest > 4, "also such that outlast a lease"
    assert {step.settles for step in steps(3)} == {True, False}


def test_a_calm_plan_waits_after_every_fault_and_is_otherwise_the_same() -> None:
    calm = steps(4, Terms(calm=True), 50)
    assert all(step.settles for step in calm)
    assert [step.kind for step in calm] == [step.kind for step in steps(4, count=50)]


def test_soak_kills_servers_and_nodes_one_after_the_other() -> None:
    options, keep = parse(["--soak", "--minutes", "3"])
    assert options.terms.calm
    assert {step.kind for step in steps(5, options.terms)} == {Kind.SERVER_KILLED, Kind.NODE_KILLED}
    assert not keep


def test_the_command_that_is_printed_replays_the_plan() -> None:
    options, _ = parse(["--minutes", "3", "--hold-s", "2"])
    again, _ = parse(options.command.split()[3:])
    assert (again.seed, again.terms, again.minutes) == (options.seed, options.terms, 3)


# --- victims and answers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("postgres: postgres postgres 127.0.0.1(4711) INSERT", {Kind.BACKEND_KILLED}),
        (
            "postgres: walsender postgres 127.0.0.1(4712) streaming 0/3951B18",
            {Kind.WALSENDER_KILLED, Kind.WALSENDER_FROZEN},
        ),
        (
            "postgres: walreceiver streaming 0/3951B18",
            {Kind.WALRECEIVER_KILLED, Kind.WALRECEIVER_FROZEN},
        ),
        ("postgres: checkpointer", set()),
    ],
)
def test_a_victim_is_known_by_what_it_calls_itself(title: str, kinds: set[Kind]) -> None:
    single = {Kind.BACKEND_KILLED, Kind.WALSENDER_KILLED, Kind.WALSENDER_FROZEN}
    single |= {Kind.WALRECEIVER_KILLED, Kind.WALRECEIVER_FROZEN}
    assert {kind for kind in single if fits(kind, title)} == kinds
    assert fits(Kind.CHILD_KILLED, title)
    assert not fits(Kind.CHILD_KILLED, "/usr/lib/postgresql/bin/postgres -D /data")


def test_why_a_switchover_was_refused() -> None:
    obstacles = [{"code": "lags", "reason": "…"}, {"code": "silent"}, {"code": "lags"}]
    refused = {"message": "no", "details": {"error": "conflict", "obstacles": obstacles}}
    assert why(refused) == "conflict: lags, silent"
    assert why({"message": "no quorum here", "error": "no_quorum"}) == "no_quorum: no quorum here"


def test_only_an_error_of_the_server_says_that_nothing_was_committed() -> None:

    assert not undone(psycopg.OperationalError("the connection was closed"))


# --- figures -------------------------------------------------------------------------------------


def test_availability_counts_slots_with_an_acknowledgement() -> None:
    times = [0.01, 0.02, 0.55, 0.95, 7.0]
    assert available(times, 0.0, 1.0) == pytest.approx(0.3)
    assert available([], 0.0, 1.0) == 0
    assert available(times, 1.0, 1.0) == 0


def test_outages_are_the_long_gaps_and_the_open_ends() -> None:
    gaps = outages([1.0, 1.1, 5.0, 5.2], 0.0, 9.0)
    assert [(gap.from_s, gap.until_s) for gap in gaps] == [(0.0, 1.0), (1.1, 5.0), (5.2, 9.0)]


def test_an_outage_belongs_to_the_fault_that_came_last_before_it() -> None:
    faults = [
        Begun(at_s=1.0, kind=Kind.NODE_KILLED, role=Role.PRIMARY),
        Begun(at_s=3.0, kind=Kind.SWITCHOVER, role=Role.REPLICA),
        Begun(at_s=7.05, kind=Kind.SERVER_KILLED, role=Role.REPLICA),
    ]
    gaps = outages([0.5, 1.05, 4.5, 4.6, 7.0, 7.5, 7.6], 0.0, 7.6)
    found = by_fault(gaps, faults)
    assert found[""] == pytest.approx([0.5, 0.55])
    assert found["node killed, primary"] == pytest.approx([3.45])
    assert found["switchover"] == pytest.approx([2.4])
    assert found["server killed, replica"] == pytest.approx([0.5])


def test_the_longest_outages_name_their_step() -> None:
    findings = Findings(command="", judged=True)
    findings.storm.from_s, findings.storm.until_s = 10.0, 15.0
    fault = Begun(at_s=10.2, kind=Kind.NODE_KILLED, role=Role.PRIMARY, number=7)
    findings.storm.faults.append(fault)
    assert "longest: 4.9 s after 7 (node killed, primary)" in text(findings, answered())


def answered() -> History:
    one = Ack(
        client=101, number=1, work=Work.INSERT, node=1, timeline=1, sent_s=10, received_s=10.1
    )
    return History(acks=[one])


def test_a_page_says_that_all_is_well_only_if_it_was_judged() -> None:
    findings = Findings(command="replay me")
    findings.storm.from_s, findings.storm.until_s = 10.0, 11.0
    assert "losses would not be seen" in text(findings, answered())
    findings.judged = True
    page = text(findings, answered())
    assert not findings.failed
    assert "verdict: nothing lost, nothing acknowledged twice" in page
    assert "replay me" not in page


def test_a_page_names_violations_and_how_to_replay() -> None:
    findings = Findings(command="replay me", judged=True)
    findings.violations.append(Violation(rule="lost", count=3, cases=("row 1",)))
    page = text(findings, answered())
    assert findings.failed
    assert "VIOLATION lost: 3 (row 1)" in page
    assert "replay the plan: replay me" in page


def test_a_loss_with_asynchronous_replication_is_shown_and_no_failure() -> None:
    findings = Findings(command="", judged=True)
    findings.excused.append(Violation(rule="lost", count=3, cases=("row 1",)))
    page = text(findings, answered())
    assert not findings.failed
    assert "lost: 3" in page
    assert "nothing lost" not in page
