"""What a recovery starts from, what stands against it, and the order in which it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramd.config.load import load_text
from ramd.domain.errors import Refused, Unavailable
from ramd.domain.lsn import Lsn
from ramd.domain.model import Reign, StartMode
from ramd.domain.observation import Position
from ramd.domain.quorum import RecoverRequest
from ramd.domain.raft import PeerFacts
from ramd.domain.service import Snapshot
from ramd.link import Survival
from ramd.recovery import Recovery, plan_of
from ramd.state.commands import decode
from ramd.state.recovery import RecordRecovery
from tests.api import stories
from tests.api.stories import NOW_NS, PRIMARY_LSN

CONFIRMED = RecoverRequest(
    apply=True, cluster_name="demo", confirmed_off=(1, 2), actor="api 127.0.0.1"
)


class FakeLink:
    """Takes proposals; `proposed` is called with each."""

    def __init__(self, proposed: Callable[[object], None]) -> None:
        self._proposed = proposed

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        self._proposed(decode(command))


class FakeHost:
    """A host in which the recovery succeeds; `steps` is what was done, in order."""

    def __init__(self, picture: Snapshot) -> None:
        self.picture = picture
        self.steps: list[object] = []
        self.changed = asyncio.Event()
        self.now = NOW_NS
        text = "postgresql_data_dir = /srv/ramd-test/d\nnode_id = 3\ncluster_name = demo\n"
        self.daemon: Any = type("D", (), {"config": load_text(text, {})})()
        self.runtime: Any = type("R", (), {"link": FakeLink(self._proposed)})()

    def now_ns(self) -> int:
        self.now += 300_000_000
        return self.now

    def unix_ms(self) -> int:
        return 7

    async def reform(self, work: Callable[[], Survival]) -> Survival:
        self.steps.append("reform")
        group = self.picture.group
        assert group is not None
        assert group.raft is not None
        alone = replace(group.raft, voters=(3,), peers=(), group_id="beef", role="leader")
        led = replace(
            group, coordinator=3, is_coordinator=True, ready=True, has_quorum=True, raft=alone
        )
        self.picture = replace(self.picture, group=led)
        return Survival(group_id="beef", index=9, term=3, uncommitted=0, aside=Path("/aside"))

    def _proposed(self, command: object) -> None:
        self.steps.append(command)
        reign = Reign(epoch=2, node_id=3, timeline=2, start=StartMode.PROMOTE, parent_timeline=1)
        state = replace(
            self.picture.state,
            members=(stories.member(3),),
            cluster_id="beef",
            reigns=(*self.picture.state.reigns, reign),
        )
        seen = replace(stories.primary_seen(3), epoch_opened=2)
        self.picture = stories.with_heard(
            replace(self.picture, state=state), stories.heard(seen, age_ms=0)
        )


def recovery(picture: Snapshot) -> tuple[Recovery, FakeHost]:
    host = FakeHost(picture)
    made: Any = host
    return Recovery(made), host


def plan(picture: Snapshot) -> Any:
    assert picture.group is not None
    assert picture.group.raft is not None
    return plan_of(picture, picture.group.raft, NOW_NS)


async def refused(picture: Snapshot, request: RecoverRequest) -> Refused:
    subject, host = recovery(picture)
    with pytest.raises(Refused) as caught:
        await subject.recover(request, timeout_s=10)
    assert host.steps == [], "nothing was touched"
    return caught.value


# --- the plan --------------------------------------------------------------------------------


def test_the_plan_says_where_this_node_stands_and_who_held_more() -> None:
    found = plan(stories.alone(me=3))
    assert (found.node_id, found.voter, found.primary, found.epoch) == (3, True, 1, 1)
    assert (found.last_index, found.commit_index, found.term) == (9, 9, 3)
    assert found.uncertain_entries == 0
    assert found.contact_age_ms == 10_000
    assert [(n.node_id, n.voter) for n in found.lost] == [(1, True), (2, True)]
    assert found.best is not None
    assert found.best.node_id in (1, 2)
    assert found.lost_bytes_min == 4096


def test_it_waits_for_the_longest_lease_since_the_last_contact() -> None:
    assert plan(stories.alone(me=3, silent_ms=10_000)).wait_ms == 0
    assert plan(stories.alone(me=3, silent_ms=1_000)).wait_ms == 3_400 - 1_000
    longer = stories.alone(me=3, silent_ms=1_000)
    assert longer.group is not None
    assert longer.group.raft is not None
    facts = replace(longer.group.raft, longest_ttl_ms=15_000)
    longer = replace(longer, group=replace(longer.group, raft=facts))
    assert plan(longer).wait_ms == 16_600 - 1_000


def test_a_voter_that_was_never_heard_is_waited_for_from_now_on() -> None:
    picture = stories.alone(me=3)
    assert picture.group is not None
    assert picture.group.raft is not None
    facts = picture.group.raft
    never = PeerFacts(node_id=1, connected=False)
    facts = replace(facts, peers=(never, facts.peers[1]))
    found = plan(replace(picture, group=replace(picture.group, raft=facts)))
    assert found.wait_ms == 3_400
    assert found.lost[0].contact_age_ms is None


def test_a_survivor_that_holds_the_most_is_not_known_to_lose_anything() -> None:
    picture = stories.alone(me=1)
    assert plan(picture).best is None
    assert plan(picture).lost_bytes_min == 0


def test_what_is_not_known_is_not_called_nothing() -> None:
    unheard = stories.without_heard(stories.without_heard(stories.alone(me=3), 1), 2)
    assert plan(unheard).lost_bytes_min is None
    deaf = stories.without_heard(stories.alone(me=3), 3)
    assert plan(deaf).lost_bytes_min is None
    picture = stories.alone(me=3)
    later = replace(stories.primary_seen(1), position=Position(timeline=2, lsn=Lsn(PRIMARY_LSN)))
    ahead = replace(
        picture.state,
        reigns=(Reign(epoch=2, node_id=1, timeline=2, start=StartMode.PROMOTE, parent_timeline=1),),
    )
    forked = stories.with_heard(replace(picture, state=ahead), stories.heard(later, age_ms=10_000))
    assert plan(forked).best.node_id == 1
    assert plan(forked).lost_bytes_min is None
    # A position on a timeline that the group never named is nobody's loss.
    stray = stories.with_heard(picture, stories.heard(later, age_ms=10_000))
    assert next(n for n in plan(stray).lost if n.node_id == 1).position is None


# --- what stands against it ------------------------------------------------------------------


async def test_without_apply_nothing_is_done() -> None:
    subject, host = recovery(stories.alone(me=3))
    result = await subject.recover(RecoverRequest(), timeout_s=10)
    assert not result.done
    assert result.plan.node_id == 3
    assert host.steps == []


async def test_a_quorum_is_never_given_up() -> None:
    error = await refused(stories.healthy(me=3), CONFIRMED)
    assert "node 2 coordinates" in error.message


async def test_a_majority_that_answers_is_waited_for() -> None:
    picture = stories.alone(me=3)
    assert picture.group is not None
    assert picture.group.raft is not None
    facts = picture.group.raft
    back = replace(facts, peers=(replace(facts.peers[0], connected=True), facts.peers[1]))
    error = await refused(replace(picture, group=replace(picture.group, raft=back)), CONFIRMED)
    assert "a majority answers (node 1)" in error.message


@pytest.mark.parametrize("name", ["", "other"])
async def test_the_clusters_own_name_is_asked_for(name: str) -> None:
    error = await refused(stories.alone(me=3), replace(CONFIRMED, cluster_name=name))
    assert error.field == "cluster_name"


@pytest.mark.parametrize("off", [(), (1,), (1, 2, 3), (1, 1, 2), (2, 3)])
async def test_exactly_the_other_voters_are_confirmed_off(off: tuple[int, ...]) -> None:
    error = await refused(stories.alone(me=3), replace(CONFIRMED, confirmed_off=off))
    assert error.field == "confirmed_off"
    assert "node1,node2" in error.hint


async def test_a_node_that_answers_is_not_off() -> None:
    """Two of five are left: not a majority, and yet the other one is there."""
    picture = stories.alone(me=3)
    assert picture.group is not None
    assert picture.group.raft is not None
    facts = picture.group.raft
    peers = (*facts.peers, *(PeerFacts(node_id=n, connected=n == 4) for n in (4, 5)))
    five = replace(facts, voters=(1, 2, 3, 4, 5), peers=peers)
    picture = replace(picture, group=replace(picture.group, raft=five))
    confirmed = replace(CONFIRMED, confirmed_off=(1, 2, 4, 5))
    error = await refused(picture, confirmed)
    assert error.message == "node4 answers: it is not off"


async def test_a_learner_only_goes_on_when_that_is_asked_for() -> None:
    picture = stories.alone(me=3)
    assert picture.group is not None
    assert picture.group.raft is not None
    facts = replace(picture.group.raft, voters=(1, 2), learners=(3,))
    learner = replace(picture, group=replace(picture.group, raft=facts))
    error = await refused(learner, CONFIRMED)
    assert "has no vote" in error.message
    subject, host = recovery(learner)
    assert (await subject.recover(replace(CONFIRMED, learner=True), timeout_s=10)).done
    assert host.steps[0] == "reform"


async def test_without_a_cluster_there_is_nothing_to_recover() -> None:
    error = await refused(stories.clusterless(), CONFIRMED)
    assert error.code == "no_cluster"
    subject, _ = recovery(replace(stories.alone(me=3), state=stories.clusterless().state))
    with pytest.raises(Unavailable):
        await subject.recover(CONFIRMED, timeout_s=10)


# --- doing it --------------------------------------------------------------------------------


async def test_it_goes_on_alone_and_records_it() -> None:
    subject, host = recovery(stories.alone(me=3))
    result = await subject.recover(CONFIRMED, timeout_s=10)
    assert host.steps == [
        "reform",
        RecordRecovery(cluster_id="beef", survivor=3, requested_by="api 127.0.0.1", at_unix_ms=7),
    ]
    assert (result.done, result.cluster_id, result.primary) == (True, "beef", 3)
    assert result.epoch == 2


async def test_a_coordinator_that_turns_up_while_it_waits_ends_it() -> None:
    subject, host = recovery(stories.alone(me=3, silent_ms=0))
    under_way = asyncio.ensure_future(subject.recover(CONFIRMED, timeout_s=30))
    await asyncio.sleep(0)
    with pytest.raises(Refused, match="under way"):
        await subject.recover(CONFIRMED, timeout_s=10)
    host.picture = stories.healthy(me=3)
    with pytest.raises(Refused, match="there is a quorum"):
        await under_way
    assert host.steps == []
