"""Who proposes: numbers that make a command which is proposed twice be applied once (thesis §6.3).

Lives here: drawing origins for this run of a member. Must not live here: what the group remembers
of them (`pgraft.core.sessions`). Start reading at `Origins.open`.
"""

from __future__ import annotations

import secrets
from typing import Final

from pgraft.core.limits import SESSION_OPEN_MAX
from pgraft.core.types import Origin

SPAN_MAX: Final = SESSION_OPEN_MAX // 2
"""How far a session goes beyond its oldest open command. The group remembers `SESSION_OPEN_MAX`
of them one by one; a command behind more would count as given up, though it is not."""


class Origins:
    """Origins of one run. A session that an open command holds back is left for a new one."""

    __slots__ = ("_open", "_serial", "_session")

    def __init__(self) -> None:
        self._session = _draw()
        self._serial = 0
        self._open: set[int] = set()

    def open(self) -> Origin:
        """The origin of one command, until `close`."""
        if self._open and self._serial - min(self._open) >= SPAN_MAX:
            self._session, self._serial, self._open = _draw(), 0, set()
        self._serial += 1
        self._open.add(self._serial)
        return Origin(session=self._session, serial=self._serial, floor=min(self._open) - 1)

    def close(self, origin: Origin) -> None:
        """Nobody waits for this command any more."""
        if origin.session == self._session:
            self._open.discard(origin.serial)


def _draw() -> int:
    return secrets.randbits(62) + 1
