"""The decision in words: what would happen now and why, node by node, and the table of rules.

Lives here: text made from decisions. Must not live here: any rule. Start reading at `explain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ramd.domain.decision import (
    Action,
    ClusterView,
    Decision,
    Fetch,
    GrantTo,
    Hold,
    MoveCoordinator,
    Seal,
    Verdict,
)
from ramd.policy.candidates import Field, foresee, judge
from ramd.policy.decide import decide
from ramd.policy.fetching import order_text
from ramd.policy.picture import attempt
from ramd.policy.rules import RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What `decide` says of a view, and every node judged as a candidate.

    `if_lost`: the node that a failover would promote if the primary were lost now and the others
    were as last heard; None if nobody.
    """

    decision: Decision
    verdicts: tuple[Verdict, ...]
    if_lost: int | None
    lines: tuple[str, ...]


def explain(view: ClusterView) -> Explanation:
    """Explain the view to a person. Total, like `decide`."""
    decision = decide(view)
    field = _field(view)
    verdicts = field.verdicts if field else ()
    if_lost = field.others[0].node_id if field and field.others else None
    lines = [f"rule {decision.rule}: {action_text(decision.action)}", decision.reason]
    lines += decision.inputs
    lines += [verdict_line(verdict) for verdict in verdicts]
    if field:
        lines.append(f"if the primary were lost now: {_lost_text(if_lost)}")
    return Explanation(decision=decision, verdicts=verdicts, if_lost=if_lost, lines=tuple(lines))


def candidates(view: ClusterView) -> tuple[Verdict, ...]:
    """Every node judged, as far as the view goes; () without a primary."""
    field = _field(view)
    return field.verdicts if field else ()


def action_text(action: Action) -> str:
    """One action in words."""
    match action:
        case Hold(follow=follow):
            return "change nothing" + ("; all follow the recorded primary" if follow else "")
        case Seal(epoch=epoch, attempt=under):
            return f"seal epoch {epoch} under attempt {under.term}.{under.number}"
        case Fetch(order=order):
            return order_text(order)
        case GrantTo(node_id=node_id, epoch=epoch, timeline=timeline, start=start):
            return f"grant epoch {epoch} to node {node_id}: {start} on timeline {timeline}"
        case MoveCoordinator(node_id=node_id):
            return f"transfer coordination to node {node_id}"
        case _:
            return f"cancel the handover of epoch {action.epoch}"


def verdict_line(verdict: Verdict) -> str:
    """One candidate in words."""
    fit = "eligible" if verdict.eligible else "rejected"
    return f"node {verdict.node_id}: {fit}: {verdict.reason}"


def rule_table() -> str:
    """The table of rules as Markdown: docs/decisions.md, exactly."""
    return "".join(_page())


def _page() -> Iterator[str]:
    yield "# Decisions\n\n"
    yield "Generated from `ramd.policy.rules`; do not edit.\n\n"
    yield "The coordinator looks at one coherent picture of the cluster at each beat, and\n"
    yield "whenever something definite happens. It goes through these rules from the top and\n"
    yield "acts on the first that matches. The names are those of the log, the history and\n"
    yield "the API.\n\n"
    yield "| # | Rule | When | What | Why |\n|---|---|---|---|---|\n"
    for number, rule in enumerate(RULES, start=1):
        cells = (str(number), f"`{rule.name}`", rule.condition, rule.effect, rule.because)
        yield f"| {' | '.join(cells)} |\n"


def _field(view: ClusterView) -> Field | None:
    if view.state.reign is None:
        return None
    return judge(view) if attempt(view) else foresee(view)


def _lost_text(node_id: int | None) -> str:
    return "nobody could be promoted" if node_id is None else f"node {node_id} would be promoted"
