"""Figures of the benchmarks: order statistics, and what is computed from them."""

from __future__ import annotations

import pytest

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
