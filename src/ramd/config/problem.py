"""What a check found: the key it blames, what is wrong, what would be right."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault that does not know its line yet."""

    key: str
    wrong: str
    right: str
