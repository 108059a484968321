"""What people may ask of synchronous replication, and what is wrong with it if it is refused.

Lives here: settings made from a request, checked against the cluster as it is. Must not live here:
what follows from settings (`ramd.policy.syncing`). Start reading at `ordered`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ramd.domain.errors import Refused
from ramd.domain.model import ClusterState, Member, Settings
from ramd.domain.sync import SyncMode, SyncOrder
from ramd.policy.syncset import confirmers, synchronous


def ordered(state: ClusterState, order: SyncOrder) -> Settings:
    """The settings that `order` wants. Raises Refused, with what would be accepted."""
    settings, primary = state.settings, state.reign.node_id if state.reign else 0
    if order.add or order.remove:
        return _listed(state, order, primary)
    given = _given(order)
    if not given:
        raise Refused(
            "nothing to change",
            code="bad_request",
            hint="give a mode, a number, whether it is enforced, or a timeout",
        )
    wanted = replace(settings, **given)
    able = len(confirmers(state, primary))
    if wanted.num_sync_standbys > able and order.num_sync_standbys is not None:
        raise Refused(
            f"num_sync_standbys: {wanted.num_sync_standbys} replicas cannot confirm,"
            f" there are {able} that may",
            code="invalid_field",
            field="num_sync_standbys",
            hint=f"1 to {able}" if able else "add a replica first",
        )
    if order.mode is SyncMode.ON and not able:
        raise Refused(
            "mode: there is no replica that may confirm a commit",
            code="conflict",
            field="mode",
            hint="auto, off, or add a replica first",
        )
    return wanted


def require_unrivalled(order: SyncOrder, before: Settings, now: Settings) -> None:
    """Raises Refused, with what changed, if somebody else has given what `order` gives another
    value since `before`. Adding and removing go by the list as it is and have no rival."""
    for key in _given(order):
        if (value := getattr(now, key)) != (was := getattr(before, key)):
            raise Refused(
                f"{key} was changed by somebody else at the same moment: from {_word(was)} to"
                f" {_word(value)}",
                code="conflict",
                hint="nothing of this order was done: look at /api/v1/replication/sync, then ask"
                " again",
            )


def _given(order: SyncOrder) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "synchronous_replication": order.mode,
        "num_sync_standbys": order.num_sync_standbys,
        "enforce_sync_standbys": order.enforce_sync_standbys,
        "sync_replication_timeout_ms": order.sync_replication_timeout_ms,
    }
    return {key: value for key, value in changes.items() if value is not None}


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def follows_settings(state: ClusterState) -> bool:
    """The recorded set is what the settings ask for, and no change to it is under way."""
    record, primary = state.sync, state.reign.node_id if state.reign else 0
    if record.target is not None:
        return False
    if not synchronous(state, primary):
        return record.asynchronous
    able = confirmers(state, primary)
    goal = record.goal
    wanted = min(state.settings.num_sync_standbys, len(able))
    return goal.k == wanted and set(goal.nodes) <= set(able)


def _listed(state: ClusterState, order: SyncOrder, primary: int) -> Settings:
    member = _named(state, order.add or order.remove, primary)
    able = confirmers(state, primary)
    names = {state_member.name for state_member in _members(state, able)}
    everybody = {m.name for m in state.members if not m.nosync and m.node_id != primary}
    if order.add:
        if member.nosync:
            raise Refused(
                f"{member.name} is tagged nosync",
                code="conflict",
                field="node_name",
                hint="take `nosync` out of its configuration file first",
            )
        if member.name in names:
            raise _already(f"{member.name} may confirm commits already", "add", everybody - names)
        names.add(member.name)
    else:
        if member.name not in names:
            raise _already(f"{member.name} may not confirm commits anyway", "remove", names)
        left = names - {member.name}
        if len(left) < state.settings.num_sync_standbys:
            raise Refused(
                f"without {member.name} only {len(left)} replicas could confirm, and"
                f" num_sync_standbys is {state.settings.num_sync_standbys}",
                code="conflict",
                field="node_name",
                hint="lower num_sync_standbys first, or switch synchronous replication off",
            )
        names = left
    # The primary stays on the list: it may be a replica next.
    kept = names | {m.name for m in state.members if m.node_id == primary}
    wanted = () if names == everybody else tuple(sorted(kept))
    return replace(state.settings, sync_standby_names=wanted)


def _already(why: str, verb: str, others: set[str]) -> Refused:
    whom = ", ".join(sorted(others))
    return Refused(
        why,
        code="conflict",
        field="node_name",
        hint=f"to {verb}: {whom}" if whom else f"there is no replica to {verb}",
    )


def _named(state: ClusterState, selector: str, primary: int) -> Member:
    member = next((m for m in state.members if selector in (m.name, str(m.node_id))), None)
    others = ", ".join(m.name for m in state.members if m.node_id != primary)
    if member is None:
        raise Refused(
            f"there is no node '{selector[:63]}'",
            code="not_found",
            field="node_name",
            hint=f"replicas: {others}",
        )
    if member.node_id == primary:
        raise Refused(
            f"{member.name} is the primary: its own copy is never counted",
            code="conflict",
            field="node_name",
            hint=f"replicas: {others}",
        )
    return member


def _members(state: ClusterState, nodes: tuple[int, ...]) -> tuple[Member, ...]:
    return tuple(member for member in state.members if member.node_id in nodes)
