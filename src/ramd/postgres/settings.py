"""Lines of PostgreSQL's configuration files. Must not live here: what RAMD writes into them."""

from __future__ import annotations

import re

SETTING = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(?:=\s*|\s)(.*)$")
QUOTED = re.compile(r"'((?:[^'\\]|''|\\.)*)'")
ESCAPED = re.compile(r"''|\\([0-7]{1,3}|.)")
CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def parse_settings(text: str) -> dict[str, str]:
    """Active settings of a configuration file, the last of each name; includes are not followed."""
    found = {}
    for line in text.splitlines():
        match = SETTING.match(line)
        if match:
            found[match[1].lower()] = parse_value(match[2])
    return found


def parse_value(text: str) -> str:
    """The value at the beginning of `text`, without quotes, escapes (guc-file.l) or a comment."""
    quoted = QUOTED.match(text)
    if quoted is None:
        return re.sub(r"\s*#.*$", "", text).strip().strip("'")
    return ESCAPED.sub(_unescape, quoted[1])


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code is None:
        return "'"
    return chr(int(code, 8)) if code[0] in "01234567" else CONTROLS.get(code, code)
