"""What the coordinator tells the others, and when: at its pace, and at once when there is news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ramd.coordinator import Coordinator
from ramd.domain.consensus import GroupStatus
from ramd.domain.decision import Goal, LeaseView
from ramd.domain.fence import NoFence
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Observation,
    Position,
    ServerRole,
    ServerState,
    Standing,
)
from ramd.execute.local import LocalStore
from ramd.loop import BEAT_MS, ControlLoop, Parts
from ramd.state.wire import Beat, decode_beat, encode_observation
from tests.support.fake_consensus import FakeConsensus, cluster, reign

MS = 1_000_000
START = 1_000_000 * MS
ME = 3


class Group(FakeConsensus):
    """A group coordinated by this node, with its peers' half of the channel."""

    def __init__(self) -> None:
        super().__init__(ME, cluster(reign(1, 1), system_id="7"))
        self.sent: list[tuple[int, Beat]] = []
        self.reported: list[int] = []
        self.coordinator = ME
        self.handlers: dict[str, Callable[[int, bytes], None]] = {}

    def status(self) -> GroupStatus:
        mine = self.coordinator == ME
        return replace(
            super().status(), coordinator=self.coordinator, is_coordinator=mine, ready=mine
        )

    def lease_view(self) -> LeaseView:
        return LeaseView(may_move_at_ns=START + 60_000 * MS)

    def unseal(self) -> None:
        """Nothing is sealed here."""

    def cast(self, node_id: int, method: str, payload: bytes) -> None:
        if method == "observe":
            self.reported.append(node_id)
            return
        assert method == "beat"
        self.sent.append((node_id, decode_beat(payload)))

    def receive(self, method: str, handler: Callable[[int, bytes], None]) -> None:
        self.handlers[method] = handler


def seen(node: int, at_ns: int, **facts: Any) -> Observation:
    """A replica that streams from node 1, unless told otherwise."""
    base = Observation(
        node_id=node,
        boot=1,
        taken_ns=at_ns,
        data=DataKind.CLUSTER,
        state=ServerState.RUNNING,
        role=ServerRole.REPLICA,
        accepting=True,
        system_id="7",
        position=Position(timeline=1, lsn=1000),  # type: ignore[arg-type]
        upstream=1,
    )
    return replace(base, **facts)


class Own:
    """This node's own observer and executor, which have nothing to do."""

    def observation(self, now_ns: int, **_: object) -> Observation:
        return seen(ME, now_ns)

    def standing(self) -> Standing:
        return Standing()

    def pursue(self, goal: Goal, *, attempt: Attempt | None = None) -> None:
        """Nothing."""


class Coordinating:
    """The loop of a coordinator; the test turns the clock and speaks for the others."""

    def __init__(self, state_dir: Path) -> None:
        self.now_ns = START
        self.group = Group()
        own: Any = Own()
        link: Any = self.group
        self.loop = ControlLoop(
            Parts(
                me=ME,
                consensus=link,
                store=LocalStore.load(state_dir),
                observer=own,
                executor=own,
                coordinator=Coordinator(
                    me=ME, consensus=self.group, now_ns=START, propose=lambda command: None
                ),
                fence=NoFence(),
                clock=lambda: self.now_ns,
            ),
            wake=asyncio.Event(),
            beaten=lambda: None,
        )

    def hear(self, node: int, **facts: Any) -> None:
        observation = seen(node, self.now_ns, **facts)
        self.group.handlers["observe"](node, encode_observation(observation))

    def beat(self, after_ms: int) -> list[tuple[int, Beat]]:
        """What is sent by one more beat."""
        self.now_ns += after_ms * MS
        self.group.sent.clear()
        self.loop.beat(self.now_ns)
        return list(self.group.sent)


def serving(state_dir: Path) -> Coordinating:
    """Node 1 is heard serving, node 2 following, and everybody has been told."""
    here = Coordinating(state_dir)
    here.hear(1, role=ServerRole.PRIMARY, epoch_opened=1, upstream=None)
    here.hear(2)
    assert {node for node, _ in here.beat(BEAT_MS)} == {1, 2}
    return here


async def test_nothing_new_is_told_again_only_at_the_usual_pace(tmp_path: Path) -> None:
    here = serving(tmp_path)
    here.hear(2)
    assert here.beat(20) == []
    assert len(here.beat(BEAT_MS)) == 2


async def test_news_of_any_node_is_told_at_once_and_once(tmp_path: Path) -> None:
    here = serving(tmp_path)
    here.hear(2, upstream=None)
    told = here.beat(20)
    assert [node for node, _ in told] == [1, 2]
    (second,) = [o for o in told[0][1].observations if o.node_id == 2]
    assert second.upstream is None
    assert here.beat(20) == []


async def test_before_there_is_anything_to_order_everybody_is_shown_who_was_heard(
    tmp_path: Path,
) -> None:
    """Two nodes with data: nobody may begin, and everybody's condition explains why."""
    here = Coordinating(tmp_path)
    here.group.cluster = cluster()
    here.hear(1, state=ServerState.STOPPED, role=None, upstream=None)
    told = here.beat(BEAT_MS)
    assert [node for node, _ in told] == [1, 2]
    assert told[0][1].directive is None
    assert [o.node_id for o in told[0][1].observations] == [1, ME]
    assert [heard.observation.node_id for heard in here.loop.board] == [1, ME]


async def test_a_new_coordinator_is_told_at_once(tmp_path: Path) -> None:
    """It calls nobody silent before it had time to hear, and that should not be needed in full."""
    here = Coordinating(tmp_path)
    for coordinator, after_ms, told in ((1, 500, [1]), (1, 20, []), (2, 20, [2]), (2, 500, [2])):
        here.group.coordinator = coordinator
        here.group.reported.clear()
        here.beat(after_ms)
        assert here.group.reported == told
