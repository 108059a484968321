"""The recorded synchronous set: what changes it, in which order, and what a grant makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramd.domain.model import (
    ClusterState,
    DecisionRecord,
    Member,
    Reign,
    Removal,
    Settings,
    StartMode,
)
from ramd.domain.sync import (
    ALONE,
    NO_SET,
    SyncGrant,
    SyncMember,
    SyncRecord,
    SyncSet,
)
from ramd.state.apply import (
    apply_explained,
    apply_grant_explained,
    grant_obstacle,
    grant_refusal,
    refusal,
)
from ramd.state.commands import ChangeSettings, DescribeMember, GrantPayload
from ramd.state.sync import RULES_MAX, ChangeSync, RelaxSync, SettleSync

WHY = DecisionRecord(epoch=1, rule="sync_changed", action="ChangeSync", reason="why")


def any_of(k: int, *nodes: int, mark: str = "a") -> SyncSet:
    members = tuple(SyncMember(node_id=n, copy=f"{n}{mark}".ljust(16, "0")) for n in nodes)
    return SyncSet(members=members, k=k)


OLD, NEW = any_of(1, 2, 3), any_of(1, 3, 4)


def led(**changes: Any) -> ClusterState:
    """Four nodes, node 1 leads epoch 1, commits wait for any 1 of 2 and 3."""
    state = ClusterState(
        cluster_id="c",
        members=tuple(
            Member(
                node_id=n, name=f"n{n}", hostname="h", postgresql_port=1, raft_port=2, http_port=3
            )
            for n in range(1, 5)
        ),
        system_id="7",
        reigns=(Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN),),
        timeline_high=1,
        sync=SyncRecord(generation=5, rules=(OLD,), primary_copy="1a"),
    )
    return replace(state, **changes)


def change(target: SyncSet, **changes: Any) -> ChangeSync:
    made = ChangeSync(epoch=1, generation=6, target=target, primary_copy="", record=WHY)
    return replace(made, **changes)


def after(state: ClusterState, *commands: ChangeSync | SettleSync | RelaxSync) -> ClusterState:
    for command in commands:
        applied = apply_explained(state, command, state.applied_index + 1)
        assert not applied.refusal, applied.refusal
        state = applied.state
    return state


def grant(target: SyncSet | None, *, holder: int = 2, **more: Any) -> GrantPayload:
    reign = Reign(epoch=2, node_id=holder, timeline=2, start=StartMode.PROMOTE, parent_timeline=1)
    sync = None if target is None else SyncGrant(target=target, primary_copy="2a", **more)
    return GrantPayload(reign=reign, record=WHY, sync=sync)


def granted(state: ClusterState, payload: GrantPayload) -> SyncRecord:
    applied = apply_grant_explained(state, payload.reign.node_id, 2, payload, 1)
    assert not applied.refusal, applied.refusal
    return applied.state.sync


def test_a_change_is_two_entries_and_both_sets_rule_between_them() -> None:
    joint = after(led(), change(NEW, primary_copy="1b"))
    assert joint.sync == SyncRecord(generation=6, rules=(OLD, NEW), target=NEW, primary_copy="1b")
    assert joint.sync.goal == NEW
    assert joint.decisions[-1].reason == "why"
    settled = after(joint, SettleSync(epoch=1, generation=6))
    assert settled.sync == SyncRecord(generation=6, rules=(NEW,), primary_copy="1b")
    assert settled.sync.goal == NEW


def test_a_change_under_way_is_taken_over_by_a_further_one() -> None:
    undone = after(led(), change(NEW), change(OLD, generation=7))
    assert undone.sync.rules == (NEW, OLD)
    assert undone.sync.primary_copy == "1a"
    assert after(undone, SettleSync(epoch=1, generation=7)).sync.rules == (OLD,)


def test_a_change_to_nobody_takes_nothing_from_the_old_set_before_its_second_entry() -> None:
    begun = after(led(), change(ALONE))
    assert begun.sync.rules == (OLD,)
    assert begun.sync.goal == ALONE
    relaxed = after(begun, RelaxSync(epoch=1, generation=6, record=WHY))
    assert relaxed.sync == SyncRecord(generation=6, rules=(ALONE,), primary_copy="1a")
    assert len(relaxed.decisions) == 2


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (change(NEW, epoch=2), "epoch 2 is not the present one"),
        (change(NEW, generation=5), "change 5 does not follow 5"),
        (change(NEW, generation=7), "change 7 does not follow 5"),
        (change(SyncSet(k=1)), "nobody cannot be 1"),
        (change(replace(NEW, alone=True)), "not alone"),
        (change(replace(NEW, k=0)), "0 of 2 cannot confirm: 1 to 2 can"),
        (change(replace(NEW, k=3)), "3 of 2 cannot confirm: 1 to 2 can"),
        (change(SyncSet(members=NEW.members * 2, k=1)), "not several"),
        (change(any_of(1, 1)), "node 1 is the primary"),
        (change(any_of(1, 9)), "node 9 is not a member"),
        (change(any_of(1, 2, mark="x")), "'2x00000000000000' is no copy"),
        (SettleSync(epoch=1, generation=5), "change 5 is not under way"),
        (SettleSync(epoch=2, generation=5), "epoch 2 is not the present one"),
        (RelaxSync(epoch=1, generation=5, record=WHY), "change 5 is not under way"),
        (RelaxSync(epoch=2, generation=5, record=WHY), "epoch 2 is not the present one"),
    ],
)
def test_what_is_refused_changes_nothing(
    command: ChangeSync | SettleSync | RelaxSync, why: str
) -> None:
    state = led()
    applied = apply_explained(state, command, 9)
    assert why in applied.refusal
    assert applied.state == replace(state, applied_index=9)


def test_the_end_of_a_change_must_be_of_its_kind_and_number() -> None:
    joint = after(led(), change(NEW))
    assert "any 1 of node 3, 4" in refusal(joint, RelaxSync(epoch=1, generation=6, record=WHY))
    assert "not under way" in refusal(joint, SettleSync(epoch=1, generation=5))
    begun = after(led(), change(ALONE))
    assert "has not said" in refusal(begun, SettleSync(epoch=1, generation=6))


def test_nothing_is_changed_without_a_primary_or_at_the_end_of_the_cluster() -> None:
    assert refusal(led(reigns=()), change(NEW, epoch=0))
    assert "destroyed" in refusal(led(removal=Removal(remove_data=False)), change(NEW))


def test_a_node_tagged_nosync_is_no_member_of_a_set() -> None:
    tag = DescribeMember(node_id=4, name="n4", priority=50, nofailover=False, nosync=True)
    state = apply_explained(led(), tag, 1).state
    assert refusal(state, change(NEW)) == "node 4 is tagged nosync"
    assert not refusal(state, change(OLD))


def test_going_on_alone_is_refused_where_that_is_enforced() -> None:
    state = led(settings=Settings(enforce_sync_standbys=True))
    assert "enforce_sync_standbys" in refusal(state, change(ALONE))
    assert not refusal(state, change(NO_SET))


def test_changes_do_not_pile_up_without_bound() -> None:
    rules = tuple(any_of(1, 2, mark=str(n)) for n in range(RULES_MAX))
    state = led(sync=SyncRecord(generation=5, rules=rules, target=rules[-1]))
    assert "must be settled first" in refusal(state, change(NEW))
    assert not refusal(state, change(rules[0]))


@pytest.mark.parametrize("target", [ALONE, NO_SET])
def test_the_way_to_nobody_is_open_however_many_sets_rule(target: SyncSet) -> None:
    """It lets no further set rule; refused, writes would hang for ever on members that are gone."""
    rules = tuple(any_of(1, 2, mark=str(n)) for n in range(RULES_MAX))
    state = led(sync=SyncRecord(generation=5, rules=rules, target=rules[-1]))
    assert not refusal(state, change(target))
    assert apply_explained(state, change(target), 99).state.sync.rules == rules


@pytest.mark.parametrize(
    "settings",
    [
        Settings(num_sync_standbys=0),
        Settings(num_sync_standbys=9),
        Settings(sync_replication_timeout_ms=99),
        Settings(sync_replication_timeout_ms=3_600_001),
        Settings(sync_standby_names=("a",) * 10),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: Settings) -> None:
    assert refusal(led(), ChangeSettings(settings=settings))


# --- grants --------------------------------------------------------------------------------------


def test_what_ruled_before_a_grant_rules_until_the_new_set_is_proven() -> None:
    """The holder may be the only one that has everything (attacks C9)."""
    new = any_of(1, 3)
    record = granted(led(), grant(new))
    assert record == SyncRecord(generation=6, rules=(OLD, new), target=new, primary_copy="2a")
    half_way = led(sync=SyncRecord(generation=5, rules=(OLD, NEW), target=NEW))
    assert granted(half_way, grant(new)).rules == (OLD, NEW, new)


def test_a_grant_of_nobody_is_the_holder_alone() -> None:
    record = granted(led(), grant(ALONE))
    assert record == SyncRecord(generation=6, rules=(ALONE,), primary_copy="2a")


def test_after_a_loss_that_was_accepted_only_the_holder_counts() -> None:
    new = any_of(1, 3)
    assert granted(led(), grant(new, after_loss=True)).rules == (ALONE, new)


def test_a_grant_without_a_set_leaves_the_record_as_it_is() -> None:
    assert granted(led(), grant(None)) == led().sync


def test_the_copy_of_a_primary_whose_commits_wait_must_have_a_name() -> None:
    """Else any directory in its place would pass for it later. What stands in the log already is
    taken all the same: the group's lease has moved with it."""
    nameless = GrantPayload(
        reign=grant(NEW).reign,
        record=WHY,
        sync=SyncGrant(target=any_of(1, 3), primary_copy=""),
    )
    why = grant_obstacle(led(), 2, 2, nameless)
    assert why == "the new primary's own copy has no name"
    assert not apply_grant_explained(led(), 2, 2, nameless, 1).refusal
    assert not grant_obstacle(led(), 2, 2, grant(any_of(1, 3)))
    alone = replace(nameless, sync=SyncGrant(target=NO_SET, primary_copy=""))
    assert not grant_obstacle(led(), 2, 2, alone)
    assert not grant_obstacle(led(), 2, 2, grant(None))


def test_a_grant_of_a_set_that_holds_its_own_primary_is_refused() -> None:
    payload = grant(any_of(1, 2))
    assert grant_obstacle(led(), 2, 2, payload) == grant_refusal(led(), 2, 2, payload) != ""
    applied = apply_grant_explained(led(), 2, 2, payload, 1)
    assert applied.refusal == "node 2 is the primary: its own copy is never counted"


def test_sets_in_words() -> None:
    assert OLD.text() == "any 1 of node 2, 3"
    assert NO_SET.text() == "nobody"
    assert ALONE.text() == "nobody (the primary alone)"
    assert SyncRecord().asynchronous
    assert not SyncRecord(rules=(ALONE,)).asynchronous
    assert not SyncRecord(rules=(NO_SET, OLD), target=OLD).asynchronous
