"""When a new cluster is finished: it writes, everybody streams, and commits wait if they are to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramd.domain.model import ClusterState, Reign, Settings, StartMode
from ramd.domain.observation import FenceKind, Heard, Observation, ServerRole, ServerState
from ramd.domain.service import DaemonFacts, DaemonStatus, Snapshot, Stage
from ramd.domain.sync import SyncMember, SyncMode, SyncRecord, SyncSet
from ramd.service import finished
from tests.unit.ramd.policy.views import member

SET = SyncSet(members=(SyncMember(node_id=2, copy="2" * 16),), k=1)
PROVEN = SyncRecord(generation=1, rules=(SET,))
UNDER_WAY = SyncRecord(generation=1, rules=(SyncSet(), SET), target=SET)


def picture(sync: SyncRecord, *, nodes: int = 3, **changes: Any) -> Snapshot:
    settings = Settings(synchronous_replication=changes.pop("mode", SyncMode.AUTO))
    state = ClusterState(
        cluster_id="c",
        members=tuple(member(node) for node in range(1, nodes + 1)),
        settings=settings,
        reigns=(Reign(epoch=1, node_id=1, timeline=1, start=StartMode.OPEN),),
        sync=sync,
    )
    primary = Observation(
        node_id=1,
        boot=1,
        taken_ns=1,
        state=ServerState.RUNNING,
        role=ServerRole.PRIMARY,
        accepting=True,
        fenced=False,
        fence=FenceKind.EXTENSION,
        epoch_opened=1,
        streaming_replicas=tuple(range(2, nodes + 1)),
    )
    daemon = DaemonFacts(
        version="1",
        node_id=1,
        name="node1",
        started_ns=0,
        status=DaemonStatus.RUNNING,
        stage=Stage.FORMED,
        lease_ttl_ms=3000,
        authentication="trust",
    )
    heard = Heard(observation=replace(primary, **changes), received_ns=1)
    return Snapshot(taken_ns=1, daemon=daemon, state=state, heard=(heard,))


def test_commits_that_are_to_wait_do() -> None:
    assert finished(picture(PROVEN))


@pytest.mark.parametrize("sync", [SyncRecord(), UNDER_WAY])
def test_until_the_first_set_is_proven_a_cluster_is_not_finished(sync: SyncRecord) -> None:
    assert not finished(picture(sync))


@pytest.mark.parametrize(
    "asynchronous",
    [{"mode": SyncMode.OFF}, {"nodes": 2}, {"nodes": 1}, {"fence": FenceKind.STAND_IN}],
)
def test_where_nobody_is_to_be_waited_for_or_nothing_can_be_proven_it_is(
    asynchronous: dict[str, Any],
) -> None:
    assert finished(picture(SyncRecord(), **asynchronous))


def test_a_replica_that_does_not_stream_keeps_it_unfinished() -> None:
    assert not finished(picture(PROVEN, streaming_replicas=(2,)))
