"""Raft §5.4 and the failures of §5.5, one test per claim."""

import pytest

from pgraft.core.types import AppendReply, Index, NodeId, Term, VoteReply, VoteRequest
from tests.support.raft_lab import Lab, recovered


@pytest.mark.parametrize(
    ("mine", "theirs", "granted"),
    [
        ((1,), (1, 1), True),
        ((1,), (1, 2), True),
        ((1,), (2, 1), True),
        ((1, 1), (2, 1), True),
        ((1, 1), (1, 2), True),
        ((1, 1), (1, 1), False),
        ((1, 2), (1, 2), False),
        ((1, 2), (1, 3), False),
        ((1, 1, 2), (2, 2), False),
    ],
)
def test_5_4_1_a_vote_goes_only_to_a_log_at_least_as_up_to_date(
    mine: tuple[int, ...], theirs: tuple[int, int], granted: bool
) -> None:
    lab = Lab(1, 2, 3, logs={1: recovered(*mine)})
    last_term, last_index = theirs
    request = VoteRequest(term=Term(5), last_index=Index(last_index), last_term=Term(last_term))
    lab.send(2, 1, request)
    (letter,) = lab.take(VoteReply)
    assert isinstance(letter.message, VoteReply)
    assert letter.message.granted is granted
    assert lab.status(1).term == 5, "the term is taken over in any case"


def test_5_4_1_a_candidate_that_lacks_committed_entries_is_not_elected() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.isolate(3)
    lab.propose(1, b"a")
    lab.settle()
    lab.isolate(1)
    lab.cuts -= {(2, 3), (3, 2)}
    lab.elapse(5000, only=[3])
    assert lab.leaders() == [1]
    lab.elapse(5000, only=[2, 3])
    assert 2 in lab.leaders()
    assert lab.commands(3) == [b"a"]


OLD = 70
"""More entries than fit in one Append, so that the old ones arrive without the new one."""


def figure_8() -> Lab:
    """Figure 8 (c): 1 leads term 4 again, and its entries of term 2 have just reached 3.

    They are on three of five, but nothing of term 4 is, and 5 has an entry of term 3.
    """
    old = (1, *[2] * OLD)
    logs = {1: old, 2: old, 3: (1,), 4: (1,), 5: (1, 3)}
    lab = Lab(1, 2, 3, 4, 5, logs={n: recovered(*log, term=3) for n, log in logs.items()})
    lab.isolate(5)
    lab.cut(1, 4)
    lab.expire(1)
    for _ in range(20):
        lab.deliver_all()
        if lab.status(3).last_index > 1:
            break
    assert lab.leaders() == [1]
    assert lab.terms(3) == [1, *[2] * 64]
    for letter in lab.take(AppendReply, to=1):
        lab.deliver(letter)
    assert lab.status(1).match[NodeId(3)] == 65
    return lab


def test_5_4_2_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    lab = figure_8()
    assert lab.status(1).commit == 0
    lab.letters.clear()
    lab.crash(1)
    lab.crash(2)
    lab.heal()
    for _ in range(3):  # it first has to learn the term of 1
        lab.expire(5)
        lab.settle()
        if lab.leaders():
            break
    assert lab.leaders() == [5], "Figure 8 (d): so the old entries can still be overwritten"
    assert lab.terms(3)[:2] == [1, 3]


def test_5_4_2_the_first_entry_of_the_new_term_commits_the_older_ones_with_it() -> None:
    """Figure 8 (e)."""
    lab = figure_8()
    lab.settle()
    assert lab.status(1).commit == OLD + 2
    assert lab.terms(3) == [1, *[2] * OLD, 4]


def test_5_4_2_a_new_leader_appends_an_entry_of_its_own_at_once() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    assert lab.terms(1) == [1]
    assert lab.status(1).commit == 1


def test_5_5_a_crashed_follower_is_brought_up_again() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    disk = lab.crash(2)
    for data in (b"a", b"b"):
        lab.propose(1, data)
    lab.settle()
    lab.restart(2, disk)
    lab.beat(1)
    lab.beat(1)
    assert lab.commands(2) == [b"a", b"b"]


def test_5_5_the_whole_group_restarts_with_all_it_had_committed() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    lab.propose(1, b"a")
    lab.settle()
    for node in (1, 2, 3):
        lab.restart(node)
    lab.elapse(3000)
    assert len(lab.leaders()) == 1
    assert [lab.commands(node) for node in (1, 2, 3)] == [[b"a"]] * 3


def test_5_6_messages_may_come_late_twice_and_in_any_order() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    for data in (b"a", b"b", b"c"):
        lab.propose(1, data)
    lab.letters = lab.letters[::-1] + lab.letters
    lab.settle()
    lab.beat(1)
    assert [lab.commands(node) for node in (1, 2, 3)] == [[b"a", b"b", b"c"]] * 3
