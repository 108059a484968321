"""The decision of the coordinator: a pure, total function of one view.

Lives here: the walk through the table. The rules themselves are in `ramd.policy.rules`. Start
reading at `decide`.
"""

from __future__ import annotations

from ramd.domain.decision import ClusterView, Decision
from ramd.policy.picture import inputs
from ramd.policy.rules import RULES

LOOK_AGAIN_NS = 1_000_000_000
"""The longest a decision stands unlooked at: silence makes no noise when it begins."""


def decide(view: ClusterView) -> Decision:
    """What to do now, by the first rule that matches, and when to look again at the latest.

    Deterministic and total: any view gets exactly one decision. Nothing is remembered; what must be
    (`ramd.policy.memory`, the attempt under way) is part of the view.
    """
    rule = next(rule for rule in RULES if rule.when(view))
    ruling = rule.act(view)
    latest_ns = view.now_ns + LOOK_AGAIN_NS
    wake_ns = ruling.wake_at_ns
    return Decision(
        rule=rule.name,
        action=ruling.action,
        reason=ruling.reason,
        candidates=ruling.candidates,
        inputs=inputs(view),
        wake_at_ns=min(wake_ns, latest_ns) if wake_ns and wake_ns > view.now_ns else latest_ns,
    )
