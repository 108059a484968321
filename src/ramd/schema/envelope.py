"""The envelope around every answer, and what a refused request is told.

    {"status": "success", "code": 200, "message": …, "data": …, "timestamp": …}
    {"status": "error", "code": 409, "error": "no_cluster", "message": …, "hint": …,
     "data": null, "details": {"field": …, "error": …} | {"new_primary": …, …} | null,
     "timestamp": …}

`code` is the HTTP status; `error` the stable word of `ramd.domain.errors.CODES`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ramd.domain.errors import CODES, Obstacle, RamdError

Data = TypeVar("Data")

TIMESTAMP = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


def timestamp_of(unix_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC: `2026-01-31T12:00:00.250Z`."""
    moment = datetime.fromtimestamp(unix_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


class Answer(BaseModel):
    """Base of everything sent: immutable, no field that is not described."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Success(Answer, Generic[Data]):
    """What was asked for."""

    status: Literal["success"] = "success"
    code: int = Field(default=200, ge=200, le=299)
    message: str
    data: Data
    timestamp: str = Field(pattern=TIMESTAMP)


class Details(Answer):
    """The field that was wrong, and how."""

    field: str
    error: str


class MovedDetails(Answer):
    """Who became primary instead of the node that was asked for."""

    target_node: int
    old_primary: int | None
    new_primary: int
    epoch: int


class ObstacleView(Answer):
    """One thing that stands against what was asked for, and what would be accepted."""

    code: str
    node_id: int | None
    reason: str
    accepted: str


class Failure(Answer):
    """Why not, as a stable word and as a sentence, and what to do about it."""

    status: Literal["error"] = "error"
    code: int = Field(ge=400, le=599)
    error: str
    message: str
    hint: str = ""
    data: None = None
    details: Details | MovedDetails | None = None
    obstacles: tuple[ObstacleView, ...] = ()
    timestamp: str = Field(pattern=TIMESTAMP)


def failure_of(error: RamdError, *, now_unix_ms: int) -> Failure:
    """An expected error as it is sent."""
    return Failure(
        code=CODES[error.code].http_status,
        error=error.code,
        message=error.message,
        hint=error.hint,
        details=_details(error),
        obstacles=tuple(obstacle_view(one) for one in error.obstacles),
        timestamp=timestamp_of(now_unix_ms),
    )


def _details(error: RamdError) -> Details | MovedDetails | None:
    if error.moved is not None:
        return MovedDetails(
            target_node=error.moved.target_node,
            old_primary=error.moved.old_primary,
            new_primary=error.moved.new_primary,
            epoch=error.moved.epoch,
        )
    if not error.field:
        return None
    return Details(field=error.field, error=error.message.removeprefix(f"{error.field}: "))


def obstacle_view(obstacle: Obstacle) -> ObstacleView:
    """An obstacle as it is sent."""
    return ObstacleView(
        code=obstacle.code,
        node_id=obstacle.node_id,
        reason=obstacle.reason,
        accepted=obstacle.accepted,
    )
