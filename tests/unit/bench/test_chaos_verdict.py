"""The verdict of the chaos run: for each rule a history that keeps it and one that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.chaos.history import Ack, Copy, Final, History, Work
from bench.chaos.verdict import judge, judge_answers, late

SUMS = (("rows", 3, "17"),)


def ack(number: int, at_s: float, *, timeline: int = 1, took_s: float = 0.1, **more: int) -> Ack:
    """A row by client 101, sent at `at_s`."""
    return Ack(
        client=101,
        number=number,
        work=Work.INSERT,
        node=timeline,
        timeline=timeline,
        sent_s=at_s,
        received_s=at_s + took_s,
        **more,
    )


def count(value: int, at_s: float, *, timeline: int = 1, took_s: float = 0.1) -> Ack:
    """Counter 1 was moved to `value`."""
    one = ack(1000 + value, at_s, timeline=timeline, took_s=took_s, counter=1, value=value)
    return replace(one, work=Work.COUNT)


def copy(node: int) -> Copy:
    return Copy(node=node, timeline=2, lineage="1 0/3000000", sums=SUMS)


def final(*rows: int, counter: int = 0) -> Final:
    """Three equal servers, the primary with these rows of client 101 once each."""
    return Final(
        primary=1,
        rows={(101, number, 0): 1 for number in rows},
        counters={1: counter},
        copies=(copy(1), copy(2), copy(3)),
        balances=(5, 5, 5, 5),
    )


def rules(history: History, end: Final) -> list[str]:
    return [violation.rule for violation in judge(history, end)]


# --- rows ----------------------------------------------------------------------------------------


def test_all_is_well_when_everything_acknowledged_is_there_once() -> None:
    history = History(acks=[ack(1, 0), ack(2, 1), count(1, 2), ack(3, 5, timeline=2)])
    history.unknown = {(101, 4): Work.INSERT, (101, 5): Work.INSERT}
    assert judge(history, final(1, 2, 3, 4, counter=1)) == []


def test_an_acknowledged_row_that_is_missing_is_lost() -> None:
    (found,) = judge(History(acks=[ack(1, 0), ack(2, 1)]), final(2))
    assert (found.rule, found.count) == ("lost", 1)
    assert "insert 101/1 by node 1" in str(found)


def test_a_counter_that_ends_below_what_was_acknowledged_is_lost() -> None:
    assert rules(History(acks=[count(7, 0)]), final(counter=6)) == ["lost"]


def test_an_acknowledged_transaction_of_which_a_row_is_missing_is_lost() -> None:
    whole = replace(ack(1, 0), work=Work.TRANSACTION)
    end = final(1)
    assert rules(History(acks=[whole]), end) == ["lost"]
    end.rows[101, 1, 1] = 1
    assert rules(History(acks=[whole]), end) == []


def test_a_row_that_its_client_was_told_is_not_there() -> None:
    assert rules(History(acks=[ack(1, 0)]), final(1, 2)) == ["refused and yet there"]


def test_a_transaction_without_an_answer_is_there_whole_or_not_at_all() -> None:
    history = History(unknown={(101, 1): Work.TRANSACTION, (101, 2): Work.TRANSACTION})
    assert rules(history, final()) == []
    assert rules(history, final(1)) == ["torn transaction"]


def test_a_row_that_is_there_twice() -> None:
    end = final(1)
    end.rows[101, 1, 0] = 2
    assert rules(History(acks=[ack(1, 0)]), end) == ["there twice"]


# --- what was acknowledged --------------------------------------------------------------------


def test_a_value_of_a_counter_is_given_once() -> None:
    both = [count(1, 0, took_s=2), count(1, 1, timeline=2, took_s=2)]
    assert [one.rule for one in judge_answers(History(acks=both))] == ["value acknowledged twice"]


def test_a_count_that_forgets_an_acknowledged_one_is_out_of_order() -> None:
    acks = [count(5, 0), count(4, 1)]
    assert [one.rule for one in judge_answers(History(acks=acks))] == ["counted out of order"]


def test_counts_that_overlap_may_come_in_any_order() -> None:
    assert judge_answers(History(acks=[count(5, 0, took_s=3), count(4, 1)])) == []


def test_nothing_is_acknowledged_on_an_earlier_timeline_once_a_later_one_has() -> None:
    acks = [ack(1, 0), ack(2, 4, timeline=2), ack(3, 4.2, timeline=1)]
    (found,) = judge_answers(History(acks=acks))
    assert (found.rule, found.count) == ("two primaries acknowledged", 1)
    assert "0.100 s late" in found.cases[0]


@pytest.mark.parametrize("took_s", [0.05, 60.0])
def test_an_answer_that_was_under_way_is_no_second_primary(took_s: float) -> None:
    acks = [ack(1, 3.9, took_s=took_s), ack(2, 3.95, timeline=2)]
    assert judge_answers(History(acks=acks)) == []
    assert late(acks) == (took_s == 60.0)


def test_many_cases_of_a_rule_are_one_violation_that_shows_a_few() -> None:
    (found,) = judge(History(acks=[ack(number, number) for number in range(9)]), final())
    assert (found.count, len(found.cases)) == (9, 5)


# --- the servers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        replace(copy(3), sums=(("rows", 3, "18"),)),
        replace(copy(3), timeline=1),
        replace(copy(3), lineage="1 0/2FFFFFF"),
    ],
)
def test_copies_that_differ(other: Copy) -> None:
    end = replace(final(), copies=(copy(1), copy(2), other))
    (found,) = judge(History(), end)
    assert found.rule == "copies differ"
    assert "node 3" in found.cases[0]


def test_balances_that_do_not_add_up() -> None:
    assert rules(History(), replace(final(), balances=(5, 5, 4, 5))) == ["balances differ"]
