"""`ramctrl explain`, `ramctrl cluster decisions`, and what they say to a person."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from ramctrl import output
from ramctrl.options import context_of
from ramctrl.page import Page

DECISION_COLUMNS = ("AT", "EPOCH", "RULE", "NOTE")
CANDIDATE_COLUMNS = ("ID", "ROLE", "FAILOVER", "SWITCHOVER", "NOTE")


def decisions(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=100)] = 20,
    rule: Annotated[str | None, typer.Option(help="Only those of this rule.")] = None,
    epoch: Annotated[int | None, typer.Option(min=0, help="Only those of this epoch.")] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="Only those that did something.")
    ] = False,
    details: Annotated[
        bool, typer.Option("--details", "-d", help="With inputs and candidates.")
    ] = False,
) -> None:
    """What was decided, newest first: the rule, why, and how long a change of primary took."""
    here = context_of(ctx)
    asked: dict[str, str | int] = {"limit": limit}
    if rule is not None:
        asked["rule"] = rule
    if epoch is not None:
        asked["epoch"] = epoch
    if changes:
        asked["changes"] = "true"
    envelope = here.client.get(f"/cluster/decisions?{urllib.parse.urlencode(asked)}")
    output.show(here.settings, envelope, lambda data: decisions_page(data, details=details))


def explain(ctx: typer.Context) -> None:
    """What the rules say now, of each node, and if the primary's server or host were lost."""
    here = context_of(ctx)
    output.show(here.settings, here.client.get("/cluster/explain"), explain_page)


def decisions_page(data: Mapping[str, Any], *, details: bool = False) -> Page:
    """The history as a table, or one block for each decision."""
    found = data.get("decisions") or []
    verdict = ("decisions", f"{len(found)} of the {data.get('kept', 0)} that are kept")
    if details:
        notes = [line for decision in found for line in _block(decision)]
        return Page(verdict=verdict, notes=tuple(notes))
    rows = tuple(
        (
            str(decision.get("at") or "-"),
            str(decision.get("epoch")),
            str(decision.get("rule")),
            str(decision.get("reason")) + _timeline(decision),
        )
        for decision in found
    )
    return Page(verdict=verdict, columns=DECISION_COLUMNS, rows=rows)


def explain_page(data: Mapping[str, Any]) -> Page:
    """The rule that stands, what would happen, and each node."""
    now = data.get("now") or {}
    targets = data.get("switchover_targets") or []
    facts = [
        ("decides", f"node {data.get('node_id')}" if data.get("coordinates") else "another node"),
        ("does", str(now.get("action"))),
        ("if the primary's server crashed", _would(data.get("if_server_crashed"))),
        ("if the primary's host were lost", _would(data.get("if_host_lost"))),
        ("switchover accepted to", ", ".join(f"node {node}" for node in targets) or "nobody"),
    ]
    return Page(
        verdict=(str(now.get("rule")), str(now.get("reason"))),
        facts=tuple(facts),
        columns=CANDIDATE_COLUMNS,
        rows=tuple(_candidate(one) for one in data.get("candidates") or []),
        notes=tuple(data.get("inputs") or ()),
    )


def phases_text(phases: object) -> str:
    """`drain 4 ms, …`; '' if there are none."""
    if not isinstance(phases, list):
        return ""
    return ", ".join(f"{phase.get('name')} {phase.get('ms')} ms" for phase in phases)


def _candidate(one: Mapping[str, Any]) -> tuple[str, ...]:
    obstacles = one.get("obstacles") or []
    primary = bool(one.get("primary"))
    reasons = [str(one.get("reason"))]
    reasons += [str(o.get("reason")) for o in obstacles if not primary]
    return (
        str(one.get("node_id")),
        "primary" if primary else "replica",
        "eligible" if one.get("eligible") else "rejected",
        "-" if primary else "refused" if obstacles else "accepted",
        "; ".join(reasons),
    )


def _would(judged: object) -> str:
    if not isinstance(judged, Mapping):
        return "there is no primary"
    node = judged.get("node_id")
    what = f"node {node}" if node is not None else str(judged.get("action"))
    return f"{what} [{judged.get('rule')}]: {judged.get('reason')}"


def _timeline(decision: Mapping[str, Any]) -> str:
    text = phases_text(decision.get("phases"))
    return f" ({text})" if text else ""


def _block(decision: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{decision.get('at') or '-'} epoch {decision.get('epoch')} {decision.get('rule')}"
    yield f"  {decision.get('action')} by {decision.get('actor')}: {decision.get('reason')}"
    for line in decision.get("details") or ():
        yield f"    {line}"
    if text := phases_text(decision.get("phases")):
        yield f"  took: {text}"
