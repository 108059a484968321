"""The syntax of a configuration file: what a line means, and that no text can break the reader."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramd.config.faults import InvalidConfigError
from ramd.config.lines import FILE_BYTES_MAX, parse, quoted, read_text
from ramd.domain.errors import ConfigError


def values(text: str) -> dict[str, str]:
    lines = parse(text, "f")
    assert lines.faults == ()
    return {key: setting.value for key, setting in lines.settings.items()}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("a = b", "b"),
        ("a=b", "b"),
        ("  a   =   b c  ", "b c"),
        ("a =", ""),
        ("a = # nothing", ""),
        ("a = b # comment", "b"),
        ("a = b ; comment", "b"),
        ("a = b#c;d", "b#c;d"),
        ("a = x=y", "x=y"),
        ("a = 100%", "100%"),
        ('a = "b # c"', "b # c"),
        ("a = 'b ; c' # comment", "b ; c"),
        (r'a = "say \"hi\" \\"', 'say "hi" \\'),
        (r"a = 'C:\x'", r"C:\x"),
        ('a = ""', ""),
        ("a = it's", "it's"),
    ],
)
def test_value_of_a_line(line: str, value: str) -> None:
    assert values(line) == {"a": value}


def test_comments_blank_lines_and_line_ends_are_skipped() -> None:
    text = "# x\n; y\r\n\r\n  \t\na = 1\r\nb = 2\rc = 3"
    lines = parse(text, "f")
    assert [(s.key, s.value, s.origin.line) for s in lines.settings.values()] == [
        ("a", "1", 5),
        ("b", "2", 6),
        ("c", "3", 7),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[ramd]", "section"),
        ("just words", "no '='"),
        ("= 3", "not the name of a key"),
        ("a-b = 3", "not the name of a key"),
        ('a = "open', "quotes"),
        ("a = 'b' c", "quotes"),
        ("a = b\0c", "NUL"),
    ],
)
def test_faulty_line_is_named(line: str, says: str) -> None:
    lines = parse(f"# first\n{line}\n", "my.conf")
    assert len(lines.faults) == 1
    assert str(lines.faults[0]).startswith("my.conf:2: ")
    assert says in str(lines.faults[0])


def test_duplicate_names_both_lines_and_keeps_the_first() -> None:
    lines = parse("a = 1\n\na = 2\n", "f")
    assert [str(fault) for fault in lines.faults] == [
        "f:3: a: is set twice, first in line 1; keep one of the two"
    ]
    assert lines.settings["a"].value == "1"


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader_and_every_fault_has_its_line(text: str) -> None:
    lines = parse(text, "f")
    for fault in lines.faults:
        assert fault.origin.line >= 1
        assert "\n" not in str(fault)
        assert str(fault).startswith(f"f:{fault.origin.line}: ")
    for setting in lines.settings.values():
        assert setting.origin.line >= 1


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=100))
def test_a_quoted_value_is_read_back(value: str) -> None:
    lines = parse(f"k = {quoted(value)}", "f")
    assert lines.faults == ()
    assert lines.settings["k"].value == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_what_no_line_can_hold_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="line break or NUL"):
        quoted(value)


def test_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    absent = tmp_path / "absent.conf"
    with pytest.raises(InvalidConfigError, match=r"absent\.conf: cannot be read \(No such file"):
        read_text(absent)
    with pytest.raises(InvalidConfigError, match="Is a directory"):
        read_text(tmp_path)
    latin = tmp_path / "latin.conf"
    latin.write_bytes(b"a = 1\nb = \xe9\n")
    with pytest.raises(InvalidConfigError, match=r"latin\.conf:2: is not UTF-8"):
        read_text(latin)
    large = tmp_path / "large.conf"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(InvalidConfigError, match="larger than"):
        read_text(large)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "bom.conf"
    file.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert values(read_text(file)) == {"a": "1"}


def test_all_faults_are_one_error_in_order_of_lines() -> None:
    lines = parse("a\nb\n", "f")
    error = InvalidConfigError(reversed(lines.faults))
    assert isinstance(error, ConfigError)
    assert error.code == "config"
    assert [fault.origin.line for fault in error.faults] == [1, 2]
    assert error.message.count("\n") == 1
