"""Lines of PostgreSQL's configuration files. Must not live here: what RAMD writes into them."""

from __future__ import annotations

import re

SETTING = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(?:=\s*|\s)(.*)$")


def parse_settings(text: str) -> dict[str, str]:
    """Active settings of a configuration file, the last of each name; includes are not followed."""
    found = {}
    for line in text.splitlines():
        match = SETTING.match(line)
        if match:
            value = re.sub(r"\s*#.*$", "", match[2]).strip()
            found[match[1].lower()] = value.strip("'")
    return found
