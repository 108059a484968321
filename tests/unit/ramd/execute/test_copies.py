"""A data directory that is another one than before is another copy (attacks C7)."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from ramd.domain.decision import Follow, StaySealed
from ramd.domain.observation import Attempt
from ramd.execute.context import Situation
from ramd.execute.copies import know_copy
from ramd.execute.local import FILE_NAME, LocalStore, Unproven
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import ME, Node, event, make
from tests.support.virtual_time import virtual

FOLLOW = Follow(epoch=2, upstream=2)


@virtual
async def test_an_adopted_directory_gets_a_name_and_keeps_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, _ = make(tmp_path, Situation.REPLICA)
    await node.executor.startup()
    copy = node.executor.standing().copy
    assert len(copy) == 16
    await know_copy(node.ports)
    assert LocalStore.load(tmp_path).record.copy == copy
    assert [r.why for r in event(caplog, "copy_named")] == ["it had no name"]


@virtual
async def test_a_clone_is_another_copy(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    await know_copy(node.ports)
    before = node.store.record.copy
    node.server.disk = type(node.server.disk)()
    async with node.running():
        await node.reach(FOLLOW, attempt=Attempt(term=1, number=0))
    record = node.store.record
    assert record.copy not in ("", before)
    assert record.copy_tie == node.server.data.tie()


@virtual
async def test_a_rewound_directory_is_another_copy_although_it_is_the_same_one(
    tmp_path: Path,
) -> None:
    node, _ = make(tmp_path, Situation.STOPPED, end=1050)
    await know_copy(node.ports)
    before, tie = node.store.record.copy, node.store.record.copy_tie
    async with node.running():
        await node.reach(FOLLOW, attempt=Attempt(term=1, number=0))
    assert "rewind" in node.server.calls
    record = node.store.record
    assert record.copy not in ("", before)
    assert record.copy_tie == tie


@virtual
async def test_a_directory_that_somebody_put_in_its_place_is_another_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, _ = make(tmp_path, Situation.STOPPED)
    await know_copy(node.ports)
    before = node.store.record.copy
    old = node.server.disk
    node.server.as_cluster(end=900)
    assert node.server.disk is not old
    async with node.running():
        await node.reach(FOLLOW, attempt=Attempt(term=1, number=0))
    assert node.store.record.copy != before
    assert event(caplog, "copy_named")[-1].why == "its directory is another one"


@virtual
async def test_a_plain_restart_is_no_other_copy(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    await node.executor.startup()
    before = node.store.record.copy
    async with node.running():
        await node.reach(FOLLOW, attempt=Attempt(term=1, number=0))
        node.server.crash()
        await node.reach(FOLLOW, attempt=Attempt(term=1, number=1))
    assert node.store.record.copy == before


@virtual
async def test_a_sealed_position_says_of_which_copy_it_is(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    await node.executor.startup()
    async with node.running():
        await node.reach(StaySealed(epoch=2, attempt=Attempt(term=1, number=1)))
        report = node.executor.standing().sealed
    assert report is not None
    assert report.copy == node.store.record.copy != ""


@virtual
async def test_without_a_directory_there_is_no_copy(tmp_path: Path) -> None:
    state = cluster(reign(1, 2), system_id=SYSTEM_ID)
    node = Node(ME, FakeNet(), state, tmp_path)
    await know_copy(node.ports)
    assert node.store.record.copy == ""


@virtual
async def test_a_file_of_before_names_no_copy(tmp_path: Path) -> None:
    store = LocalStore.load(tmp_path)
    await store.mark(Unproven.NO, made_unix_ms=5)
    path = tmp_path / FILE_NAME
    data = json.loads(path.read_text())
    assert data.pop("copy")
    data.pop("copy_tie")
    path.write_text(json.dumps(data))
    assert LocalStore.load(tmp_path).record.copy == ""
