"""Errors by blame and remedy, and the one table of their codes.

    RamdError
    ├── ConfigError      the operator's configuration: which key, what is wrong, what would be right
    ├── Refused          a precondition does not hold; nothing was changed
    ├── PeerError        another daemon answered wrongly or not at all
    ├── PostgresError    the server or one of its tools failed
    ├── Unavailable      not now (no quorum, no coordinator); try again
    ├── EndedOtherwise   it was carried out, and ended with another result than was asked for
    └── OutcomeUnknown   it may or may not have happened (rule S10); look before trying again

Every error carries a stable `code` of `CODES`; HTTP status and ramctrl's exit code follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What one stable error code means to HTTP and to a shell."""

    http_status: int
    exit_code: int
    meaning: str


CODES: dict[str, Code] = {
    "bad_request": Code(http_status=400, exit_code=2, meaning="the request is malformed"),
    "invalid_field": Code(http_status=400, exit_code=2, meaning="a field has a wrong value"),
    "unauthorized": Code(http_status=401, exit_code=3, meaning="a valid bearer token is required"),
    "forbidden": Code(http_status=403, exit_code=3, meaning="the token does not allow this"),
    "not_found": Code(http_status=404, exit_code=4, meaning="there is no such thing"),
    "method_not_allowed": Code(http_status=405, exit_code=2, meaning="wrong HTTP method"),
    "no_cluster": Code(http_status=409, exit_code=5, meaning="this daemon is in no cluster yet"),
    "cluster_exists": Code(http_status=409, exit_code=5, meaning="there is a cluster already"),
    "conflict": Code(http_status=409, exit_code=5, meaning="the present state forbids it"),
    "port_in_use": Code(http_status=409, exit_code=5, meaning="a needed port is taken"),
    "foreign_directory": Code(
        http_status=409, exit_code=5, meaning="a directory holds something that is not ours"
    ),
    "no_candidate": Code(http_status=409, exit_code=5, meaning="no node may be promoted"),
    "busy": Code(http_status=409, exit_code=5, meaning="another operation is under way"),
    "other_node_promoted": Code(
        http_status=409,
        exit_code=11,
        meaning="the primary moved, to another node than the one asked for",
    ),
    "too_large": Code(http_status=413, exit_code=2, meaning="the request body is too large"),
    "config": Code(http_status=400, exit_code=2, meaning="the configuration is wrong"),
    "internal": Code(http_status=500, exit_code=1, meaning="a bug, or the host failed"),
    "postgres": Code(http_status=500, exit_code=6, meaning="PostgreSQL or a tool of it failed"),
    "peer": Code(http_status=502, exit_code=7, meaning="another daemon failed to answer"),
    "no_quorum": Code(http_status=503, exit_code=8, meaning="no majority of members is reachable"),
    "unavailable": Code(http_status=503, exit_code=8, meaning="not possible right now"),
    "unknown_outcome": Code(
        http_status=503, exit_code=9, meaning="it may or may not have taken effect"
    ),
    "unreachable": Code(http_status=503, exit_code=10, meaning="no daemon answers at the address"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing that stands against a request, and what would be accepted. `code` of `CODES`."""

    code: str
    reason: str
    accepted: str
    node_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What happened instead of what was asked for: node ids, and the epoch of the new primary."""

    target_node: int
    old_primary: int | None
    new_primary: int
    epoch: int


class RamdError(Exception):
    """Base of every expected error. `hint` says what to do about it; may be empty. `obstacles`: all
    that stands against what was asked for, where that was looked for. `moved`: the primary that
    there is now, of a move that did not end as asked."""

    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        field: str = "",
        obstacles: tuple[Obstacle, ...] = (),
        moved: Moved | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint
        self.field = field
        self.obstacles = obstacles
        self.moved = moved
        assert self.code in CODES, f"unknown error code {self.code}"


class ConfigError(RamdError):
    default_code = "config"


class Refused(RamdError):
    default_code = "conflict"


class PeerError(RamdError):
    default_code = "peer"


class PostgresError(RamdError):
    default_code = "postgres"


class Unavailable(RamdError):
    default_code = "unavailable"


class EndedOtherwise(RamdError):
    default_code = "other_node_promoted"


class OutcomeUnknown(RamdError):
    default_code = "unknown_outcome"
