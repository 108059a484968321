"""The commands by which members come and go.

Lives here: frozen values only; what they do is in `ramd.state.membership`, their encoding in
`ramd.state.commands`. The group's own configuration is changed beside them, never by them: see
`ramd.policy.membership`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.model import Invitation


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteMember:
    """A node may join once. Takes the place of an older invitation of the same node id, and of
    every one that has run out by `at_unix_ms`."""

    invitation: Invitation
    at_unix_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawInvitation:
    """The token with this nonce is worth nothing any more."""

    nonce: str
    reason: str = ""
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitMember:
    """The invited node belongs to the group: it is a member from now on, its token is spent."""

    nonce: str
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember:
    """A person wants `node_id` out. Refused for the primary, and while another one leaves."""

    node_id: int
    requested_by: str = ""
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepMember:
    """The removal of `node_id` does not take place, because of `reason`."""

    node_id: int
    reason: str
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DropMember:
    """The group has let go of `node_id`: it is no member any more."""

    node_id: int
    at_unix_ms: int = 0
