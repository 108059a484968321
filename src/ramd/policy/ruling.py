"""What one rule of the table says. Start reading at `Ruling`."""

from __future__ import annotations

from dataclasses import dataclass

from ramd.domain.decision import Action, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a rule says; `decide` makes a `Decision` of it."""

    action: Action
    reason: str
    candidates: tuple[Verdict, ...] = ()
    wake_at_ns: int | None = None
