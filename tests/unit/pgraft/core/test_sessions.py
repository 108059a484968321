"""What is remembered of proposers (thesis §6.3)."""

from hypothesis import given
from hypothesis import strategies as st

from pgraft.core.limits import SESSION_OPEN_MAX, SESSIONS_MAX
from pgraft.core.sessions import Sessions, admit
from pgraft.core.types import NO_ORIGIN, Origin, Session
from tests.support.raft_lab import Lab


def feed(*origins: Origin, sessions: Sessions = ()) -> tuple[Sessions, list[bool]]:
    fresh = []
    for origin in origins:
        sessions, new = admit(sessions, origin)
        fresh.append(new)
    return sessions, fresh


def of(*serials: int, session: int = 7, floor: int = 0) -> list[Origin]:
    return [Origin(session=session, serial=serial, floor=floor) for serial in serials]


def test_without_a_session_nothing_is_remembered() -> None:
    assert feed(NO_ORIGIN, NO_ORIGIN) == ((), [True, True])


def test_a_command_is_fresh_once() -> None:
    sessions, fresh = feed(*of(1, 2, 1, 2, 3))
    assert fresh == [True, True, False, False, True]
    assert sessions == (Session(session=7, floor=3),)


def test_commands_out_of_order_are_told_apart_one_by_one() -> None:
    sessions, fresh = feed(*of(3, 5, 3, 1))
    assert fresh == [True, True, False, True]
    assert sessions == (Session(session=7, floor=1, done=(3, 5)),)
    assert feed(*of(2, 4), sessions=sessions)[0] == (Session(session=7, floor=5),)


def test_what_the_proposer_gave_up_is_not_applied_when_it_comes_late() -> None:
    sessions, fresh = feed(*of(5, floor=4), *of(2))
    assert fresh == [True, False]
    assert sessions == (Session(session=7, floor=5),)


def test_a_duplicate_may_still_raise_the_floor() -> None:
    sessions, _ = feed(*of(1, 9), *of(9, floor=8))
    assert sessions == (Session(session=7, floor=9),)


def test_sessions_do_not_touch_each_other() -> None:
    _, fresh = feed(*of(1, session=1), *of(1, session=2), *of(1, session=1))
    assert fresh == [True, True, False]


def test_the_session_that_was_silent_longest_is_forgotten() -> None:
    origins = [Origin(session=n, serial=1) for n in range(1, SESSIONS_MAX + 1)]
    sessions, _ = feed(*origins, *of(2, session=1), *of(1, session=1000))
    assert len(sessions) == SESSIONS_MAX
    assert {1, 1000} <= {s.session for s in sessions}
    assert 2 not in {s.session for s in sessions}


def test_what_is_open_in_a_session_is_bounded() -> None:
    """The oldest gap is given up: what was meant for it comes out as a duplicate."""
    sessions, _ = feed(*of(*range(2, SESSION_OPEN_MAX + 10)))
    assert len(sessions[0].done) <= SESSION_OPEN_MAX
    assert feed(*of(1), sessions=sessions)[1] == [False]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 8)), max_size=40))
def test_whatever_the_order_each_is_applied_once(sent: list[tuple[int, int]]) -> None:
    applied = []
    sessions: Sessions = ()
    for session, serial in sent:
        sessions, fresh = admit(sessions, Origin(session=session, serial=serial))
        if fresh:
            applied.append((session, serial))
    assert len(applied) == len(set(applied))
    assert set(applied) == set(sent)


def test_a_retry_comes_out_as_a_noop_of_the_same_place_on_everybody() -> None:
    lab = Lab(1, 2, 3)
    lab.elect(1)
    origin = Origin(session=5, serial=1)
    for _ in range(2):
        place = lab[1].propose(b"once", lab.now, origin)
        lab.pump(1)
        lab.settle()
    for node in (1, 2, 3):
        assert lab.commands(node) == [b"once"]
        last = lab.members[node].applied[-1]
        assert ((last.term, last.index), last.kind.name, last.data) == (place, "NOOP", b"")


def test_it_is_remembered_across_a_snapshot() -> None:
    lab = Lab(1)
    lab.elect(1)
    origin = Origin(session=5, serial=1)
    lab[1].propose(b"once", lab.now, origin)
    lab.pump(1)
    lab.compact(1)
    lab.restart(1)
    lab.elect(1)
    lab[1].propose(b"once", lab.now, origin)
    lab.pump(1)
    assert lab.commands(1) == [b"once"]
