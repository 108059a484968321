"""A server that checks the lease itself: told it only when proven, left alone when it ends.

What such a server confirms is `acknowledges`: by its lease word, its start number and the clock.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.decision import GiveUp, Goal, Wait, Yield
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard
from ramd.execute.local import LocalStore, OwnFork
from tests.support.fake_fence import acknowledges, crash_cycle
from tests.support.fenced_node import A_LOOK_S, LEAD, SHUT, elected, leading, words_at
from tests.support.ramd_node import NS_PER_MS, TTL_MS, Node, event
from tests.support.virtual_time import clock_ns, elapse, virtual


def restart_daemon(node: Node, tmp_path: Path) -> None:
    """What only a process remembers is gone; server, page and files are as they were."""
    node.store = LocalStore.load(tmp_path)
    node.ports = replace(node.ports, store=node.store)
    node.guard = Guard(node.ports, ttl_ms=TTL_MS)
    node.executor = Executor(node.ports, node.guard, rng=random.Random(2))


def stopped(node: Node) -> bool:
    return any(call.startswith(("stop", "sigkill")) for call in node.server.calls)


# --- losing the lease, and getting it back ----------------------------------------------------


@virtual
async def test_what_a_server_left_in_the_page_opens_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its number stands there until the next start."""
    caplog.set_level(logging.DEBUG, "ramd")
    node, fence = await leading(tmp_path)
    number = fence.start_number()
    assert number
    node.server.process = None
    node.guard.open(2, number)
    assert not node.guard.opened
    assert fence.published == []
    assert event(caplog, "lease_published") == []


@virtual
async def test_server_outlives_its_lease_and_writes_again_when_it_returns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, _ = elected(tmp_path)
    deadline_ns = node.lease(2)
    async with node.running():
        await node.reach(LEAD)
        process = node.server.process
        assert acknowledges(node.server)
        await node.until(lambda: clock_ns() >= deadline_ns)
        assert not acknowledges(node.server)
        await elapse(60)
        assert not acknowledges(node.server)
        assert len(event(caplog, "lease_lapsed")) == 1
        node.lease(2)
        await elapse(A_LOOK_S)
        assert acknowledges(node.server)
        assert node.server.process is process
        assert not stopped(node)
    assert len(event(caplog, "lease_published")) == 2
    assert event(caplog, "fence_begun") == []
    assert node.consensus.released == []
    assert node.store.released_epoch == 0


