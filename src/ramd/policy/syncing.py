"""What the primary itself does about its synchronous set: keep it, or begin a change.

Lives here: the choice, pure and total, with its hysteresis. Must not live here: the proof of a
change (`ramd.execute.syncing`), what the set means to a failover (`ramd.policy.syncset`). Start
reading at `consider`.

The set follows the replicas that stream steadily. Too few of them are waited for; if that is not
enforced, then for `sync_replication_timeout_ms`, and after that commits wait for those that are
left, or for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ramd.domain.model import ClusterState
from ramd.domain.sync import ALONE, NO_SET, Stream, SyncMember, SyncSet
from ramd.policy.syncset import confirmers, joining, synchronous

NS_PER_MS = 1_000_000
JOIN_NS = 2_000_000_000
"""A replica joins the set when it has streamed for so long; the first one at once."""
LEAVE_NS = 2_000_000_000
"""A member leaves it when it has not streamed for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMemory:
    """What the primary remembers from look to look, in own ns; folded by `recall`."""

    since_ns: int = 0
    """Since when this primary looks."""
    streaming: Mapping[SyncMember, int] = field(default_factory=dict)
    missing: Mapping[SyncMember, int] = field(default_factory=dict)
    """Members of the set that do not stream."""
    short_since_ns: int | None = None
    """Since when fewer replicas stream than shall confirm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncView:
    """Everything `consider` may look at, on the primary of the present epoch."""

    now_ns: int
    me: int
    state: ClusterState
    streams: tuple[Stream, ...]
    provable: bool
    """The server loads the extension, which shows who has loaded which set."""
    memory: SyncMemory = SyncMemory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Change nothing."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Begin a change to `target`."""

    target: SyncSet
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relax:
    """The second half of a change to nobody."""

    reason: str


def recall(view: SyncView) -> SyncMemory:
    """`view.memory` brought up to date; to be called at each look, before `consider`."""
    before, now_ns = view.memory, view.now_ns
    seen = _streaming(view)
    goal = view.state.sync.goal
    enough = len(seen) >= view.state.settings.num_sync_standbys
    short_ns = now_ns if before.short_since_ns is None else before.short_since_ns
    return SyncMemory(
        since_ns=before.since_ns or now_ns,
        streaming={member: before.streaming.get(member, now_ns) for member in seen},
        missing={m: before.missing.get(m, now_ns) for m in goal.members if m not in seen},
        short_since_ns=None if enough else short_ns,
    )


def consider(view: SyncView) -> Keep | Change | Relax:
    """What to do now. Total; one change at a time, and each with its reason."""
    goal, under_way = view.state.sync.goal, view.state.sync.target
    target, reason = _wanted(view)
    if target != goal:
        return Change(target=target, reason=f"commits wait for {target.text()}: {reason}")
    if under_way is not None and not under_way.members:
        return Relax(reason=f"commits wait for {target.text()} from now on: {reason}")
    return Keep(reason=reason)


def waiting(view: SyncView) -> str:
    """Why no commit is acknowledged now whatever is proven; '' if enough of the set stream."""
    goal = view.state.sync.goal
    streaming = {SyncMember(node_id=one.node_id, copy=one.copy) for one in view.streams}
    absent = [member.node_id for member in goal.members if member not in streaming]
    if len(goal.members) - len(absent) >= goal.k:
        return ""
    nodes = ", ".join(str(node) for node in absent)
    verb = "does" if len(absent) == 1 else "do"
    return f"commits wait for {goal.text()}: node {nodes} {verb} not stream"


def _wanted(view: SyncView) -> tuple[SyncSet, str]:
    state, goal = view.state, view.state.sync.goal
    if not synchronous(state, view.me):
        mode, able = state.settings.synchronous_replication, len(confirmers(state, view.me))
        return NO_SET, f"synchronous_replication is {mode}, and {able} replicas may confirm"
    if not view.provable:
        return goal, "the server does not load the extension, so no change can be proven"
    usable = _usable(view)
    wanted = state.settings.num_sync_standbys
    if goal == NO_SET and len(usable) < len(confirmers(state, view.me)) and not _patient(view):
        return goal, "waiting for the other replicas"
    if len(usable) >= wanted:
        return _set(usable, wanted), f"{len(usable)} replicas stream"
    return _too_few(view, usable)


def _too_few(view: SyncView, usable: list[SyncMember]) -> tuple[SyncSet, str]:
    settings, goal = view.state.settings, view.state.sync.goal
    wanted = settings.num_sync_standbys
    why = f"{len(usable)} of {wanted} replicas stream"
    if settings.enforce_sync_standbys:
        if goal == NO_SET:
            return goal, f"{why}; the first set needs {wanted}"
        members = _padded(view, usable)
        return _set(members, min(wanted, len(members))), f"{why}, the rest is waited for"
    if not _outwaited(view):
        return goal, f"{why}; going on without them is not due yet"
    if usable:
        return _set(usable, len(usable)), f"{why} after {_timeout_ms(view)} ms"
    # Nobody rested on a set yet, or the primary goes on alone.
    return (goal if goal == NO_SET else ALONE), f"{why} after {_timeout_ms(view)} ms"


def _usable(view: SyncView) -> list[SyncMember]:
    """Who streams steadily, and members that were only just lost; one copy of each node.

    The first set takes whoever streams: until there is one, commits wait for nobody.
    """
    memory, goal = view.memory, view.state.sync.goal
    found = {
        member.node_id: member
        for member, since_ns in memory.streaming.items()
        if goal == NO_SET or member in goal.members or view.now_ns - since_ns >= JOIN_NS
    }
    for member, since_ns in memory.missing.items():
        lately = view.now_ns - since_ns < LEAVE_NS and member.copy
        if lately and member.node_id in joining(view.state, view.me):
            found.setdefault(member.node_id, member)
    return list(found.values())


def _padded(view: SyncView, usable: list[SyncMember]) -> list[SyncMember]:
    """`usable` and, until there are enough, lost members, then nodes whose copy is not known."""
    have = {member.node_id: member for member in usable}
    nodes = confirmers(view.state, view.me)
    lost = [member for member in view.state.sync.goal.members if member.node_id in nodes]
    for member in (*lost, *(SyncMember(node_id=node, copy="") for node in nodes)):
        if len(have) < view.state.settings.num_sync_standbys:
            have.setdefault(member.node_id, member)
    return list(have.values())


def _set(members: list[SyncMember], k: int) -> SyncSet:
    return SyncSet(members=tuple(sorted(members, key=lambda member: member.node_id)), k=k)


def _streaming(view: SyncView) -> tuple[SyncMember, ...]:
    nodes = joining(view.state, view.me)
    return tuple(
        SyncMember(node_id=stream.node_id, copy=stream.copy)
        for stream in view.streams
        if stream.copy and stream.node_id in nodes
    )


def _timeout_ms(view: SyncView) -> int:
    return view.state.settings.sync_replication_timeout_ms


def _patient(view: SyncView) -> bool:
    """The first set has waited long enough for everybody."""
    return view.now_ns - view.memory.since_ns >= _timeout_ms(view) * NS_PER_MS


def _outwaited(view: SyncView) -> bool:
    short_ns = view.memory.short_since_ns
    return short_ns is not None and view.now_ns - short_ns >= _timeout_ms(view) * NS_PER_MS
