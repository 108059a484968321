"""The quoting rules of each language PostgreSQL's files are written in."""

from __future__ import annotations

import re
from collections.abc import Mapping

BARE = re.compile(r"[A-Za-z0-9_./:@%+-]+")


def conf_value(value: str) -> str:
    """A quoted value of postgresql.conf (guc-file.l: both `''` and backslash escapes count, and a
    line break cannot stand in it)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def conninfo(fields: Mapping[str, str]) -> str:
    """A libpq connection string; empty values are left out."""
    return " ".join(f"{key}={conninfo_value(value)}" for key, value in fields.items() if value)


def conninfo_value(value: str) -> str:
    """Bare where it can be, else quoted as libpq wants it."""
    if BARE.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def hba_name(name: str) -> str:
    """A role or database in pg_hba.conf: quoted, so that no keyword is meant. Double quotes cannot
    be written in that file at all."""
    if '"' in name or "\n" in name:
        raise ValueError(f"a name with a double quote cannot stand in pg_hba.conf: {name}")
    return f'"{name}"'


def literal(value: str) -> str:
    """A string literal of SQL, whatever standard_conforming_strings is."""
    quoted = value.replace("'", "''")
    return f"E'{quoted}'".replace("\\", "\\\\") if "\\" in value else f"'{quoted}'"


def identifier(name: str) -> str:
    """A quoted identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def passfile_field(value: str) -> str:
    """One field of a password file."""
    return value.replace("\\", "\\\\").replace(":", "\\:")
