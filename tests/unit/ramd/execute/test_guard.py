"""The stand-in fence: in time, latched first, proven before the release, whatever is under way."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.decision import Lead, Wait
from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.model import StartMode
from ramd.domain.observation import Position
from ramd.execute.guard import Guard
from ramd.execute.lease_note import LeaseNote
from ramd.execute.local import LocalStore
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import NS_PER_MS, TTL_MS, Node
from tests.support.virtual_time import clock_ns, elapse, virtual

ME = 1
LEAD = Lead(epoch=2, timeline=2, start=StartMode.PROMOTE)


async def leading(tmp_path: Path) -> Node:
    """A node whose server has been opened for epoch 2, before guard and executor run."""
    state = cluster(reign(1, 3), reign(2, ME, parent_timeline=1), system_id=SYSTEM_ID)
    node = Node(ME, FakeNet(), state, tmp_path)
    async with node.store.opening(2):
        node.server.as_cluster(timeline=2).now_running(primary=True)
    node.guard.watch(2)
    return node


def moment(node: Node, name: str) -> list[int]:
    """The times at which the server's call `name` began."""
    times: list[int] = []

    def note(call: str) -> None:
        if call == name:
            times.append(clock_ns())

    node.server.on_call = note
    return times


def event(caplog: pytest.LogCaptureFixture, name: str) -> list[Any]:
    return [r for r in caplog.records if getattr(r, "event", "") == name]


