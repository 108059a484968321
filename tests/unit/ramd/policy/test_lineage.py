"""Lineage by the record: the line, branches off it, and how servers get back onto it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.domain.lsn import LSN_MAX, Lsn
from ramd.domain.model import Reign, StartMode
from ramd.domain.observation import Position
from ramd.policy.lineage import Kind, Rejoin, how_to_rejoin, line, reach, standing


def opened(timeline: int = 1) -> Reign:
    return Reign(epoch=1, node_id=1, timeline=timeline, start=StartMode.OPEN)


def promoted(
    epoch: int, timeline: int, parent: int, *, seal: int = 0, fork: int | None = None
) -> Reign:
    return Reign(
        epoch=epoch,
        node_id=epoch,
        timeline=timeline,
        start=StartMode.PROMOTE,
        parent_timeline=parent,
        seal_lsn=Lsn(seal) if seal else None,
        fork_lsn=None if fork is None else Lsn(fork),
    )


def at(timeline: int, lsn: int) -> Position:
    return Position(timeline=timeline, lsn=Lsn(lsn))


# 1 -100-> 2 -200-> 4, and 3 left 2 at 150 but nobody went on from it.
HISTORY = (
    opened(),
    promoted(2, 2, 1, seal=100, fork=100),
    promoted(3, 3, 2, seal=150, fork=150),
    promoted(4, 4, 2, seal=200, fork=200),
)


def test_the_line_is_the_chain_of_parents() -> None:
    assert [(s.timeline, s.end) for s in line(HISTORY)] == [(4, LSN_MAX), (2, 200), (1, 100)]
    assert line(()) == ()


@pytest.mark.parametrize(
    ("position", "kind", "fork"),
    [
        (at(4, 999), Kind.ON_LINE, None),
        (at(2, 200), Kind.ON_LINE, None),
        (at(2, 201), Kind.DIVERGED, 200),
        (at(1, 100), Kind.ON_LINE, None),
        (at(1, 101), Kind.DIVERGED, 100),
        # Part of epoch 3, though its position is lower than where that left the line.
        (at(3, 120), Kind.DIVERGED, 150),
        (at(3, 180), Kind.DIVERGED, 150),
        (at(9, 1), Kind.UNKNOWN, None),
    ],
)
def test_standing(position: Position, kind: Kind, fork: int | None) -> None:
    found = standing(HISTORY, position)
    assert (found.kind, found.fork_lsn) == (kind, fork)


def test_a_branch_of_a_branch_leaves_the_line_where_the_first_did() -> None:
    history = (
        *HISTORY[:3],
        promoted(4, 4, 3, seal=160, fork=160),
        promoted(5, 5, 2, seal=120, fork=120),
    )
    found = standing(history, at(4, 500))
    # It left the line with timeline 3 at 150, but the line itself had gone on at 120 already.
    assert (found.kind, found.fork_lsn) == (Kind.DIVERGED, 120)


def test_a_branch_whose_beginning_is_forgotten_is_unknown() -> None:
    history = (promoted(7, 7, 6, fork=10), promoted(8, 8, 5, fork=20))
    assert standing(history, at(7, 5)).kind is Kind.UNKNOWN


def test_a_branch_off_the_present_timeline_itself() -> None:
    """Cannot be, but must not break the judge."""
    history = (promoted(1, 3, 5, fork=10), opened(5))
    assert standing(history, at(3, 5)).fork_lsn == 10


def test_a_fork_not_recorded_leaves_the_election_as_the_bound() -> None:
    history = (opened(), promoted(2, 2, 1, seal=100))
    assert standing(history, at(1, 100)).kind is Kind.ON_LINE
    beyond = standing(history, at(1, 101))
    assert (beyond.kind, beyond.awaits_epoch) == (Kind.UNKNOWN, 2)
    nothing_known = (opened(), promoted(2, 2, 1))
    assert standing(nothing_known, at(1, 1)).kind is Kind.UNKNOWN


def test_an_incomplete_record_past_the_fork_is_still_on_the_line() -> None:
    history = (opened(), promoted(2, 2, 1, seal=100, fork=80))
    assert standing(history, at(1, 100)).kind is Kind.ON_LINE
    found = standing(history, at(1, 101))
    assert (found.kind, found.fork_lsn) == (Kind.DIVERGED, 80)


# --- rejoining ---------------------------------------------------------------------------------


def test_rejoining_follows_the_standing() -> None:
    assert how_to_rejoin(HISTORY, at(2, 150), me=9).how is Rejoin.PLAIN
    assert how_to_rejoin(HISTORY, at(2, 201), me=2).how is Rejoin.REWIND
    assert how_to_rejoin(HISTORY, at(3, 151), me=3).how is Rejoin.REWIND
    assert how_to_rejoin(HISTORY, at(9, 1), me=2).how is Rejoin.CLONE
    assert how_to_rejoin(HISTORY, None, me=2).how is Rejoin.CLONE
    assert how_to_rejoin((), at(1, 1), me=2).how is Rejoin.WAIT


def test_a_former_primary_without_a_recorded_fork_is_cloned_whatever_it_holds() -> None:
    # Attacks C8. Timeline 2 is even part of the line here: node 3 went on from it.
    history = (opened(), promoted(2, 2, 1, seal=100), promoted(3, 3, 2, seal=150, fork=150))
    assert how_to_rejoin(history, at(2, 120), me=2).how is Rejoin.CLONE
    # Somebody who received the same from it is judged by the line.
    assert how_to_rejoin(history, at(2, 120), me=4).how is Rejoin.PLAIN
    # Once it has been cloned it is like anybody else.
    assert how_to_rejoin(history, at(3, 160), me=2).how is Rejoin.PLAIN


def test_the_first_primary_needs_no_fork() -> None:
    history = (opened(), promoted(2, 2, 1, seal=100, fork=100))
    assert how_to_rejoin(history, at(1, 90), me=1).how is Rejoin.PLAIN


def test_only_the_present_primary_is_waited_for() -> None:
    history = (opened(), promoted(2, 2, 1, seal=100))
    assert how_to_rejoin(history, at(1, 120), me=3).how is Rejoin.WAIT
    later = (*history, promoted(3, 3, 2, seal=150))
    assert how_to_rejoin(later, at(1, 120), me=3).how is Rejoin.CLONE


def test_what_lies_behind_a_fork_is_not_compared() -> None:
    """A node elected at 300 had complete records to 280 only; another one received up to 290."""
    forked = (opened(), promoted(2, 2, 1, seal=300, fork=280))
    assert reach(forked, at(1, 290)) == 280
    assert reach(forked, at(1, 270)) == 270
    assert reach(forked, at(2, 285)) == 285
    assert reach(forked, at(1, 310)) == 310, "off the line: nobody compares it"
    assert reach(forked, at(7, 290)) == 290


def test_a_fork_that_is_not_recorded_lies_before_all_of_its_timeline() -> None:
    begun = (opened(), promoted(2, 2, 1, seal=300))
    assert reach(begun, at(1, 290)) == 290
    assert reach(begun, at(1, 290), [at(1, 290), at(2, 285), at(9, 1)]) == 284
    assert reach(begun, at(1, 270), [at(2, 285)]) == 270


SMALL = st.integers(0, 6)
REIGNS = st.lists(
    st.builds(
        Reign,
        epoch=SMALL,
        node_id=SMALL,
        timeline=SMALL,
        start=st.sampled_from(StartMode),
        parent_timeline=st.none() | SMALL,
        fork_lsn=st.none() | SMALL.map(Lsn),
        seal_lsn=st.none() | SMALL.map(Lsn),
    ),
    max_size=6,
)


@given(REIGNS, st.builds(at, SMALL, SMALL), SMALL)
def test_the_judge_is_total(reigns: list[Reign], position: Position, me: int) -> None:
    found = standing(reigns, position)
    assert found.reason
    assert (found.fork_lsn is not None) == (found.kind is Kind.DIVERGED)
    advice = how_to_rejoin(reigns, position, me=me)
    assert advice.reason
    if advice.how is Rejoin.PLAIN:
        assert found.kind is Kind.ON_LINE
    if found.kind is Kind.DIVERGED:
        assert advice.how in (Rejoin.REWIND, Rejoin.CLONE)
