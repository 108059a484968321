"""When a copy that is to be made anew goes, what stands against that, and when it is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ramd.domain.decision import ClusterView, Directive, Follow, LocalFacts, Voting
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState, Reinit
from ramd.domain.observation import Attempt, Heard, ServerState
from ramd.domain.sync import NO_SET, Stream, SyncMember, SyncMode, SyncRecord, SyncSet
from ramd.policy.membership import Renewed, next_step
from ramd.policy.plan import plan
from ramd.policy.reinit import copy_of, due, reinit_obstacle
from ramd.policy.syncing import Change, SyncMemory, SyncView, consider, recall
from ramd.policy.syncset import joining, synchronous
from tests.unit.ramd.policy.views import LED, NOW_NS, view
from tests.unit.ramd.policy.views import heard as seen

ORDER = Reinit(node_id=2, copy="2a")
ORDERED = replace(LED, reinits=(ORDER,))
BOTH = SyncSet(members=(SyncMember(node_id=2, copy="2a"), SyncMember(node_id=3, copy="3a")), k=1)


def heard(node_id: int, **changes: Any) -> Heard:
    """Node 1 is primary, every other streams from it and holds the copy `<node>a`."""
    primary = node_id == 1
    found = seen(node_id, upstream=None if primary else 1, primary=primary)
    facts = {"epoch_opened": 1 if primary else 0, "copy": f"{node_id}a"} | changes
    return replace(found, observation=replace(found.observation, **facts))


def picture(state: ClusterState, *nodes: Heard, silent: int = 0) -> ClusterView:
    board = {n: heard(n) for n in (1, 2, 3) if n != silent}
    board |= {one.observation.node_id: one for one in nodes}
    return view(state, heard=board, voting=Voting(voters=(1, 2, 3), settled=True))


# --- when it goes ----------------------------------------------------------------------------


def test_only_the_copy_that_was_named_goes() -> None:
    assert due(ORDERED, 2, "2a")
    assert not due(ORDERED, 2, "2b"), "it was made anew already"
    assert not due(ORDERED, 2, ""), "which one it holds is not known"
    assert not due(ORDERED, 3, "3a")


def test_a_copy_that_commits_wait_for_does_not_go_yet() -> None:
    waited = replace(ORDERED, sync=SyncRecord(generation=1, rules=(BOTH,), primary_copy="1a"))
    assert not due(waited, 2, "2a")
    without = SyncSet(members=BOTH.members[1:], k=1)
    assert due(replace(waited, sync=SyncRecord(generation=2, rules=(without,))), 2, "2a")


@pytest.mark.parametrize(("state", "anew"), [(LED, ""), (ORDERED, "2a")])
def test_the_node_follows_with_the_order_in_its_goal(state: ClusterState, anew: str) -> None:
    directive = Directive(epoch=1, attempt=Attempt(term=5, number=0), sealed=False)
    facts = LocalFacts(me=2, now_ns=NOW_NS, in_touch=True)
    goal = plan(state, directive, facts, heard(2).observation)
    assert goal == Follow(epoch=1, upstream=1, anew=anew)
    assert ("anew='2a'" in str(goal)) == bool(anew)


# --- the synchronous set ---------------------------------------------------------------------


def sync_view(state: ClusterState) -> SyncView:
    streams = tuple(
        Stream(node_id=node, copy=f"{node}a", flushed=Lsn(9), counts=True) for node in (2, 3)
    )
    blank = SyncView(now_ns=NOW_NS, me=1, state=state, streams=streams, provable=True)
    old = {SyncMember(node_id=n, copy=f"{n}a"): 0 for n in (2, 3)}
    return replace(blank, memory=recall(replace(blank, memory=SyncMemory(streaming=old))))


def test_the_primary_takes_it_out_of_the_set_first() -> None:
    record = SyncRecord(generation=1, rules=(BOTH,), primary_copy="1a")
    asked = consider(sync_view(replace(ORDERED, sync=record)))
    assert isinstance(asked, Change)
    assert asked.target == SyncSet(members=BOTH.members[1:], k=1)
    assert joining(ORDERED, 1) == (3,)


def test_the_only_replica_of_a_synchronous_pair_leaves_it_synchronous() -> None:
    """Nobody is promoted on the strength of commits that waited for nobody."""
    settings = replace(LED.settings, synchronous_replication=SyncMode.ON)
    pair = replace(ORDERED, members=LED.members[:2], settings=settings)
    assert joining(pair, 1) == ()
    assert synchronous(pair, 1)
    one = SyncSet(members=BOTH.members[:1], k=1)
    record = SyncRecord(generation=1, rules=(one,), primary_copy="1a")
    view_ = sync_view(replace(pair, sync=record))
    later = replace(view_, memory=replace(view_.memory, short_since_ns=0))
    asked = consider(later)
    assert isinstance(asked, Change)
    assert asked.target.alone
    assert asked.target != NO_SET


# --- when it is done -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({}, False),
        ({"copy": ""}, False),
        ({"copy": "2b"}, True),
        ({"copy": "2b", "upstream": None}, False),
        ({"copy": "2b", "upstream": 3}, False),
        ({"copy": "2b", "state": ServerState.REJOINING}, False),
    ],
)
def test_it_is_done_when_another_copy_streams(changes: dict[str, Any], done: bool) -> None:
    step = next_step(picture(ORDERED, heard(2, **changes)), 0)
    assert step == (Renewed(order=ORDER) if done else None)


def test_nobody_knows_of_a_node_that_is_silent() -> None:
    assert next_step(picture(ORDERED, silent=2), 0) is None


# --- what stands against it ------------------------------------------------------------------


def enforced(state: ClusterState, number: int) -> ClusterState:
    settings = replace(state.settings, enforce_sync_standbys=True, num_sync_standbys=number)
    return replace(state, settings=settings)


def test_a_streaming_replica_may_be_made_anew() -> None:
    assert reinit_obstacle(picture(LED), 2) == ""
    assert reinit_obstacle(picture(enforced(LED, 1)), 2) == ""
    nosync = replace(LED.members[1], nosync=True)
    aside = replace(LED, members=(LED.members[0], nosync, LED.members[2]))
    assert reinit_obstacle(picture(enforced(aside, 2)), 2) == "", "commits never wait for it"
    assert copy_of(picture(LED), 2) == "2a"
    assert copy_of(picture(LED, silent=2), 2) == ""


def test_obstacles_are_named() -> None:
    dead = heard(1, accepting=False, state=ServerState.CRASHED)
    assert "no primary serves" in reinit_obstacle(picture(LED, dead), 2)
    assert reinit_obstacle(picture(LED, silent=2), 2) == "node 2 is not heard"
    assert "commits must wait for 2 replicas" in reinit_obstacle(picture(enforced(LED, 2)), 2)


def test_one_at_a_time_unless_the_other_one_is_lost() -> None:
    other = replace(LED, reinits=(Reinit(node_id=3, copy="3a"),))
    assert "node 3 is being made anew" in reinit_obstacle(picture(other), 2)
    assert reinit_obstacle(picture(other, silent=3), 2) == ""
