"""Every situation has an entry for every goal, and every one of them leads somewhere and rests."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ramd import events
from ramd.domain.decision import (
    Follow,
    GiveUp,
    Goal,
    Lead,
    Leave,
    StaySealed,
    Wait,
    Withdraw,
    Yield,
)
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, StartMode
from ramd.domain.observation import Attempt, DataKind
from ramd.execute.context import Situation
from ramd.execute.local import LocalRecord
from ramd.execute.transitions import TRANSITIONS
from tests.support.fake_consensus import cluster, reign
from tests.support.fake_server import SYSTEM_ID, FakeNet
from tests.support.ramd_node import Node, primary_of
from tests.support.virtual_time import virtual

ME = 1
ATTEMPT = Attempt(term=3, number=1)
GOALS: tuple[Goal, ...] = (
    Wait(reason="nothing to do"),
    Lead(epoch=2, timeline=2, start=StartMode.PROMOTE),
    Yield(epoch=2),
    GiveUp(epoch=2, reason="the server has crashed"),
    Follow(epoch=2, upstream=2),
    StaySealed(epoch=2, attempt=ATTEMPT),
    Leave(remove_data=False),
    Withdraw(),
)
NEVER_REACHED = {(Situation.FOREIGN, Follow)}
NOTHING_TO_LEAD_WITH = (Situation.ABSENT, Situation.PARTIAL, Situation.FOREIGN)
WITHOUT_DIRECTORY = (Situation.ABSENT, Situation.PARTIAL, Situation.FOREIGN)
CHANGES = ("start", "stop", "promote", "clone", "rewind", "initdb", "set_aside", "remove_data")


def test_every_combination_has_an_entry() -> None:
    assert set(TRANSITIONS) == {(s, g) for s in Situation for g in get_args(Goal)}


def state_for(goal: Goal) -> ClusterState:
    """Epoch 2 belongs to this node, except where it follows node 2."""
    holder = 2 if isinstance(goal, Follow) else ME
    fork = Lsn(1000) if holder == 2 else None
    second = reign(2, holder, parent_timeline=1, fork_lsn=fork, seal_lsn=Lsn(1000))
    return cluster(reign(1, 3), second, system_id=SYSTEM_ID)


def make(situation: Situation, goal: Goal, tmp_path: Path) -> Node:
    net = FakeNet()
    if isinstance(goal, Follow):
        primary_of(net, 2, timeline=2, fork=1000, end=1100)
    node = Node(ME, net, state_for(goal), tmp_path)
    node.put(situation)
    return node


def check_end(node: Node, goal: Goal, situation: Situation) -> None:
    server = node.server
    match goal:
        case Lead() if situation in NOTHING_TO_LEAD_WITH:
            assert [epoch for epoch, _ in node.consensus.released] == [2]
        case Lead():
            assert server.primary
            assert server.disk.timeline == 2
            assert node.guard.watching == 2
        case Yield() | GiveUp():
            assert {epoch for epoch, _ in node.consensus.released} == {2}
            assert node.store.record.released_epoch == 2
            assert not server.primary
        case Follow():
            server.stream()
            assert server.disk.timeline == 2
            assert server.disk.end == 1100
        case StaySealed() if situation not in WITHOUT_DIRECTORY:
            sealed = node.executor.standing().sealed
            assert sealed is not None
            assert sealed.attempt == ATTEMPT
            assert server.disk.upstream is None
        case Leave():
            assert not server.running
            kept = DataKind.FOREIGN if situation is Situation.FOREIGN else DataKind.ABSENT
            assert server.disk.kind is kept
            assert node.store.record == LocalRecord()
        case Withdraw():
            assert not server.running
            assert not [c for c in server.calls if c.startswith(("set_aside", "remove_data"))]
            assert (server.disk.kind is DataKind.ABSENT) == (situation is Situation.ABSENT)
        case _:
            assert server.calls.count("start") == 0


@pytest.mark.parametrize("goal", GOALS, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("situation", list(Situation))
@virtual
async def test_every_state_has_a_way_out_and_then_rests(
    situation: Situation, goal: Goal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(events, "emit", said.append)
    node = make(situation, goal, tmp_path)
    lease = 2 if isinstance(goal, Lead | Yield) else 0
    async with node.running(lease=lease):
        if (situation, type(goal)) in NEVER_REACHED:
            node.executor.pursue(goal)
            await node.until(lambda: node.executor.standing().failures >= 3)
            assert "cannot be used" in node.executor.standing().activity
            assert node.server.disk.kind is DataKind.FOREIGN
            return
        await node.reach(goal, attempt=ATTEMPT)
        assert events.TransitionStarted(situation=situation, goal=type(goal).__name__) in said
        check_end(node, goal, situation)
        # Once more, as every refresh does: nothing may change.
        node.server.calls.clear()
        node.executor.pursue(Wait(reason="in between"))
        await node.until(lambda: node.executor.standing().settled)
        if isinstance(goal, Lead) and node.store.released_epoch == 2:
            return  # given back: only the next epoch can be led
        await node.reach(goal, attempt=ATTEMPT)
        check_end(node, goal, situation)
        changes = [c for c in node.server.calls if c.startswith(CHANGES)]
        assert [c for c in changes if c not in ("stop immediate", "stop")] == []
