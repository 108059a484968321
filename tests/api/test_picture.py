"""What a snapshot means: verdict, trouble of each node, lag, selectors."""

from dataclasses import replace

import pytest

from ramd.api.picture import CRITICAL, DEGRADED, HEALTHY, look
from ramd.domain.lsn import Lsn
from ramd.domain.model import DecisionRecord
from ramd.domain.observation import Position, ServerRole, ServerState
from ramd.domain.service import Snapshot
from ramd.domain.sync import SyncSeen
from tests.api import stories
from tests.api.stories import NOW_NS, healthy, heard, primary_seen, replica_seen, with_heard

CRASHED = replace(primary_seen(), state=ServerState.CRASHED, accepting=False, fenced=True)
WAITING = DecisionRecord(
    epoch=0,
    rule="first_primary_waits",
    action="Hold",
    reason="node 1, 2 each have a data directory",
)
VERDICTS: list[tuple[Snapshot, str, str]] = [
    (healthy(), HEALTHY, "primary node1 accepts writes, 2 of 2 replicas stream"),
    (stories.without_quorum(healthy()), CRITICAL, "no quorum"),
    (replace(healthy(), group=None), CRITICAL, "no quorum"),
    (
        replace(healthy(), state=replace(healthy().state, reigns=())),
        CRITICAL,
        "no primary has been chosen yet",
    ),
    (
        replace(healthy(), state=replace(healthy().state, reigns=(), decisions=(WAITING,))),
        CRITICAL,
        "no primary has been chosen yet: node 1, 2 each have a data directory",
    ),
    (with_heard(healthy(), heard(CRASHED)), CRITICAL, "primary node1: server crashed"),
    (
        with_heard(healthy(), heard(replace(primary_seen(), fenced=True))),
        CRITICAL,
        "primary node1: fenced: it holds no lease",
    ),
    (
        with_heard(healthy(), heard(replace(replica_seen(1), upstream=None))),
        CRITICAL,
        "primary node1: not promoted yet",
    ),
    (
        with_heard(healthy(), heard(primary_seen(), age_ms=9_000)),
        CRITICAL,
        "primary node1: not heard for 9.0 s",
    ),
    (stories.without_heard(healthy(), 1), CRITICAL, "primary node1: never heard"),
    (
        with_heard(healthy(), heard(replace(replica_seen(3), upstream=None))),
        DEGRADED,
        "node3: does not stream",
    ),
    (
        with_heard(healthy(), heard(replace(replica_seen(3), upstream=2))),
        DEGRADED,
        "node3: streams from node 2, not the primary",
    ),
    (
        with_heard(healthy(), heard(replace(replica_seen(3), accepting=False))),
        DEGRADED,
        "node3: server does not answer",
    ),
    (
        with_heard(
            healthy(),
            heard(replace(replica_seen(3), state=ServerState.REJOINING, activity="pg_rewind")),
        ),
        DEGRADED,
        "node3: server rejoining (pg_rewind)",
    ),
    (
        with_heard(healthy(), heard(replace(replica_seen(3), role=ServerRole.PRIMARY))),
        DEGRADED,
        "node3: still runs as a primary although another node was chosen",
    ),
    (stories.without_heard(healthy(), 3), DEGRADED, "node3: never heard"),
]


@pytest.mark.parametrize(("snapshot", "status", "reason"), VERDICTS)
def test_verdict(snapshot: Snapshot, status: str, reason: str) -> None:
    picture = look(snapshot, NOW_NS)
    assert picture.status == status
    assert picture.reason.startswith(reason)


def test_all_troubles_of_a_degraded_cluster_are_named() -> None:
    snapshot = stories.without_heard(stories.without_heard(healthy(), 2), 3)
    assert look(snapshot, NOW_NS).reason == "node2: never heard; node3: never heard"


