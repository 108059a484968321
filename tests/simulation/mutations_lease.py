"""Bugs of the primary lease, put in on purpose: each attack that its rules were made against.

Lives here: patches that take one rule out. Must not live here: where they are looked for (see
`gate`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgraft.core import lease, messages, roles
from pgraft.core.election import Election
from pgraft.core.lease import Granter, Holder
from pgraft.core.raft import Raft
from pgraft.core.reads import Rounds
from pgraft.core.state import State
from pgraft.core.types import VoteReply
from tests.simulation.mutations import mutation


@mutation
def contact_is_forgotten_at_start(patch: pytest.MonkeyPatch) -> None:
    """A voter that was restarted says that it never heard a leader."""
    init = Election.__init__

    def forgetful(self: Election, state: State) -> None:
        init(self, state)
        self.contact_ns = -(1 << 62)

    patch.setattr(Election, "__init__", forgetful)


@mutation
def contact_is_cleared_with_the_term(patch: pytest.MonkeyPatch) -> None:
    """A voter that enters a term forgets when it heard any leader (C2, silent leader)."""
    reply = Election._reply

    def short(self: Election, *, granted: bool) -> VoteReply:
        told = reply(self, granted=granted)
        return replace(told, contact_age_ns=1 << 60) if granted else told

    patch.setattr(Election, "_reply", short)


@mutation
def leader_is_no_contact_of_itself(patch: pytest.MonkeyPatch) -> None:
    """A leader that steps down, or votes for another, forgets that it led until now (C2)."""
    follow = roles.follow

    def forget(parts: Any, *args: Any, **kwargs: Any) -> None:
        before = parts.election.contact_ns
        was_leading = parts.state.leading
        follow(parts, *args, **kwargs)
        if was_leading:
            parts.election.contact_ns = before

    patch.setattr(roles, "follow", forget)
    patch.setattr(messages, "follow", forget)


@mutation
def raised_ttl_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A coordinator waits for the ttl of the grant, whatever it was changed to since (C3)."""

    def over_at(self: Granter) -> int:
        grant = self._state.log.applied.grant
        assert grant is not None
        return self._dating.since_ns + self._wait_ns(grant.ttl_ns)

    patch.setattr(Granter, "_over_at", over_at)


@mutation
def lowered_ttl_shortens_the_wait_at_once(patch: pytest.MonkeyPatch) -> None:
    """A lowered ttl is waited for as if no longer lease were still running (C3)."""

    def over_at(self: Granter) -> int:
        return self._dating.since_ns + self._wait_ns(self._state.log.applied.lease.ttl_ns)

    patch.setattr(Granter, "_over_at", over_at)


@mutation
def suspect_clocks_are_trusted(patch: pytest.MonkeyPatch) -> None:
    """Nobody cares that a clock runs off by more than the bound (M1)."""
    patch.setattr(Raft, "clock_suspect", lambda self, suspect, now: None)


@mutation
def suspect_holder_keeps_its_lease(patch: pytest.MonkeyPatch) -> None:
    """A holder whose clock turns suspect only stops to renew (M1)."""
    patch.setattr(Holder, "doubt", lambda self: None)
    patch.setattr(lease, "SUSPECT_CLOCK_FACTOR", 1)


@mutation
def pauses_of_the_coordinator_are_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that stood still takes its own deafness for the holder's silence (M6)."""
    patch.setattr(Rounds, "judges_silence", lambda self, now: True)
