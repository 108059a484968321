"""A replica whose WAL ends before its pages do: judged by its files, completed or cloned."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ramd.domain.decision import Follow
from ramd.execute.context import Situation
from tests.support.fake_consensus import reign
from tests.support.ramd_node import FORK, Node, event, make, primary_of, streams, upstream
from tests.support.virtual_time import clock_ns, elapse, virtual

FOLLOW = Follow(epoch=2, upstream=2)


def lacking(node: Node, upto: int = 990) -> None:
    """Its pages go to `upto`, its WAL only to 900: the rest of it was lost."""
    node.server.disk.end, node.server.disk.consistent_at = 900, upto


@virtual
async def test_a_replica_that_lacks_wal_gets_it_once_its_files_are_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    node, _ = make(tmp_path, Situation.STOPPED)
    lacking(node)
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)
        starts = [c for c in node.server.calls if c.startswith("start as")]
        assert starts == ["start as replica of None", "start as replica of 2"]
        assert node.server.calls.index("extent") < node.server.calls.index(starts[1])
        assert "clone" not in node.server.calls
        assert node.server.aside == []
        assert [told.fed for told in event(caplog, "starved")] == [False]


@virtual
async def test_pages_past_a_fork_get_no_wal_of_the_other_branch(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    lacking(node, upto=FORK + 50)
    async with node.running():
        await node.reach(FOLLOW)
        assert streams(node)
        assert "start as replica of 2" not in node.server.calls[: node.server.calls.index("clone")]
        [kept] = node.server.aside
        assert kept.end == 900


@pytest.mark.parametrize("what", ["pages unknown", "primary has no such WAL"])
@virtual
async def test_what_cannot_be_completed_is_kept_aside_and_cloned(tmp_path: Path, what: str) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    lacking(node)
    node.server.disk.crashed_primary = what == "pages unknown"
    node.server.faults.wal_gone = what != "pages unknown"
    node.server.on_call = lambda call: (
        setattr(node.server.faults, "wal_gone", False) if call == "clone" else None
    )
    begun_ns = clock_ns()
    async with node.running():
        await node.reach(FOLLOW, within_s=200)
        assert streams(node)
        assert len(node.server.aside) == 1
        fed = "start as replica of 2" in node.server.calls[: node.server.calls.index("clone")]
        assert fed == (what != "pages unknown")
        patience_ms = node.ports.timing.stream_silent_ms if fed else 0
        assert clock_ns() - begun_ns > patience_ms * 1_000_000


@virtual
async def test_nothing_is_stopped_or_kept_aside_for_a_source_that_is_not_there(
    tmp_path: Path,
) -> None:
    node, primary = make(tmp_path, Situation.STOPPED)
    lacking(node)
    node.server.net.cut.add(2)
    async with node.running():
        node.executor.pursue(FOLLOW)
        await elapse(30)
        assert not any(call.startswith("stop") for call in node.server.calls)
        node.server.net.cut.clear()
        await node.until(lambda: node.executor.standing().settled)
        assert streams(node)
        assert primary.primary


@virtual
async def test_nothing_is_judged_while_the_disk_holds_up_the_search(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    lacking(node)
    node.server.faults.disk_hangs = True
    async with node.running():
        node.executor.pursue(FOLLOW)
        await elapse(30)
        assert "extent" not in node.server.calls
        node.server.faults.disk_hangs = False
        await node.until(lambda: node.executor.standing().settled)
        assert "extent" in node.server.calls
        assert streams(node)


@virtual
async def test_one_that_is_given_wal_starts_over_for_another_upstream(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    lacking(node)
    node.server.faults.wal_gone = True
    async with node.running():
        node.executor.pursue(FOLLOW)
        await node.until(lambda: "start as replica of 2" in node.server.calls)
        third = primary_of(node.server.net, 3, timeline=3, fork=FORK, end=2000)
        assert third.primary
        node.consensus.cluster = replace(
            node.consensus.cluster,
            reigns=(*node.consensus.cluster.reigns, reign(3, 3, parent_timeline=1)),
        )
        node.server.faults.wal_gone = False
        await node.reach(Follow(epoch=3, upstream=3))
        assert node.server.disk.upstream == upstream(3)
        assert node.server.disk.end == third.disk.end
        assert node.server.calls.count("start as replica of None") == 2
