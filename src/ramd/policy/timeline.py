"""How long each part of a change of primary took, by the clock of whoever coordinates it.

Lives here: the fold from beat to beat, pure. Must not live here: any decision. Start at `follow`.

What a coordinator did not see itself, because it was elected in between, it leaves out: the phases
then do not add up to `total`, or there are none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ramd.domain.decision import ClusterView
from ramd.domain.model import Phase
from ramd.policy.picture import attempt, living, movable, serving

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Own times; 0: not seen. `closed_ns`: when writes ended, as far as that can be told."""

    epoch: int = 0
    open_ns: int = 0
    """When the primary was last known to take writes."""
    closed_ns: int = 0
    sealed_ns: int = 0
    granted_ns: int = 0
    began_ns: int = 0
    """When the new epoch was first seen."""
    spent: tuple[tuple[str, int], ...] = ()
    """Of a switchover, before its release, ms."""
    due: tuple[Phase, ...] = ()
    """Of the present epoch, once its primary takes writes; to be recorded."""


def follow(before: Timeline, view: ClusterView) -> Timeline:
    """`before` brought up to date with what `view` shows. At each beat."""
    now_ns, epoch = view.now_ns, view.state.epoch
    line = replace(before, due=())
    if line.epoch != epoch:
        seen = line.epoch == epoch - 1
        line = replace(line, epoch=epoch, began_ns=now_ns) if seen else Timeline(epoch=epoch)
    if _open(view):
        due = _phases(line, now_ns) if line.began_ns else ()
        return Timeline(epoch=epoch, open_ns=now_ns, due=due)
    if not line.closed_ns and line.open_ns:
        line = replace(line, closed_ns=_closed_ns(line, view))
    if _sealed(view) and not line.sealed_ns and not line.began_ns:
        line = replace(line, sealed_ns=now_ns)
    return line


def granted(line: Timeline, view: ClusterView) -> Timeline:
    """The next epoch's grant is appended now."""
    spent = view.lease.spent
    closed_ns = line.closed_ns
    if spent:
        # A primary that fences itself tells nobody before its release.
        closed_ns = view.now_ns - sum(ms for _, ms in spent) * NS_PER_MS
    return replace(line, granted_ns=view.now_ns, closed_ns=closed_ns, spent=spent)


def _open(view: ClusterView) -> bool:
    """It takes writes as far as anybody knows: who is silent does not from the moment on from which
    the epoch may move, which with a short lease is before silence counts as silence."""
    reign = view.state.reign
    seen = living(view, reign.node_id) if reign else None
    if seen is None or seen.fenced or not serving(view):
        return False
    return attempt(view) is None and not movable(view)


def _sealed(view: ClusterView) -> bool:
    """Positions are compared: by this coordinator, or by one before it, as the nodes tell."""
    if attempt(view) is not None:
        return True
    told = (heard.observation.sealed for heard in view.heard.values())
    return any(report is not None and report.epoch == view.state.epoch for report in told)


def _closed_ns(line: Timeline, view: ClusterView) -> int:
    """Silence began with the last word, a definite change is heard at once."""
    reign = view.state.reign
    heard = view.heard.get(reign.node_id) if reign is not None else None
    if heard is None or line.began_ns:
        return line.open_ns
    return heard.received_ns


def _phases(line: Timeline, now_ns: int) -> tuple[Phase, ...]:
    if not line.closed_ns:
        return ()
    marks = [("detect", line.sealed_ns), ("decide", line.granted_ns), ("grant", line.began_ns)]
    found = [Phase(name=name, ms=ms) for name, ms in line.spent]
    before_ns = line.closed_ns + sum(ms for _, ms in line.spent) * NS_PER_MS
    for name, at_ns in [*marks, ("promote", now_ns)]:
        if at_ns:
            found.append(Phase(name=name, ms=max(0, at_ns - before_ns) // NS_PER_MS))
            before_ns = at_ns
    found.append(Phase(name="total", ms=(now_ns - line.closed_ns) // NS_PER_MS))
    return tuple(found)
