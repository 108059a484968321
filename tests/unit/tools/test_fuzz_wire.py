"""The fuzzer finds what is wrong, replays it, and finds nothing today."""

import random

import pytest

from pgraft import wire
from pgraft.wire import Frame
from tools import fuzz_wire


def test_a_thousand_cases_break_no_promise() -> None:
    assert {fuzz_wire.run(3, number) for number in range(1000)} == set(fuzz_wire.CASES)


def test_a_case_is_the_same_each_time() -> None:
    drawn = [fuzz_wire.damage(random.Random("1/5"), bytes(100)) for _ in range(2)]
    assert drawn[0] == drawn[1] != bytes(100)


def test_another_exception_is_found_and_can_be_replayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(body: bytes) -> Frame:
        raise KeyError("a bug")

    monkeypatch.setattr(wire, "decode", broken)
    assert fuzz_wire.main(["--seed", "4", "--seconds", "5"]) == 1
    out = capsys.readouterr().out
    assert "KeyError in case 0" in out
    assert "--seed 4 --case 0" in out
    monkeypatch.undo()
    assert fuzz_wire.main(["--seed", "4", "--case", "0"]) == 0


def test_a_hello_that_accepts_altered_bytes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: True)
    greetings = range(2, 20_000, len(fuzz_wire.CASES))
    with pytest.raises(fuzz_wire.Broken, match="was altered and accepted"):
        all(fuzz_wire.run(1, number) for number in greetings)
