"""Rejoining: judged before attached; plain start, rewind, clone; nothing half-made is started."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.decision import Follow, StaySealed, Wait
from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Attempt, DataKind
from ramd.domain.server import StopMode
from ramd.execute.context import Situation
from ramd.execute.local import LocalStore, Unproven
from tests.support.fake_consensus import reign
from tests.support.ramd_node import (
    FORK,
    ME,
    Node,
    event,
    led_by_node_2,
    make,
    primary_of,
    streams,
    upstream,
)
from tests.support.virtual_time import clock_ns, elapse, virtual

FOLLOW = Follow(epoch=2, upstream=2)

# --- the three rungs -------------------------------------------------------------------------


@pytest.mark.parametrize("situation", [Situation.STOPPED, Situation.CRASHED])
@virtual
async def test_first_rung_plain_start(tmp_path: Path, situation: Situation) -> None:
    node, _ = make(tmp_path, situation)
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)
        started = [c for c in node.server.calls if c.startswith("start as")]
        assert started == ["start as replica of None"], "no WAL from anybody before it is judged"
        assert "rewind" not in node.server.calls
        assert node.server.slots == (False, (2, 3))


@virtual
async def test_second_rung_rewind(tmp_path: Path) -> None:
    node, primary = make(tmp_path, Situation.STOPPED, end=1050, state=led_by_node_2(first=ME))
    primary.write(400)
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)
        assert node.server.calls.count("rewind") == 1
        assert "clone" not in node.server.calls
        assert node.server.aside == []
        assert LocalStore.load(tmp_path).record.unproven is Unproven.NO


@virtual
async def test_former_primary_is_stopped_unwritten_and_rewound(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.PRIMARY, end=1050, state=led_by_node_2(first=ME))
    async with node.store.opening(1):
        pass
    async with node.running():
        await node.reach(FOLLOW)
        assert node.server.calls.index("stop immediate") < node.server.calls.index("rewind")
        assert node.store.record.released_epoch == 1
        assert streams(node)


@virtual
async def test_third_rung_failed_rewind_is_never_started_but_kept_and_cloned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, _ = make(tmp_path, Situation.STOPPED, end=1050)
    node.server.fail("rewind", PostgresError("could not open file"))
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)
        assert [disk.system_id for disk in node.server.aside] == ["torn"]
        after = node.server.calls[node.server.calls.index("rewind") + 1 :]
        assert after.index("set_aside") < after.index("clone") < after.index("start")
    assert event(caplog, "rewind_failed")


@virtual
async def test_unknown_lineage_is_cloned(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    node.server.disk.timeline = 9
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)
        assert "rewind" not in node.server.calls
        assert len(node.server.aside) == 1


@virtual
async def test_rewind_that_does_not_help_is_followed_by_a_clone(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED, end=1050)

    def useless(call: str) -> None:
        # What the rewind did is undone: the server still holds what it held before.
        if call == "start" and node.store.record.unproven is Unproven.REWOUND:
            disk = node.server.disk
            disk.timeline, disk.end, disk.history, disk.consistent_at = 1, 1050, (), 0

    node.server.on_call = useless
    async with node.running():
        await node.reach(FOLLOW)
        assert node.server.calls.count("rewind") == 1
        assert len(node.server.aside) == 1
        assert streams(node)


@virtual
async def test_each_goal_has_its_own_rewind(tmp_path: Path) -> None:
    node, primary = make(tmp_path, Situation.STOPPED, end=1050)
    async with node.running():
        await node.reach(FOLLOW)
        await node.reach(Wait(reason="in between"))
        await node.server.stop(StopMode.FAST, timeout_ms=1000)
        disk = node.server.disk
        disk.timeline, disk.end, disk.history, disk.consistent_at = 1, 1060, (), 0
        primary.write()
        await node.reach(FOLLOW)
        assert node.server.calls.count("rewind") == 2
        assert node.server.aside == []


# --- interruptions ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["rewind", "clone"])
@virtual
async def test_changed_goal_cancels_a_long_step_and_its_result_is_not_started(
    tmp_path: Path, step: str
) -> None:
    situation = Situation.STOPPED if step == "rewind" else Situation.ABSENT
    node, _ = make(tmp_path, situation, end=1050 if step == "rewind" else 0)
    node.server.faults.extra_s[step] = 3600.0
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: step in node.server.calls)
        begun_ns = clock_ns()
        attempt = Attempt(term=3, number=1)
        await node.reach(StaySealed(epoch=2, attempt=attempt))
        assert clock_ns() - begun_ns < 1e9
        assert not node.server.running
        node.server.faults.extra_s.clear()
        await node.reach(FOLLOW, attempt=attempt)
        assert len(node.server.aside) == 1, "what was cut short is kept aside"
        assert streams(node)


@virtual
async def test_daemon_that_dies_in_a_rewind_does_not_start_its_result(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED, end=1050)
    node.server.faults.extra_s["rewind"] = 3600.0
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "rewind" in node.server.calls)
        assert LocalStore.load(tmp_path).record.unproven is Unproven.REWINDING
    again = Node(ME, node.server.net, led_by_node_2(), tmp_path)
    again.server.disk = node.server.disk
    async with again.running():
        await again.reach(FOLLOW)
        assert again.server.calls.index("set_aside") < again.server.calls.index("start")
        assert "clone" in again.server.calls


@virtual
async def test_rewound_server_without_its_upstream_starts_over(tmp_path: Path) -> None:
    node, primary = make(tmp_path, Situation.STOPPED, end=1050)

    def vanish(call: str) -> None:
        if call == "start" and node.store.record.unproven is Unproven.REWOUND:
            node.server.net.cut.add(2)

    primary.disk.end = 2000
    node.server.on_call = vanish
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: 2 in node.server.net.cut)
        await elapse(5)
        assert not node.server.accepting, "it is not consistent"
        third = reign(3, 3, parent_timeline=1, fork_lsn=Lsn(FORK), seal_lsn=Lsn(FORK))
        state = node.consensus.cluster
        node.consensus.cluster = replace(state, reigns=(*state.reigns, third))
        primary_of(node.server.net, 3, timeline=3, fork=FORK, end=1200)
        await node.reach(Follow(epoch=3, upstream=3), within_s=200)
        assert len(node.server.aside) == 1
        assert node.server.disk.timeline == 3


# --- a running replica -----------------------------------------------------------------------


@virtual
async def test_replica_of_another_node_is_detached_judged_and_attached(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA, end=900)
    node.server.disk.upstream = upstream(3)
    async with node.running():
        await node.reach(FOLLOW)
        calls = node.server.calls
        assert calls.index("follow None") < calls.index("sealed_position")
        assert calls.index("sealed_position") < calls.index("follow 2")
        assert "stop" not in calls
        assert streams(node)


@virtual
async def test_replica_that_streams_from_the_right_node_is_not_disturbed(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    node.server.disk.upstream = upstream(2)
    async with node.running():
        await node.reach(FOLLOW)
        assert "follow None" not in node.server.calls
        assert "stop" not in node.server.calls


@virtual
async def test_attached_before_the_fork_is_recorded_if_not_past_the_election(
    tmp_path: Path,
) -> None:
    node, _ = make(tmp_path, Situation.REPLICA, end=990, state=led_by_node_2(fork=None))
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)


@virtual
async def test_past_the_election_waits_for_the_fork(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA, end=1000, state=led_by_node_2(fork=None, seal=950))
    async with node.running():
        node.executor.pursue(FOLLOW)
        await elapse(5)
        standing = node.executor.standing()
        assert not standing.settled
        assert standing.failures == 0, "waiting is no failure"
        assert "follow 2" not in node.server.calls
        node.consensus.cluster = led_by_node_2(seal=950)
        await node.until(lambda: node.executor.standing().settled, within_s=2.0)
        assert streams(node)


@virtual
async def test_repointing_to_the_next_primary(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    async with node.running():
        await node.reach(FOLLOW)
        node.server.stream()
        end = node.server.disk.end
        node.server.net.servers[2].crash()
        third = reign(3, 3, parent_timeline=2, fork_lsn=Lsn(end), seal_lsn=Lsn(end))
        state = node.consensus.cluster
        node.consensus.cluster = replace(state, reigns=(*state.reigns, third))
        new = primary_of(node.server.net, 3, timeline=3, fork=end, end=end + 50)
        new.disk.history = ((1, FORK), (2, end))
        node.server.calls.clear()
        await node.reach(Follow(epoch=3, upstream=3))
        assert "stop" not in node.server.calls
        node.server.stream()
        assert node.server.disk.timeline == 3


@virtual
async def test_silent_stream_is_judged_again_and_found_diverged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, primary = make(tmp_path, Situation.STOPPED)
    async with node.running():
        await node.reach(FOLLOW)
        # The record was right; the disk of the replica is not what it said (a background record).
        node.server.disk.timeline, node.server.disk.history = 1, ()
        node.server.disk.end = 1060
        primary.write()
        await node.until(lambda: "rewind" in node.server.calls, within_s=60)
        await node.until(lambda: streams(node))
    lost = event(caplog, "stream_lost")
    assert lost[0].silent_ms > 30_000


@virtual
async def test_wal_that_is_gone_ends_in_a_clone(tmp_path: Path) -> None:
    node, primary = make(tmp_path, Situation.STOPPED, end=500)
    primary.disk.history = ((1, FORK), (7, 1001))
    node.consensus.cluster = led_by_node_2()
    async with node.running():
        node.executor.pursue(FOLLOW)
        # Attached, on the line by the record, and yet nothing can be streamed.
        primary_history, primary.disk.history = primary.disk.history, ((7, FORK),)
        assert primary_history
        await node.until(lambda: "clone" in node.server.calls, within_s=300)
        assert len(node.server.aside) == 1
        assert node.server.calls.count("stop fast") >= 2


@virtual
async def test_replica_is_not_taken_apart_for_a_primary_that_is_not_there(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    async with node.running():
        await node.reach(FOLLOW)
        node.server.net.cut.add(2)
        await elapse(600)
        assert "stop" not in node.server.calls
        assert node.server.running
        assert node.server.aside == []


@virtual
async def test_diverged_replica_goes_on_serving_reads_until_its_source_is_there(
    tmp_path: Path,
) -> None:
    node, _ = make(tmp_path, Situation.REPLICA, end=1050)
    node.server.net.cut.add(2)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await elapse(60)
        assert node.server.accepting
        assert "not reachable" in node.executor.standing().activity
        node.server.net.cut.clear()
        await node.until(lambda: streams(node))


# --- what cannot be followed -----------------------------------------------------------------


@virtual
async def test_directory_of_another_system_is_never_touched(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    node.server.disk.system_id = "6999"
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: node.executor.standing().failures >= 2)
        assert "6999" in node.executor.standing().activity
        assert set(node.server.calls) == {"inspect"}


@virtual
async def test_partial_directory_is_kept_only_when_a_clone_can_follow(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.PARTIAL)
    node.server.net.cut.add(2)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await elapse(10)
        assert node.server.disk.kind is DataKind.PARTIAL
        node.server.net.cut.clear()
        await node.reach(FOLLOW)
        assert streams(node)


@virtual
async def test_directory_that_never_starts_is_replaced_once(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    node.server.fail("start", *[PostgresError("invalid checkpoint record")] * 30)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "clone" in node.server.calls, within_s=300)
        assert node.server.calls.count("start") == 8
        await elapse(600)
        assert len(node.server.aside) == 1


@virtual
async def test_hung_replica_is_stopped_and_started_again(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    node.server.faults.hung = True
    async with node.running():
        await node.reach(FOLLOW, within_s=200)
        assert "sigkill" in node.server.calls
        assert streams(node)


@virtual
async def test_long_recovery_is_given_its_time(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STARTING)
    assert node.server.process is not None
    node.server.process.accepts_at += 400.0
    async with node.running():
        await node.reach(FOLLOW, within_s=600)
        assert "stop" not in node.server.calls
