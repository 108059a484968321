"""The lease word of a server falls first, whatever is done to the server then."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from ramd.domain.decision import Follow, GiveUp, Goal, Yield
from ramd.execute.guard import BEAT_MS
from ramd.observe.observer import Identity, Observer
from tests.support.fake_fence import acknowledges
from tests.support.fenced_node import A_LOOK_S, LEAD, SHUT, elected, leading, words_at
from tests.support.ramd_node import ME, event
from tests.support.virtual_time import clock_ns, elapse, virtual

# --- the word is shut first -------------------------------------------------------------------


@virtual
async def test_word_is_shut_before_orphans_are_killed(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    observer = Observer(
        node.server,
        identity=Identity(node_id=ME, boot=1),
        wake=lambda: None,
        exited=lambda: node.guard.shut(0),
    )
    watching = asyncio.create_task(observer.run())
    async with node.running(lease=2):
        await node.reach(LEAD)
        await elapse(1.0)
        words = words_at(node, fence)
        node.server.calls.clear()
        node.server.crash()
        await node.reach(GiveUp(epoch=2, reason="the server has crashed"))
        watching.cancel()
        calls = node.server.calls
        assert calls[0] == "shut 0", "at once, before anybody has planned anything"
        assert calls.index("shut 2") < calls.index("kill_remains")
        assert words["kill_remains"] == SHUT


@virtual
async def test_exit_alone_ends_what_is_published(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
        node.server.crash()
        await elapse(A_LOOK_S)
        published = len(fence.published)
        await elapse(2.0)
        assert len(fence.published) == published
        assert not node.guard.opened


@pytest.mark.parametrize("goal", [GiveUp(epoch=2, reason="told"), Follow(epoch=2, upstream=2)])
@virtual
async def test_word_is_shut_before_the_server_is_stopped(tmp_path: Path, goal: Goal) -> None:
    """GiveUp, and any goal that finds a primary where none may be."""
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(LEAD)
        words = words_at(node, fence)
        assert fence.page.word != SHUT
        node.executor.pursue(goal)
        await node.until(lambda: not node.server.running)
    assert words["stop"] == SHUT
    assert fence.page.latched == 2


@virtual
async def test_yield_confirms_until_the_clean_stop_and_is_shut_before_the_release(
    tmp_path: Path,
) -> None:
    node, fence = elected(tmp_path)
    at_release: list[tuple[tuple[int, int], int]] = []
    node.consensus.on_release = lambda epoch: at_release.append(
        (fence.page.word, fence.page.latched)
    )
    async with node.running(lease=2):
        await node.reach(LEAD)
        words = words_at(node, fence)
        await node.reach(Yield(epoch=2))
    assert words["stop"] != SHUT, "what was asked before the stop is answered"
    assert words["kill_remains"] == SHUT
    assert at_release == [(SHUT, 2)]


@virtual
async def test_epoch_that_was_never_opened_is_latched_in_the_page_too(tmp_path: Path) -> None:
    node, fence = elected(tmp_path)
    async with node.running(lease=2):
        await node.reach(GiveUp(epoch=2, reason="told"))
    assert (fence.page.latched, fence.published) == (2, [])
    assert node.server.running


@virtual
async def test_watch_of_another_epoch_shuts_the_one_before(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    node.lease(2)
    node.guard.open(2, fence.start_number())
    assert fence.page.word != SHUT
    node.guard.watch(2)
    assert fence.page.word != SHUT
    node.guard.watch(3)
    assert fence.page.word == SHUT
    assert fence.page.latched == 0, "nothing was given up"
    assert not node.guard.opened
    async with node.running(lease=3):
        await elapse(1.0)
        assert fence.page.word == SHUT


@virtual
async def test_rest_shuts(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    node.lease(2)
    node.guard.open(2, fence.start_number())
    node.guard.rest()
    assert fence.page.word == SHUT
    assert (node.guard.watching, fence.page.latched) == (0, 0)
    async with node.running(lease=2):
        await elapse(1.0)
        assert fence.page.word == SHUT


# --- signs of life, and the stand-in ----------------------------------------------------------


@pytest.mark.parametrize("watching", [False, True])
@virtual
async def test_the_daemon_gives_a_sign_of_life(tmp_path: Path, watching: bool) -> None:
    node, fence = await leading(tmp_path)
    node.lease(2)
    if watching:
        node.guard.open(2, fence.start_number())
    async with node.running(lease=2):
        for _ in range(10):
            before = fence.page.beats
            await elapse(BEAT_MS / 1000 * 1.01)
            assert fence.page.beats > before


@virtual
async def test_server_without_the_extension_is_stopped_in_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, fence = elected(tmp_path, loads=False)
    node.lease(2)
    async with node.running():
        await node.reach(LEAD)
        assert acknowledges(node.server)
        deadline_ns = node.lease(2)
        await node.until(lambda: not node.server.running)
        assert clock_ns() < deadline_ns
        await node.until(lambda: bool(node.consensus.released))
    assert fence.published == []
    assert event(caplog, "fence_ended")[0].in_time
    assert event(caplog, "lease_published") == []
