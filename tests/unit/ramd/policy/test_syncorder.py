"""What people ask of synchronous replication is done as asked, or refused with what would be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramd.domain.errors import Refused
from ramd.domain.model import ClusterState, Reign, Settings, StartMode
from ramd.domain.sync import ALONE, NO_SET, SyncMember, SyncMode, SyncOrder, SyncRecord, SyncSet
from ramd.policy.syncorder import follows_settings, ordered
from tests.unit.ramd.policy.views import member


def led(nodes: int = 4, *, nosync: int = 0, **settings: Any) -> ClusterState:
    """Node 1 leads."""
    return ClusterState(
        cluster_id="c",
        members=tuple(member(n, nosync=n == nosync) for n in range(1, nodes + 1)),
        reigns=(Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN),),
        settings=Settings(**settings),
    )


def any_of(k: int, *nodes: int) -> SyncSet:
    return SyncSet(members=tuple(SyncMember(node_id=n, copy="a" * 16) for n in nodes), k=k)


def test_what_is_given_is_changed_and_nothing_else() -> None:
    state = led(startup_grace_ms=7)
    order = SyncOrder(
        mode=SyncMode.ON,
        num_sync_standbys=3,
        enforce_sync_standbys=True,
        sync_replication_timeout_ms=500,
    )
    assert ordered(state, order) == Settings(
        startup_grace_ms=7,
        synchronous_replication=SyncMode.ON,
        num_sync_standbys=3,
        enforce_sync_standbys=True,
        sync_replication_timeout_ms=500,
    )
    assert ordered(state, SyncOrder(enforce_sync_standbys=False)) == state.settings


@pytest.mark.parametrize(
    ("state", "order", "code", "words", "hint"),
    [
        (led(), SyncOrder(), "bad_request", "nothing to change", "mode"),
        (
            led(nosync=4),
            SyncOrder(num_sync_standbys=3),
            "invalid_field",
            "3 replicas cannot confirm, there are 2 that may",
            "1 to 2",
        ),
        (led(1), SyncOrder(num_sync_standbys=1), "invalid_field", "there are 0", "add a replica"),
        (led(1), SyncOrder(mode=SyncMode.ON), "conflict", "no replica that may", "add a replica"),
        (led(), SyncOrder(add="node9"), "not_found", "no node 'node9'", "node2, node3, node4"),
        (led(), SyncOrder(remove="node1"), "conflict", "is the primary", "node2, node3, node4"),
        (led(nosync=2), SyncOrder(add="node2"), "conflict", "tagged nosync", "nosync"),
        (led(), SyncOrder(add="node2"), "conflict", "may confirm commits already", "no replica to"),
        (
            led(sync_standby_names=("node2", "node3")),
            SyncOrder(add="3"),
            "conflict",
            "node3 may confirm commits already",
            "to add: node4",
        ),
        (
            led(sync_standby_names=("node2", "node3")),
            SyncOrder(remove="node4"),
            "conflict",
            "node4 may not confirm commits anyway",
            "to remove: node2, node3",
        ),
        (led(nosync=2), SyncOrder(remove="node2"), "conflict", "anyway", "node3, node4"),
        (
            led(num_sync_standbys=3),
            SyncOrder(remove="node2"),
            "conflict",
            "only 2 replicas could confirm, and num_sync_standbys is 3",
            "lower num_sync_standbys",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(
    state: ClusterState, order: SyncOrder, code: str, words: str, hint: str
) -> None:
    with pytest.raises(Refused) as refused:
        ordered(state, order)
    assert refused.value.code == code
    assert words in refused.value.message
    assert hint in refused.value.hint


def test_nodes_are_taken_off_the_list_and_put_back() -> None:
    state = led()
    without = ordered(state, SyncOrder(remove="node2"))
    assert without.sync_standby_names == ("node1", "node3", "node4")
    again = ordered(replace(state, settings=without), SyncOrder(remove="4"))
    assert again.sync_standby_names == ("node1", "node3")
    back = ordered(replace(state, settings=again), SyncOrder(add="node4"))
    assert back.sync_standby_names == ("node1", "node3", "node4")
    assert ordered(replace(state, settings=back), SyncOrder(add="2")).sync_standby_names == ()


def test_a_cluster_without_a_primary_has_only_replicas() -> None:
    state = replace(led(), reigns=())
    assert ordered(state, SyncOrder(num_sync_standbys=4)).num_sync_standbys == 4


@pytest.mark.parametrize(
    ("settings", "record", "follows"),
    [
        ({}, SyncRecord(rules=(any_of(1, 2, 3, 4),)), True),
        ({}, SyncRecord(rules=(any_of(1, 2),)), True),
        ({}, SyncRecord(rules=(NO_SET,)), False),
        ({}, SyncRecord(rules=(ALONE,)), False),
        ({}, SyncRecord(rules=(NO_SET, any_of(1, 2)), target=any_of(1, 2)), False),
        ({"num_sync_standbys": 2}, SyncRecord(rules=(any_of(1, 2, 3),)), False),
        ({"sync_standby_names": ("node3", "node4")}, SyncRecord(rules=(any_of(1, 2),)), False),
        ({"synchronous_replication": SyncMode.OFF}, SyncRecord(rules=(NO_SET,)), True),
        ({"synchronous_replication": SyncMode.OFF}, SyncRecord(rules=(any_of(1, 2),)), False),
    ],
)
def test_when_the_record_follows_the_settings(
    settings: dict[str, Any], record: SyncRecord, follows: bool
) -> None:
    assert follows_settings(replace(led(**settings), sync=record)) is follows


def test_before_the_first_primary_nothing_is_followed() -> None:
    assert not follows_settings(replace(led(), reigns=()))
