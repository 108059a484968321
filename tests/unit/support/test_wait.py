"""tests.support.wait: returns what it waited for, or ends by its deadline with a message."""

import pytest

from tests.support.wait import NotInTimeError, wait_for, wait_for_async


class Countdown:
    """Empty for a number of looks, then a value."""

    def __init__(self, looks: int, value: str) -> None:
        self.looks = looks
        self.value = value

    def __call__(self) -> str:
        self.looks -= 1
        return self.value if self.looks < 0 else ""

    async def later(self) -> str:
        return self()


def test_returns_the_first_true_value() -> None:
    assert wait_for(Countdown(3, "up"), 10, "the server") == "up"


def test_a_condition_already_true_needs_no_time() -> None:
    assert wait_for(Countdown(0, "up"), 0, "the server") == "up"


def test_says_what_it_waited_for_and_what_it_saw_last() -> None:
    with pytest.raises(NotInTimeError, match=r"0\.02 s: a primary \(last seen: ''\)"):
        wait_for(Countdown(10_000, "never"), 0.02, "a primary")


def test_what_the_condition_raises_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_for(lambda: 1 // 0, 10, "nothing")


async def test_async_takes_functions_and_coroutine_functions() -> None:
    assert await wait_for_async(Countdown(2, "a"), 10, "a function") == "a"
    assert await wait_for_async(Countdown(2, "b").later, 10, "a coroutine") == "b"


async def test_async_ends_by_its_deadline() -> None:
    with pytest.raises(NotInTimeError, match="a primary"):
        await wait_for_async(Countdown(10_000, "never").later, 0.02, "a primary")
