"""Between two coordinators a quorum is not lost at once: a planned transfer is no loss of one."""

from ramd.link.handle import _Reach

MS = 1_000_000
GRACE_NS = 1200 * MS


def test_no_coordinator_was_ever_known() -> None:
    assert not _Reach(grace_ns=GRACE_NS).has_quorum(10**15)


def test_a_moment_without_a_coordinator_is_no_loss() -> None:
    reach = _Reach(grace_ns=GRACE_NS)
    reach.note(2, 5000 * MS, is_me=False)
    assert reach.has_quorum(90_000 * MS)
    reach.note(0, 90_000 * MS, is_me=False)
    assert reach.has_quorum(90_020 * MS)
    reach.note(1, 90_030 * MS, is_me=True)
    assert reach.has_quorum(99_000 * MS)
    assert reach.leading_since_ns == 90_030 * MS


def test_a_coordinator_that_hears_of_no_majority_knows_at_once() -> None:
    reach = _Reach(grace_ns=GRACE_NS)
    reach.note(1, 5000 * MS, is_me=True)
    reach.lost()
    reach.note(0, 6000 * MS, is_me=False)
    assert not reach.has_quorum(6000 * MS)
    reach.note(2, 6500 * MS, is_me=False)
    assert reach.has_quorum(6500 * MS)
    reach.note(0, 7000 * MS, is_me=False)
    assert reach.has_quorum(7000 * MS), "the next loss is a moment again"


def test_after_the_time_of_an_election_it_is() -> None:
    reach = _Reach(grace_ns=GRACE_NS)
    reach.note(2, 5000 * MS, is_me=False)
    reach.note(0, 6000 * MS, is_me=False)
    reach.note(0, 6900 * MS, is_me=False)  # told once more: counted from the first time
    assert reach.has_quorum(6000 * MS + GRACE_NS - 1)
    assert not reach.has_quorum(6000 * MS + GRACE_NS)
