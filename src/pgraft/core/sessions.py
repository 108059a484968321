"""Commands that are proposed twice are applied once (thesis §6.3).

Lives here: what is remembered of proposers, as a pure function. Must not live here: who retries
what (the host). Start reading at `admit`.

All members apply the same entries in the same order, so all remember the same; it is part of every
snapshot. The memory is bounded: a session that was forgotten because `SESSIONS_MAX` others have
been heard since starts anew, and a command of it that comes again would be applied again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from pgraft.core.limits import SESSION_OPEN_MAX, SESSIONS_MAX
from pgraft.core.types import Origin, Session

Sessions: TypeAlias = tuple[Session, ...]
"""The one that was silent longest comes first."""


def admit(sessions: Sessions, origin: Origin) -> tuple[Sessions, bool]:
    """What is remembered after a command of `origin`, and whether it is to be applied."""
    if origin.session == 0:
        return sessions, True
    known = next((s for s in sessions if s.session == origin.session), None)
    others = tuple(s for s in sessions if s is not known)
    session = known or Session(session=origin.session, floor=0)
    fresh = origin.serial > session.floor and origin.serial not in session.done
    done = {*session.done, origin.serial} if fresh else set(session.done)
    floor = max(session.floor, origin.floor)
    if len(done) > SESSION_OPEN_MAX:
        floor = max(floor, min(done))
    while floor + 1 in done:
        floor += 1
    left = tuple(sorted(serial for serial in done if serial > floor))
    newest = replace(session, floor=floor, done=left)
    return (*others, newest)[-SESSIONS_MAX:], fresh
