"""Every .txt beside this file is a story whose output must not change unnoticed."""

from pathlib import Path

import pytest

from tests.support.raft_script import play

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "a story says first what it shows and why"
    told = play(text)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(told, encoding="utf-8")
    else:
        assert told == text, "if the change is meant: pytest tests/scenarios/raft --rewrite"


def test_there_are_stories() -> None:
    assert STORIES


def test_an_unknown_verb_is_named() -> None:
    with pytest.raises(ValueError, match=r"no verb 'dance'; there are: .*elect"):
        play("> dance\n")


def test_a_story_whose_output_changed_is_noticed() -> None:
    text = "# Nothing.\n> nodes 1\n  2 nodes\n"
    assert play(text) != text
