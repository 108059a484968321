"""How the recorded synchronous set changes (architecture: "Sync set change"; attacks C5, H7).

Lives here: the commands, when each is acceptable, what it does. Must not live here: which set is
wanted (`ramd.policy.syncset`), any proof. Start reading at `change_refusal`.

Whatever the direction, a change is: `ChangeSync` (the new set rules beside the old), the proof on
the server, `SettleSync` (the new set rules alone). A change to nobody at all takes nothing from the
old set's rule until the primary itself says, by `RelaxSync`, that it waits for nobody from now on.
A further `ChangeSync` undoes one that is under way, or takes it over. All three are the present
primary's: whatever carries another epoch, or the number of another change, does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ramd.domain.model import ClusterState, DecisionRecord
from ramd.domain.sync import ALONE, COPY, SyncGrant, SyncRecord, SyncSet

RULES_MAX = 8
"""Sets that may rule at once; one more change must wait until the one under way is settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSync:
    """Begin a change to `target`; `generation` is the next number."""

    epoch: int
    generation: int
    target: SyncSet
    primary_copy: str
    record: DecisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleSync:
    """The change `generation` is proven: its target rules alone."""

    epoch: int
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaxSync:
    """From now on the primary waits for nobody, as the change `generation` wanted."""

    epoch: int
    generation: int
    record: DecisionRecord


def change_refusal(state: ClusterState, command: ChangeSync) -> str:
    """Why `command` would change nothing; '' if it is acceptable."""
    record = state.sync
    if state.removal is not None:
        return "the cluster is being destroyed"
    if state.reign is None or command.epoch != state.epoch:
        return f"epoch {command.epoch} is not the present one"
    if command.generation != record.generation + 1:
        return f"change {command.generation} does not follow {record.generation}"
    adds = bool(command.target.members) and command.target not in record.rules
    if adds and len(record.rules) >= RULES_MAX:
        return f"{RULES_MAX} sets rule already: the change under way must be settled first"
    return (
        set_refusal(state, command.target, primary=state.reign.node_id)
        or _tagged(state, command.target)
        or _emptied(state, command.target)
    )


def set_refusal(state: ClusterState, target: SyncSet, *, primary: int) -> str:
    """What is wrong with a set whoever names it (attacks M9); '' if nothing is."""
    nodes = target.nodes
    if not nodes:
        return "" if target.k == 0 else f"nobody cannot be {target.k}"
    if target.alone:
        return "a primary that waits for others is not alone"
    if not 1 <= target.k <= len(nodes):
        return f"{target.k} of {len(nodes)} cannot confirm: 1 to {len(nodes)} can"
    if len(set(nodes)) < len(nodes):
        return f"a node has one copy, not several: {nodes}"
    if primary in nodes:
        return f"node {primary} is the primary: its own copy is never counted"
    missing = [node for node in nodes if state.member(node) is None]
    if missing:
        return f"node {missing[0]} is not a member"
    bad = [m for m in target.members if m.copy and not COPY.fullmatch(m.copy)]
    return f"{bad[0].copy!r} is no copy" if bad else ""


def _tagged(state: ClusterState, target: SyncSet) -> str:
    for node in target.nodes:
        member = state.member(node)
        if member is not None and member.nosync:
            return f"node {node} is tagged nosync"
    return ""


def _emptied(state: ClusterState, target: SyncSet) -> str:
    if target.alone and state.settings.enforce_sync_standbys:
        return "enforce_sync_standbys is on: writes wait instead"
    return ""


def settle_refusal(state: ClusterState, command: SettleSync) -> str:
    """As `change_refusal`."""
    why = _not_under_way(state, command.epoch, command.generation)
    if why or state.sync.goal.members:
        return why
    return "the primary has not said that it waits for nobody"


def relax_refusal(state: ClusterState, command: RelaxSync) -> str:
    """As `change_refusal`."""
    why = _not_under_way(state, command.epoch, command.generation)
    if why or not state.sync.goal.members:
        return why
    return f"the change is to {state.sync.goal.text()}"


def _not_under_way(state: ClusterState, epoch: int, generation: int) -> str:
    if epoch != state.epoch:
        return f"epoch {epoch} is not the present one"
    if state.sync.target is None or generation != state.sync.generation:
        return f"change {generation} is not under way"
    return ""


def changed(state: ClusterState, command: ChangeSync) -> ClusterState:
    """The state after an acceptable ChangeSync."""
    record = state.sync
    rules = record.rules
    if command.target.members:
        rules = with_rule(rules, command.target)
    return replace(
        state,
        sync=replace(
            record,
            generation=command.generation,
            rules=rules,
            target=command.target,
            primary_copy=command.primary_copy or record.primary_copy,
        ),
    )


def settled(state: ClusterState) -> ClusterState:
    """The state after an acceptable SettleSync or RelaxSync."""
    return replace(state, sync=replace(state.sync, rules=(state.sync.goal,), target=None))


def grant_refusal(state: ClusterState, grant: SyncGrant | None, *, holder: int) -> str:
    """What is wrong with the set that a grant names; '' if nothing is."""
    return "" if grant is None else set_refusal(state, grant.target, primary=holder)


def grant_obstacle(grant: SyncGrant | None) -> str:
    """Why a grant that names this set must not be appended; '' if nothing is wrong with it.

    Without the name of the new primary's own copy any directory in its place would pass for it.
    """
    if grant is None or not grant.target.members or grant.primary_copy:
        return ""
    return "the new primary's own copy has no name"


def granted(record: SyncRecord, grant: SyncGrant | None) -> SyncRecord:
    """The record after a grant (attacks C9).

    Until the new primary's set is proven, what ruled before goes on ruling: the new one's members
    may not have yet what its holder has. After a loss that a person accepted, only that counts.
    """
    if grant is None:
        return record
    before = (ALONE,) if grant.after_loss else record.rules
    waits = bool(grant.target.members)
    return SyncRecord(
        generation=record.generation + 1,
        rules=with_rule(before, grant.target) if waits else (grant.target,),
        target=grant.target if waits else None,
        primary_copy=grant.primary_copy,
    )


def with_rule(rules: tuple[SyncSet, ...], target: SyncSet) -> tuple[SyncSet, ...]:
    """`rules` with `target` among them, once and last."""
    return (*(one for one in rules if one != target), target)
