"""A replica's copy is made anew by order: kept aside first, cloned, and once."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.decision import Follow
from ramd.execute.context import Situation
from ramd.execute.local import Unproven
from tests.support.ramd_node import event, make, streams
from tests.support.virtual_time import elapse, virtual

FOLLOW = Follow(epoch=2, upstream=2)


@pytest.mark.parametrize(
    "situation",
    [
        Situation.ABSENT,
        Situation.PARTIAL,
        Situation.STOPPED,
        Situation.CRASHED,
        Situation.STARTING,
        Situation.REPLICA,
        Situation.PRIMARY,
    ],
)
@virtual
async def test_a_copy_that_was_ordered_anew_is_kept_aside_and_cloned_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, situation: Situation
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, _ = make(tmp_path, situation)
    await node.store.mark(Unproven.NO, made_unix_ms=1)
    before = node.store.record.copy
    async with node.running():
        await node.reach(replace(FOLLOW, anew=before))
        await elapse(60)
        assert node.store.record.copy not in ("", before)
        assert node.server.calls.count("clone") == 1
        assert len(node.server.aside) == (0 if situation is Situation.ABSENT else 1)
        assert "rewind" not in node.server.calls
        assert streams(node)
    if situation not in (Situation.ABSENT, Situation.PARTIAL):
        assert [r.why for r in event(caplog, "set_aside")] == ["a person ordered a new copy"]


@virtual
async def test_an_order_for_another_copy_changes_nothing(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    async with node.running():
        await node.reach(replace(FOLLOW, anew="of long ago"))
        assert streams(node)
        assert node.server.aside == []


@virtual
async def test_a_replica_is_not_taken_apart_for_a_source_that_is_not_there(tmp_path: Path) -> None:
    node, primary = make(tmp_path, Situation.REPLICA)
    await node.store.mark(Unproven.NO, made_unix_ms=1)
    primary.process = None
    async with node.running():
        node.executor.pursue(replace(FOLLOW, anew=node.store.record.copy))
        await elapse(30)
        assert node.server.aside == []
        assert node.server.running
        assert node.executor.standing().activity == "node 2 is not reachable"


@virtual
async def test_a_foreign_directory_is_not_touched_by_an_order_either(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.FOREIGN)
    await node.store.mark(Unproven.NO, made_unix_ms=1)
    async with node.running():
        node.executor.pursue(replace(FOLLOW, anew=node.store.record.copy))
        await elapse(30)
        assert node.server.aside == []
        assert "the data directory cannot be used" in node.executor.standing().activity