def test_an_old_observation_says_nothing_about_the_present() -> None:
    snapshot = with_heard(healthy(), heard(replica_seen(3), age_ms=3_001))
    node = look(snapshot, NOW_NS).node(3)
    assert node is not None
    assert (node.state, node.fresh, node.age_ms) == (ServerState.UNKNOWN, False, 3_001)
    assert (node.lag_bytes, node.lag_seconds) == (None, None)


def test_a_node_heard_within_one_lease_counts() -> None:
    node = look(with_heard(healthy(), heard(replica_seen(3), age_ms=3_000)), NOW_NS).node(3)
    assert node is not None
    assert node.healthy


def test_lag_is_counted_from_the_primary() -> None:
    picture = look(healthy(), NOW_NS)
    assert [n.lag_bytes for n in picture.nodes] == [0, 0, 4096]
    assert [n.lag_seconds for n in picture.nodes] == [0.0, 0.25, 0.25]


@pytest.mark.parametrize(
    "snapshot",
    [
        stories.without_heard(healthy(), 1),
        with_heard(healthy(), heard(primary_seen(), age_ms=9_000)),
        with_heard(healthy(), heard(replace(primary_seen(), position=None))),
        with_heard(
            healthy(),
            heard(replace(primary_seen(), position=Position(timeline=2, lsn=Lsn(1 << 30)))),
        ),
    ],
    ids=["never heard", "old", "no position", "other timeline"],
)
def test_lag_against_a_primary_of_unknown_position_is_unknown(snapshot: Snapshot) -> None:
    node = look(snapshot, NOW_NS).node(3)
    assert node is not None
    assert node.lag_bytes is None


def test_a_replica_ahead_of_an_older_report_has_no_negative_lag() -> None:
    node = look(with_heard(healthy(), heard(replica_seen(3, behind=-100))), NOW_NS).node(3)
    assert node is not None
    assert node.lag_bytes == 0


@pytest.mark.parametrize(
    ("selector", "node_id"),
    [
        ("1", 1),
        ("node3", 3),
        ("primary", 1),
        ("replica1", 2),
        ("replica2", 3),
        ("replica3", None),
        ("replica0", None),
        ("replica", None),
        ("replica²", None),
        ("4", None),
        ("", None),
    ],
)
def test_selectors(selector: str, node_id: int | None) -> None:
    found = look(healthy(), NOW_NS).select(selector)
    assert (found.member.node_id if found else None) == node_id


def test_a_name_goes_before_a_selector() -> None:
    state = healthy().state
    members = (*state.members[:2], replace(state.members[2], name="primary"))
    snapshot = replace(healthy(), state=replace(state, members=members))
    found = look(snapshot, NOW_NS).select("primary")
    assert found is not None
    assert found.member.node_id == 3


def test_no_primary_is_selected_before_there_is_one() -> None:
    snapshot = replace(healthy(), state=replace(healthy().state, reigns=()))
    assert look(snapshot, NOW_NS).select("primary") is None


def test_why_nobody_takes_over_is_said() -> None:
    lost = with_heard(healthy(), heard(primary_seen(), age_ms=60_000))
    record = DecisionRecord(epoch=1, rule="nobody_eligible", action="Hold", reason="node 2 lags")
    told = replace(lost, state=replace(lost.state, decisions=(record,)))
    assert look(told, NOW_NS).reason == "primary node1: not heard for 60.0 s; node 2 lags"
    of_before = replace(told.state, decisions=(replace(record, epoch=0),))
    assert look(replace(told, state=of_before), NOW_NS).reason.endswith("60.0 s")


def test_a_primary_that_waits_for_synchronous_replicas_says_so() -> None:
    seen = replace(primary_seen(), fenced=True, sync=SyncSeen(waits_for="node 2 lags"))
    story = with_heard(healthy(), heard(seen))
    assert look(story, NOW_NS).reason == "primary node1: no writes yet: node 2 lags"
    without = with_heard(healthy(), heard(replace(seen, lease_left_ms=0)))
    assert look(without, NOW_NS).reason == "primary node1: fenced: it holds no lease"
