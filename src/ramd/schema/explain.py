"""Decisions that were taken, and those that would be: what the answers carry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramd.schema.cluster import DecisionView, PhaseView
from ramd.schema.envelope import Answer, ObstacleView
from ramd.schema.requests import NODES_MAX, Request


class DecisionsView(Answer):
    """GET /cluster/decisions: the newest first."""

    decisions: tuple[DecisionView, ...]
    kept: int = Field(ge=0)
    """How many the group keeps at present, whatever was asked for."""


class JudgedView(Answer):
    """What the rules say: the first that matches, what it does, and why."""

    rule: str
    action: str
    reason: str
    node_id: int | None
    """The node that would become, or go on as, primary."""


class CandidateView(Answer):
    """One node as a candidate for a failover now, and what stands against a switchover to it."""

    node_id: int
    primary: bool
    eligible: bool
    reason: str
    lsn: str | None
    timeline: int | None
    obstacles: tuple[ObstacleView, ...]


class ExplainView(Answer):
    """GET /cluster/explain: what the coordinator's rules make of this daemon's picture."""

    node_id: int
    """Whose picture it is."""
    coordinates: bool
    """That node decides; another one's picture may be a little older."""
    now: JudgedView
    inputs: tuple[str, ...]
    candidates: tuple[CandidateView, ...]
    switchover_targets: tuple[int, ...]
    """Whom a switchover would be accepted to now, best first."""
    if_server_crashed: JudgedView | None
    """If the server of the primary ended now; None: there is no primary."""
    if_host_lost: JudgedView | None
    """If the host of the primary fell silent now, once its lease has run out."""


class MoveRequest(Request):
    """Which node is meant: an id, a name or a selector."""

    node_id: (
        Annotated[int, Field(ge=1, le=NODES_MAX)]
        | Annotated[str, Field(min_length=1, max_length=63)]
    )


class PromoteView(Answer):
    """POST /cluster/promote."""

    node_promoted: int
    new_primary: int
    promotion_time_ms: int
    epoch: int
    outage_ms: int | None
    phases: tuple[PhaseView, ...]


class DemoteView(Answer):
    """POST /cluster/demote."""

    node_demoted: int
    old_primary: int | None
    new_primary: int
    demotion_time_ms: int
    epoch: int
    outage_ms: int | None
    phases: tuple[PhaseView, ...]
