"""Synchronous replication as answers show it: pure, from a snapshot.

Must not live here: routes. Start reading at `sync_data`.
"""

from __future__ import annotations

from typing import Any, cast

from ramd.domain.lsn import format_lsn
from ramd.domain.model import ClusterState
from ramd.domain.service import Snapshot
from ramd.domain.sync import SyncSeen
from ramd.policy.syncset import may_confirm
from ramd.schema import sync as views


def sync_state(snapshot: Snapshot) -> views.SyncStateView:
    """How commits wait now, as a part of other answers."""
    return views.SyncStateView(**_state(snapshot.state, _seen(snapshot)))


def sync_data(snapshot: Snapshot) -> views.SyncData:
    """GET /sync-standbys/status."""
    state, seen = snapshot.state, _seen(snapshot)
    settings, goal = state.settings, state.sync.goal
    names = {member.node_id: member.name for member in state.members}
    return views.SyncData(
        **_state(state, seen),
        synchronous_standbys=tuple(names[node] for node in goal.nodes if node in names),
        num_sync_standbys=settings.num_sync_standbys,
        any_n_enabled=True,
        sync_replication_timeout_ms=settings.sync_replication_timeout_ms,
        enforce_sync_standbys=settings.enforce_sync_standbys,
        sync_standby_names=settings.sync_standby_names,
        nodes=_nodes(state, seen),
    )


def _state(state: ClusterState, seen: SyncSeen | None) -> dict[str, Any]:
    record = state.sync
    waits = bool(record.goal.members)
    return {
        "mode": cast("views.ModeWord", str(state.settings.synchronous_replication)),
        "synchronous": waits,
        "waits_for": record.rules[-1].text(),
        "required": record.rules[-1].k,
        "generation": record.generation,
        "changing_to": None if record.target is None else record.target.text(),
        "proven": not waits or (seen is not None and seen.generation == record.generation),
        "obstacle": seen.waits_for if seen is not None else "",
    }


def _nodes(state: ClusterState, seen: SyncSeen | None) -> tuple[views.SyncNodeView, ...]:
    primary = state.reign.node_id if state.reign is not None else 0
    streams = {stream.node_id: stream for stream in seen.streams} if seen is not None else {}
    copies = {member.node_id: member.copy for member in state.sync.goal.members}
    found = []
    for member in state.members:
        if member.node_id == primary:
            continue
        stream = streams.get(member.node_id)
        copy = stream.copy if stream is not None else copies.get(member.node_id, "")
        found.append(
            views.SyncNodeView(
                id=member.node_id,
                name=member.name,
                may_confirm=may_confirm(state, member.node_id),
                member=bool(copy) and copies.get(member.node_id) == copy,
                streaming=stream is not None,
                copy_id=copy or None,
                flushed_lsn=format_lsn(stream.flushed) if stream is not None else None,
            )
        )
    return tuple(found)


def _seen(snapshot: Snapshot) -> SyncSeen | None:
    reign = snapshot.state.reign
    heard = snapshot.of(reign.node_id) if reign is not None else None
    return heard.observation.sync if heard is not None else None