@virtual
async def test_the_lease_is_used_to_its_very_end_and_not_longer(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running():
        node.lease(2)
        await node.reach(LEAD)
        deadline_ns = node.lease(2)
        await node.until(lambda: clock_ns() >= deadline_ns - 50 * NS_PER_MS)
        assert acknowledges(node.server), "no margin: the server needs no time to be stopped"
        await elapse(2.0)
    assert max(until_ns for until_ns, _ in fence.published) == deadline_ns


@virtual
async def test_each_renewal_reaches_the_server_within_a_look(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
        for _ in range(20):
            await elapse(1.0)
            late_ns = node.consensus.held.deadline_ns - fence.page.deadline_ns
            assert late_ns <= 300 * NS_PER_MS
            assert acknowledges(node.server)


@virtual
async def test_lapse_and_return_wake_the_loop(tmp_path: Path) -> None:
    node, _ = elected(tmp_path)
    deadline_ns = node.lease(2)
    async with node.running():
        await node.reach(LEAD)
        before = node.changes
        await node.until(lambda: clock_ns() > deadline_ns + 100 * NS_PER_MS)
        lapsed = node.changes
        node.lease(2)
        await elapse(A_LOOK_S)
        assert before < lapsed < node.changes


# --- proven first -----------------------------------------------------------------------------


@virtual
async def test_nothing_is_published_before_the_promotion_is_proven_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, fence = elected(tmp_path)
    node.server.faults.extra_s["promote"] = 2.0
    noted: list[int] = []
    note_fork = node.store.note_fork

    async def slowly(fork: OwnFork) -> None:
        assert node.server.primary
        await elapse(1.0)
        noted.append(len(fence.published))
        await note_fork(fork)

    monkeypatch.setattr(node.store, "note_fork", slowly)
    async with node.running(lease=2):
        await node.reach(LEAD)
    assert noted == [0]
    assert fence.published


@virtual
async def test_a_proven_promotion_is_opened_without_another_question(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    words: list[tuple[str, tuple[int, int]]] = []
    node.server.on_call = lambda call: words.append((call, fence.page.word))
    async with node.running(lease=2):
        await node.reach(LEAD)
    asked = [call for call, _ in words].index("promote")
    after, word = words[asked + 1]
    assert after == "probe"
    assert word != SHUT


@pytest.mark.parametrize("fault", ["timeline", "parent"])
@virtual
async def test_a_promotion_that_is_not_as_granted_never_has_a_lease(
    tmp_path: Path, fault: str
) -> None:
    node, fence = elected(tmp_path)
    if fault == "timeline":
        node.server.faults.promote_to = 5
    else:
        node.server.disk.timeline = 3
    words = words_at(node, fence)
    async with node.running(lease=2):
        node.executor.pursue(LEAD)
        await node.until(lambda: bool(node.consensus.released))
        await elapse(10)
    assert fence.published == []
    assert set(words.values()) == {SHUT}
    assert fence.page.latched == 2
    assert not node.server.running


@virtual
async def test_a_failed_promotion_never_has_a_lease(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    node.server.fail("promote", TimeoutError("too slow"))
    async with node.running(lease=2):
        node.executor.pursue(LEAD)
        await node.until(lambda: bool(node.consensus.released))
    assert (fence.published, fence.page.latched) == ([], 2)


@virtual
async def test_only_a_lease_in_hand_is_published(tmp_path: Path) -> None:
    """What the guard grants a server that it would have to stop is no lease."""
    node, fence = await leading(tmp_path)
    node.guard.open(2, fence.start_number())
    assert fence.page.word == SHUT
    node.lease(3)
    async with node.running():
        await elapse(1.0)
        assert fence.page.word == SHUT
        deadline_ns = node.lease(2)
        await elapse(A_LOOK_S)
        assert fence.page.word == (deadline_ns, 1)
        node.lease(3)
        await elapse(10)
        assert {until_ns for until_ns, _ in fence.published} == {deadline_ns}


@virtual
async def test_opening_again_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, fence = await leading(tmp_path)
    node.lease(2)
    assert not node.guard.opened
    for _ in range(3):
        node.guard.open(2, fence.start_number())
        assert node.guard.opened
    assert len(fence.published) == 1
    assert len(event(caplog, "lease_published")) == 1


@virtual
async def test_a_server_that_began_anew_after_it_was_proven_is_not_opened(tmp_path: Path) -> None:
    """The daemon may be stopped between the proof and the opening."""
    node, fence = await leading(tmp_path)
    node.lease(2)
    proven = fence.start_number()
    crash_cycle(node.server, recovers_s=0)
    node.guard.open(2, proven)
    assert not node.guard.opened
    async with node.running():
        await elapse(A_LOOK_S)
        assert not acknowledges(node.server)
        assert fence.page.word == SHUT


# --- the latch --------------------------------------------------------------------------------


@virtual
async def test_after_the_latch_no_renewal_opens_the_epoch_again(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
        node.guard.shut(2)
        assert not node.guard.opened
        published = len(fence.published)
        await elapse(10)
        node.guard.open(2, fence.start_number())
        await elapse(1)
        assert len(fence.published) == published
        assert fence.page.word == SHUT
        assert not acknowledges(node.server)
        assert node.guard.left_ns(2) == 0


@pytest.mark.parametrize("goal", [GiveUp(epoch=2, reason="told"), Yield(epoch=2)])
@virtual
async def test_a_renewal_that_arrives_while_an_epoch_is_given_back_is_not_used(
    tmp_path: Path, goal: Goal
) -> None:
    node, fence = elected(tmp_path)
    words: list[tuple[int, int]] = []

    def late(call: str) -> None:
        if call in ("kill_remains", "end_of_wal"):
            node.lease(2)
            words.append(fence.page.word)

    async with node.running(lease=2):
        await node.reach(LEAD)
        node.server.faults.extra_s["end_of_wal"] = 0.1
        node.server.on_call = late
        await node.reach(goal)
        await elapse(5)
    assert words
    assert set(words) == {SHUT}
    assert fence.page.word == SHUT
    assert fence.page.latched == 2


# --- a restarted daemon -----------------------------------------------------------------------


@virtual
async def test_restarted_daemon_publishes_only_what_it_has_proven(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
    word = fence.page.word
    fence.published.clear()
    restart_daemon(node, tmp_path)
    assert await node.executor.startup()
    async with node.running(lease=2):
        await node.reach(Wait(reason="asking the group"))
        await elapse(1.0)
        assert fence.published == []
        assert fence.page.word == word, "the lease that the last daemon published stands"
        assert acknowledges(node.server)
        await elapse(TTL_MS / 1000)
        assert not acknowledges(node.server)
        assert not stopped(node)
        await node.reach(LEAD)
        assert acknowledges(node.server)
    assert {number for _, number in fence.published} == {1}


@virtual
async def test_restarted_daemon_does_not_open_what_answers_nothing(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    assert node.server.process is not None
    node.server.process.accepts_at = clock_ns() / 1e9 + 5.0
    await node.executor.startup()
    async with node.running(lease=2):
        node.executor.pursue(LEAD)
        await elapse(4.9)
        assert fence.published == []
        await node.until(lambda: acknowledges(node.server))


@virtual
async def test_restarted_daemon_shuts_an_epoch_that_was_given_back(tmp_path: Path) -> None:
    """The last one ended between its latch and the server's end."""
    node, fence = await leading(tmp_path)
    fence.publish(clock_ns() + TTL_MS * NS_PER_MS, 1)
    await node.store.latch(2)
    restart_daemon(node, tmp_path)
    await node.executor.startup()
    assert (fence.page.word, fence.page.latched) == (SHUT, 2)
    async with node.running(lease=2):
        node.executor.pursue(LEAD)
        await elapse(10)
        assert not acknowledges(node.server)
    assert len(fence.published) == 1


# --- the server begins anew -------------------------------------------------------------------


@virtual
async def test_server_that_began_anew_by_itself_is_proven_again(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
        changes = node.changes
        crash_cycle(node.server, recovers_s=1.0)
        before = len(fence.published)
        await elapse(A_LOOK_S)
        assert fence.page.word == SHUT
        assert not node.guard.opened
        assert node.changes > changes, "the loop is told"
        node.executor.pursue(LEAD)
        await elapse(0.8)
        assert len(fence.published) == before, "it does not answer yet"
        await node.until(lambda: acknowledges(node.server), within_s=1.0)
    assert {number for _, number in fence.published[:before]} == {1}
    assert {number for _, number in fence.published[before:]} == {2}
    assert not stopped(node)


@virtual
async def test_a_lease_is_for_one_start_only(tmp_path: Path) -> None:
    """A server that somebody else starts over the same page never has it."""
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
        assert node.server.process is not None
        fence.page.begin(node.server.process.pid + 1)
        before = len(fence.published)
        await elapse(2.0)
        assert fence.page.word == SHUT
        assert len(fence.published) == before
        assert fence.start_number() == 0