@virtual
async def test_renewed_lease_never_fences(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    async with node.running(lease=2):
        await elapse(60)
        assert node.server.primary
        assert "stop" not in node.server.calls


@virtual
async def test_server_is_stopped_before_the_deadline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = await leading(tmp_path)
    stops = moment(node, "stop")
    deadline_ns = node.lease(2)
    async with node.running():
        await node.until(lambda: bool(node.consensus.released))
    margin_ns = node.guard.margin_ms * NS_PER_MS
    assert deadline_ns - margin_ns <= stops[0] <= deadline_ns - margin_ns + 5 * NS_PER_MS
    ended = event(caplog, "fence_ended")[0]
    assert ended.in_time
    assert 0 < ended.duration_ms < node.guard.margin_ms
    assert ended.left_ms > 0


@virtual
async def test_each_renewal_moves_the_fence(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    stops = moment(node, "stop")
    async with node.running():
        for _ in range(4):
            deadline_ns = node.lease(2)
            await elapse(2.0)
        await node.until(lambda: bool(stops))
    assert abs(stops[0] - (deadline_ns - node.guard.margin_ms * NS_PER_MS)) < 5 * NS_PER_MS


@virtual
async def test_latched_before_stopped_and_dead_before_released(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    order: list[str] = []

    def at(call: str) -> None:
        on_disk = LocalStore.load(tmp_path).released_epoch
        order.append(f"{call} latched={on_disk}")

    def at_release(epoch: int) -> None:
        order.append(f"release {epoch} running={node.server.running}")

    node.server.on_call = at
    node.consensus.on_release = at_release
    node.lease(2)
    async with node.running():
        await node.until(lambda: bool(node.consensus.released))
    # The executor probes for its first goal; what matters is what the guard did.
    done = [step for step in order if step.startswith(("stop", "kill", "release"))]
    assert done == ["stop latched=2", "kill_remains latched=2", "release 2 running=False"]
    epoch, evidence = node.consensus.released[0]
    assert (epoch, evidence.reason) == (2, "lease ended")
    assert evidence.end == Position(timeline=2, lsn=Lsn(1000))


@virtual
async def test_latch_obeyed_even_if_a_renewal_arrives_during_the_fence(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    node.lease(2)

    def late_answer(call: str) -> None:
        if call == "stop":
            node.lease(2)

    node.server.on_call = late_answer
    async with node.running():
        node.executor.pursue(LEAD)
        await node.until(lambda: bool(node.consensus.released))
        await elapse(2.0)
        assert node.guard.left_ns(2) == 0
        assert not node.server.running


@virtual
async def test_slow_stop_is_killed_at_half_the_margin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = await leading(tmp_path)
    node.server.faults.hung = True
    node.lease(2)
    async with node.running():
        node.executor.pursue(Wait(reason="hung"))
        await node.until(lambda: bool(node.consensus.released))
    assert "sigkill" in node.server.calls
    ended = event(caplog, "fence_ended")[0]
    assert ended.in_time
    assert ended.duration_ms >= node.guard.margin_ms // 2


@virtual
async def test_fence_goes_on_until_it_succeeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = await leading(tmp_path)
    node.server.fail("stop", PostgresError("cannot"), OSError("cannot"))
    node.server.fail("kill_remains", PostgresError("a process in state D"))
    node.lease(2)
    async with node.running():
        await node.until(lambda: bool(node.consensus.released))
    assert len(event(caplog, "fence_stuck")) == 3
    assert not event(caplog, "fence_ended")[0].in_time
    assert not node.server.running


@virtual
async def test_fence_does_not_wait_for_a_hanging_disk_but_the_release_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = await leading(tmp_path)
    disk = asyncio.Event()

    async def hanging(work: Callable[..., None], *args: object) -> None:
        await disk.wait()
        work(*args)

    monkeypatch.setattr(asyncio, "to_thread", hanging)
    node.lease(2)
    async with node.running():
        await node.until(lambda: bool(event(caplog, "fence_ended")))
        assert event(caplog, "fence_ended")[0].in_time
        assert not node.server.running
        assert node.store.released_epoch == 2
        await elapse(2.0)
        assert node.consensus.released == []
        disk.set()
        await node.until(lambda: bool(node.consensus.released))
    assert LocalStore.load(tmp_path).released_epoch == 2


@virtual
async def test_failed_latch_is_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node = await leading(tmp_path)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    node.lease(2)
    async with node.running():
        await node.until(lambda: bool(event(caplog, "local_facts_unusable")))
        assert not node.server.running
        assert node.consensus.released == []
        assert node.guard.watching == 0


@virtual
async def test_fence_interrupts_even_what_is_not_interruptible(tmp_path: Path) -> None:
    state = cluster(reign(1, 3), reign(2, ME, parent_timeline=1), system_id=SYSTEM_ID)
    node = Node(ME, FakeNet(), state, tmp_path)
    node.server.as_cluster().now_running(primary=False)
    node.server.faults.extra_s["promote"] = 3600.0
    node.lease(2)
    async with node.running():
        node.executor.pursue(LEAD)
        await node.until(lambda: bool(node.consensus.released))
        await elapse(1.0)
        assert not node.server.running
        assert node.store.record.opened_epoch == 2
        assert [epoch for epoch, _ in node.consensus.released] == [2]


@virtual
async def test_nothing_starts_while_the_fence_is_under_way(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    node.server.faults.extra_s["kill_remains"] = 3.0
    deadline_ns = node.lease(2)
    async with node.running():
        await node.until(lambda: clock_ns() > deadline_ns)
        before = list(node.server.calls)
        node.executor.pursue(Wait(reason="another goal"))
        await elapse(1.0)
        assert node.server.calls == before
        await node.until(lambda: node.executor.standing().settled)


@pytest.mark.parametrize(("ttl_ms", "margin_ms"), [(3000, 400), (1000, 250), (15000, 400)])
@virtual
async def test_margin_is_at_most_a_quarter_of_the_ttl(
    tmp_path: Path, ttl_ms: int, margin_ms: int
) -> None:
    node = await leading(tmp_path)
    assert Guard(node.ports, ttl_ms=ttl_ms).margin_ms == margin_ms


@virtual
async def test_lease_in_hand_is_of_the_epoch_unreleased_and_before_the_margin(
    tmp_path: Path,
) -> None:
    node = await leading(tmp_path)
    assert node.guard.left_ns(2) == 0
    node.lease(2)
    assert node.guard.left_ns(2) == (TTL_MS - node.guard.margin_ms) * NS_PER_MS
    assert node.guard.left_ns(1) == 0
    await elapse(2.7)
    assert node.guard.left_ns(2) == 0
    node.lease(2)
    node.store.latch_now(2)
    assert node.guard.left_ns(2) == 0


# --- a daemon that starts beside a running server ---------------------------------------------


@virtual
async def test_adopted_server_is_kept_when_its_lease_is_renewed(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    node.guard.rest()
    assert await node.executor.startup()
    async with node.running(lease=2):
        await node.reach(Wait(reason="asking the group"))
        await elapse(10)
        assert node.server.primary
        assert node.guard.watching == 2


@virtual
async def test_adopted_server_is_stopped_when_the_group_does_not_answer(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    node.guard.rest()
    begun_ns = clock_ns()
    await node.executor.startup()
    async with node.running():
        await node.until(lambda: bool(node.consensus.released))
    assert clock_ns() - begun_ns < TTL_MS * NS_PER_MS
    assert not node.server.running


@pytest.mark.parametrize(("noted_ms", "within_ms"), [(1500, 1500), (0, 200)])
@virtual
async def test_adopted_server_has_only_the_time_its_last_daemon_noted(
    tmp_path: Path, noted_ms: int, within_ms: int
) -> None:
    node = await leading(tmp_path)
    note = LeaseNote.open(tmp_path)
    if noted_ms:
        note.write(2, clock_ns() + noted_ms * NS_PER_MS)
    node.guard = Guard(node.ports, ttl_ms=TTL_MS, note=note)
    begun_ns = clock_ns()
    node.guard.adopt(2)
    async with node.running():
        await node.until(lambda: not node.server.running)
    assert clock_ns() - begun_ns <= within_ms * NS_PER_MS
    note.close()


@virtual
async def test_renewals_are_noted_for_the_next_daemon(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    note = LeaseNote.open(tmp_path)
    node.guard = Guard(node.ports, ttl_ms=TTL_MS, note=note)
    node.guard.watch(2)
    async with node.running(lease=2):
        await elapse(5)
        noted = LeaseNote.open(tmp_path)
        assert 0 <= node.consensus.held.deadline_ns - noted.deadline_ns(2) <= 300 * NS_PER_MS
        noted.close()
    note.close()


@virtual
async def test_fence_cut_short_by_the_daemons_end_is_finished(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    node.guard.rest()
    await node.store.latch(2)
    begun_ns = clock_ns()
    await node.executor.startup()
    async with node.running():
        await node.until(lambda: not node.server.running)
        assert clock_ns() - begun_ns < 500 * NS_PER_MS


@virtual
async def test_adopted_replica_is_left_alone(tmp_path: Path) -> None:
    node = await leading(tmp_path)
    node.guard.rest()
    await node.store.latch(2)
    node.server.as_cluster().now_running(primary=False)
    await node.executor.startup()
    async with node.running():
        await elapse(10)
        assert node.server.running
        assert node.guard.watching == 0


@virtual
async def test_nothing_to_adopt(tmp_path: Path) -> None:
    node = Node(ME, FakeNet(), cluster(), tmp_path)
    assert not await node.executor.startup()
    assert node.guard.watching == 0
