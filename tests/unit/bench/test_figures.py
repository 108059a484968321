"""Figures of the benchmarks: order statistics, and what is computed from them."""

from __future__ import annotations

import pytest

from bench.failover import NODE_LOST, SERVER_CRASH, Report
from bench.figures import Series, table


@pytest.mark.parametrize(
    ("values", "median", "p90"),
    [
        ([5.0], 5.0, 5.0),
        ([3.0, 1.0], 2.0, 3.0),
        ([float(n) for n in range(10, 0, -1)], 5.5, 9.0),
        ([float(n) for n in range(1, 12)], 6.0, 10.0),
    ],
)
def test_median_and_the_value_that_nine_of_ten_do_not_exceed(
    values: list[float], median: float, p90: float
) -> None:
    series = Series.of(values)
    assert (series.median, series.p90, series.highest) == (median, p90, max(values))


def test_nothing_measured_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Series.of([])


def test_a_table_has_one_line_for_each_row() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def report() -> Report:
    made = Report(floor_ms=[100.0, 100.0], create_s=5.0, lease_ms=3000)
    made.faults[SERVER_CRASH].outage_ms += [400.0, 600.0]
    made.faults[NODE_LOST].outage_ms += [3300.0]
    for fault in made.faults.values():
        fault.rejoin_s.append(1.0)
        fault.lost += [0, 2]
    return made


def test_the_lease_of_a_lost_node_is_not_held_against_the_floor() -> None:
    assert report().ratio(SERVER_CRASH) == pytest.approx(5.0)
    assert report().ratio(NODE_LOST) == pytest.approx(3.0)


def test_the_report_shows_every_fault_for_people_and_for_machines() -> None:
    page, figures = report().markdown(), report().figures()
    assert "| server crash | 2 | 500 | 600 | 600 | 5.0 | 1.0 (max 1.0) | 2 |" in page
    crash = figures["server_crash"]
    assert isinstance(crash, dict)
    assert (crash["rows_lost"], crash["runs_with_rows_lost"]) == (2, 1)
