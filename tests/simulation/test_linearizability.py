"""The search for a linear order: histories known to be good or bad, and every kind of small one."""

import itertools
import random

import pytest

from tests.simulation import linearizability
from tests.simulation.linearizability import Kind, Operation, Undecided, explain, linearizable, step


def read(asked: int, returned: int | None, result: int) -> Operation:
    return Operation(Kind.READ, asked, returned=returned, result=result)


def write(asked: int, returned: int | None, new: int) -> Operation:
    return Operation(Kind.WRITE, asked, new=new, returned=returned)


def cas(asked: int, returned: int | None, old: int, new: int, took: bool) -> Operation:
    return Operation(Kind.CAS, asked, old=old, new=new, returned=returned, result=int(took))


def add(asked: int, returned: int | None, new: int, total: int) -> Operation:
    return Operation(Kind.ADD, asked, new=new, returned=returned, result=total)


GOOD = {
    "nothing": [],
    "one after the other": [write(0, 1, 5), read(2, 3, 5), cas(4, 5, 5, 6, True), read(6, 7, 6)],
    "a read beside a write may see either": [
        write(0, 10, 5),
        read(1, 3, 0),
        read(4, 6, 5),
    ],
    "a write of unknown outcome shows late": [write(0, None, 5), read(1, 2, 0), read(8, 9, 5)],
    "a write of unknown outcome never shows": [write(0, None, 5), read(1, 2, 0), read(8, 9, 0)],
    "a cas that failed beside what made it fail": [write(0, 9, 5), cas(1, 8, 0, 7, False)],
    "sums in the order of their answers": [add(0, 9, 1, 3), add(0, 9, 2, 2)],
    "a read that never came back": [write(0, 1, 5), read(2, None, 99)],
    "an unknown add between two known ones": [
        add(0, 1, 1, 1),
        add(2, None, 5, 0),
        add(3, 4, 1, 7),
    ],
}
BAD = {
    "an old value after a newer was read": [
        write(0, 1, 1),
        write(2, 9, 2),
        read(3, 4, 2),
        read(5, 6, 1),
    ],
    "a write that came back does not show": [write(0, 1, 5), read(2, 3, 0)],
    "a value that nobody wrote": [read(0, 1, 7)],
    "two cas from the same value": [cas(0, 5, 0, 1, True), cas(0, 5, 0, 2, True)],
    "a cas that failed for nothing": [cas(0, 1, 0, 1, False), read(2, 3, 0)],
    "one add counted twice": [add(0, 1, 1, 1), add(2, 3, 1, 3)],
    "an unknown write shows before it was asked": [read(0, 1, 5), write(2, None, 5)],
    "an unknown write shows, is gone, and shows again": [
        write(0, None, 5),
        read(1, 2, 5),
        write(3, 4, 6),
        read(5, 6, 6),
        read(7, 8, 5),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_found_good(name: str) -> None:
    assert linearizable(GOOD[name]), explain(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found_bad(name: str) -> None:
    assert not linearizable(BAD[name]), explain(BAD[name])


def by_trying_everything(history: list[Operation]) -> bool:
    """Every subset that holds what came back, in every order that agrees with time."""
    known = [o for o in history if o.returned is not None]
    unknown = [o for o in history if o.returned is None and o.kind is not Kind.READ]
    for some in itertools.product((False, True), repeat=len(unknown)):
        chosen = known + [o for o, wanted in zip(unknown, some, strict=True) if wanted]
        if any(explains(order) for order in itertools.permutations(chosen)):
            return True
    return False


def explains(order: tuple[Operation, ...]) -> bool:
    state = 0
    for place, operation in enumerate(order):
        if any(
            later.returned is not None and later.returned < operation.asked
            for later in order[place:]
        ):
            return False
        following = step(state, operation)
        if following is None:
            return False
        state = following
    return True


def random_history(rng: random.Random) -> list[Operation]:
    history = []
    for _ in range(rng.randrange(1, 6)):
        asked = 2 * rng.randrange(6)
        returned = None if rng.random() < 0.2 else asked + 1 + 2 * rng.randrange(4)
        history.append(
            Operation(
                rng.choice(list(Kind)),
                asked,
                old=rng.randrange(2),
                new=rng.randrange(2),
                returned=returned,
                result=rng.randrange(3),
            )
        )
    return history


def test_it_agrees_with_trying_everything() -> None:
    rng = random.Random(1)
    verdicts = []
    for _ in range(1500):
        history = random_history(rng)
        verdicts.append(linearizable(history))
        assert verdicts[-1] == by_trying_everything(history), explain(history)
    assert verdicts.count(True) > 100
    assert verdicts.count(False) > 100


def test_a_search_that_grows_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizability, "CONFIGURATIONS_MAX", 1000)
    crowd = [write(0, 100, n) for n in range(1, 20)] + [read(0, 100, 99)]
    with pytest.raises(Undecided):
        linearizable(crowd)
