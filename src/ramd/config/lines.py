"""The text of a configuration file → settings with their line numbers. Knows no key.

Syntax: one `key = value` on a line; empty lines and lines whose first character is `#` or `;` are
skipped; a value may stand in single or double quotes, and only then may it contain ` #` or ` ;`,
which otherwise begin a comment. Inside double quotes `\\"` and `\\\\` mean the character itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ramd.config.faults import Fault, InvalidConfigError, Origin, shown

FILE_BYTES_MAX = 1 << 20
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
TRAILING_COMMENT = re.compile(r"(?:^|\s)[#;].*\Z")
DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:[#;].*)?\Z')
SINGLE_QUOTED = re.compile(r"'([^']*)'\s*(?:[#;].*)?\Z")
ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One `key = value` and where it was written. The value has lost its quotes."""

    key: str
    value: str = field(repr=False)
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What a file says, key by key in file order, and what is wrong with its lines."""

    settings: dict[str, Setting]
    faults: tuple[Fault, ...]


def read_text(path: Path) -> str:
    """The file's text. Raises InvalidConfigError if it is unreadable, too large, or not UTF-8."""

    def refuse(wrong: str, right: str = "") -> InvalidConfigError:
        origin = Origin(source=str(path))
        return InvalidConfigError([Fault(origin=origin, key="", wrong=wrong, right=right)])

    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror})", "name a file with --config") from error
    if len(data) > FILE_BYTES_MAX:
        raise refuse(f"is larger than {FILE_BYTES_MAX} bytes", "is it a configuration file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        origin = Origin(source=str(path), line=line)
        fault = Fault(origin=origin, key="", wrong="is not UTF-8 text", right="save it as UTF-8")
        raise InvalidConfigError([fault]) from error


def parse(text: str, source: str) -> Lines:
    """Every setting and every faulty line of `text`; never raises.

    A key written twice is a fault that names both lines; the first value is kept.
    """
    settings: dict[str, Setting] = {}
    faults: list[Fault] = []
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        origin = Origin(source=source, line=number)
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        found = _setting(line, origin)
        if isinstance(found, Fault):
            faults.append(found)
        elif found.key in settings:
            first = settings[found.key].origin.line
            faults.append(
                Fault(
                    origin=origin,
                    key=found.key,
                    wrong=f"is set twice, first in line {first}",
                    right="keep one of the two",
                )
            )
        else:
            settings[found.key] = found
    return Lines(settings=settings, faults=tuple(faults))


def _setting(line: str, origin: Origin) -> Setting | Fault:
    if line.startswith("["):
        return Fault(
            origin=origin,
            key="",
            wrong=f"{shown(line)} looks like a section",
            right="the file is flat: remove the line",
        )
    key, equals, rest = line.partition("=")
    key = key.strip()
    if not equals:
        return Fault(
            origin=origin, key="", wrong=f"{shown(line)} has no '='", right="write key = value"
        )
    if not KEY.match(key):
        return Fault(
            origin=origin,
            key="",
            wrong=f"{shown(key)} is not the name of a key",
            right="write key = value, the key in letters, digits and '_'",
        )
    value = _value(rest.strip())
    if value is None:
        return Fault(
            origin=origin,
            key=key,
            wrong="the quotes of its value do not close, or text follows them",
            right='write key = "value"',
        )
    if "\0" in value:
        return Fault(
            origin=origin, key=key, wrong="its value holds a NUL character", right="remove it"
        )
    return Setting(key=key, value=value, origin=origin)


def _value(text: str) -> str | None:
    """The value without quotes and trailing comment; None if its quotes are faulty."""
    if text.startswith('"'):
        found = DOUBLE_QUOTED.match(text)
        return ESCAPE.sub(r"\1", found.group(1)) if found else None
    if text.startswith("'"):
        found = SINGLE_QUOTED.match(text)
        return found.group(1) if found else None
    return TRAILING_COMMENT.sub("", text).strip()


def quoted(value: str) -> str:
    """`value` as it must be written so that `parse` reads it back. Raises ValueError for text that
    no line can hold."""
    if re.search(r"[\r\n\0]", value):
        raise ValueError("a value cannot hold a line break or NUL")
    plain = value == value.strip() and not re.search(r"""[#;"'\\]""", value)
    if plain:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
