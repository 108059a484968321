"""What is wrong with a configuration, as values: every fault names its place, its key and a remedy.

Lives here: the values and the error that carries them. No rule about any key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ramd.domain.errors import ConfigError

ENVIRONMENT = "environment"
SHOWN_CHARACTERS_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value was written: a line of a file (0: the file as a whole), or the environment."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: `origin: key: wrong; right`."""

    origin: Origin
    key: str
    wrong: str
    right: str = ""

    def __str__(self) -> str:
        parts = [f"{self.origin}: "]
        if self.key:
            parts.append(f"{self.key}: ")
        parts.append(self.wrong)
        if self.right:
            parts.append(f"; {self.right}")
        return "".join(parts)


class InvalidConfigError(ConfigError):
    """All faults of one configuration. `faults` is never empty; the message has one line each."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=_place))
        assert self.faults, "an error without a fault"
        super().__init__("\n".join(str(fault) for fault in self.faults), field=self.faults[0].key)


def _place(fault: Fault) -> tuple[bool, int, str]:
    """Faults of lines in order of lines, then those of the whole file."""
    return (fault.origin.line == 0, fault.origin.line, fault.key)


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word most like `word`, or '' if none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return close[0] if close else ""


def shown(text: str) -> str:
    """`text` quoted for a message: printable, on one line, of bounded length."""
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = text[: SHOWN_CHARACTERS_MAX - 1] + "…"
    return ascii(text) if not text.isprintable() else f"'{text}'"
