"""Everything that stands against a planned switchover, found before anything is touched.

Must not live here: carrying it out. Start reading at `obstacles`. Each obstacle is named with what
would be accepted instead; the first one gives the refusal its code.
"""

from __future__ import annotations

from collections.abc import Iterator

from ramd.domain.decision import ClusterView
from ramd.domain.errors import Obstacle
from ramd.domain.observation import Observation
from ramd.policy.candidates import foresee, last_known_lsn, reasons
from ramd.policy.picture import handover, living, present, serving

LAG_BYTES_MAX = 16 << 20
"""A target further behind would keep writes waiting for what it lacks."""


def obstacles(view: ClusterView, target: int | None, *, quorum: bool) -> tuple[Obstacle, ...]:
    """What keeps the primary from moving to `target` (None: to whoever is best); () if nothing."""
    return tuple(_of_the_cluster(view, quorum=quorum)) + tuple(_of_the_target(view, target))


def fit_targets(view: ClusterView) -> tuple[int, ...]:
    """Whom a switchover would be accepted to now, best first."""
    if view.state.reign is None:
        return ()
    fit = (verdict.node_id for verdict in foresee(view).others)
    return tuple(node for node in fit if not any(_stream(view, node)))


def _of_the_cluster(view: ClusterView, *, quorum: bool) -> Iterator[Obstacle]:
    if not quorum:
        yield Obstacle(
            code="no_quorum",
            reason="no majority of members is reachable",
            accepted="a majority of the voting members in touch with each other",
        )
    if view.state.reign is None:
        yield Obstacle(
            code="conflict", reason="there is no primary yet", accepted="a cluster with a primary"
        )
    elif handover(view) is not None:
        yield Obstacle(
            code="busy",
            node_id=present(view).node_id,
            reason=f"a switchover away from node {present(view).node_id} is under way already",
            accepted="one at a time: ask again when it has ended",
        )


def _of_the_target(view: ClusterView, target: int | None) -> Iterator[Obstacle]:
    if view.state.reign is None:
        return
    others = tuple(m.node_id for m in view.state.members if m.node_id != present(view).node_id)
    if target is None:
        if not fit_targets(view):
            whom = (text for node in others for text in _texts(view, node))
            yield Obstacle(
                code="no_candidate",
                reason="no node could take over: " + ("; ".join(whom) or reasons(foresee(view))),
                accepted="a replica that streams, is near, and is not tagged nofailover",
            )
    elif view.state.member(target) is None:
        yield Obstacle(
            code="not_found",
            node_id=target,
            reason=f"there is no node {target}",
            accepted="one of node " + ", ".join(str(node) for node in others),
        )
    elif target == present(view).node_id:
        yield Obstacle(
            code="conflict",
            node_id=target,
            reason=f"node {target} is the primary already",
            accepted="another one: node " + ", ".join(str(node) for node in others),
        )
    else:
        yield from _of_the_node(view, target)


def _texts(view: ClusterView, node_id: int) -> Iterator[str]:
    return (obstacle.reason for obstacle in _of_the_node(view, node_id))


def _of_the_node(view: ClusterView, node_id: int) -> Iterator[Obstacle]:
    verdict = next((v for v in foresee(view).verdicts if v.node_id == node_id), None)
    member = view.state.member(node_id)
    said = verdict.reason if verdict is not None and not verdict.eligible else ""
    if said:
        yield _unfit(node_id, said, "a replica that runs, with data of this cluster on its line")
    if member is not None and member.nofailover and "nofailover" not in said:
        yield _unfit(node_id, "is tagged nofailover", "a replica without that tag")
    yield from _stream(view, node_id)


def _stream(view: ClusterView, node_id: int) -> Iterator[Obstacle]:
    """Only of what a living primary hands over: after its loss there is nothing to stream from."""
    seen = living(view, node_id)
    if seen is None or not serving(view):
        return
    holder = present(view).node_id
    if seen.upstream != holder:
        yield _unfit(
            node_id, f"does not stream from node {holder}", "a replica that streams from it"
        )
    behind = _behind(view, seen)
    if behind > LAG_BYTES_MAX:
        yield _unfit(
            node_id,
            f"is {behind} bytes behind the primary",
            f"a replica at most {LAG_BYTES_MAX} bytes behind",
        )


def _behind(view: ClusterView, seen: Observation) -> int:
    end = last_known_lsn(view)
    if end is None or seen.position is None:
        return 0
    return max(0, end - seen.position.lsn)


def _unfit(node_id: int, what: str, accepted: str) -> Obstacle:
    return Obstacle(
        code="no_candidate", node_id=node_id, reason=f"node {node_id} {what}", accepted=accepted
    )
