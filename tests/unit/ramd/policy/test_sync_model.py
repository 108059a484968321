"""Whatever happens, whoever is promoted has every acknowledged commit (rule S4)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramd.domain.decision import ClusterView, Verdict
from ramd.domain.lsn import Lsn
from ramd.domain.model import ClusterState
from ramd.domain.observation import SealReport
from ramd.domain.sync import ALONE, SyncGrant, SyncMember, SyncRecord
from ramd.policy import candidates, syncset
from ramd.state import sync
from ramd.state.sync import ChangeSync
from tests.unit.ramd.policy.sync_model import NODES, World

NODE = st.sampled_from(NODES)
SETS = st.lists(NODE, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write")),
        st.tuples(st.just("replicate"), NODE),
        st.tuples(st.just("reload"), NODE),
        st.tuples(st.just("change"), SETS, st.integers(1, 3)),
        st.tuples(st.just("relax")),
        st.tuples(st.just("alone")),
        st.tuples(st.just("prove")),
        st.tuples(st.just("stop"), NODE),
        st.tuples(st.just("start"), NODE),
        st.tuples(st.just("follow"), NODE),
        st.tuples(st.just("clone"), NODE, NODE),
        st.tuples(st.just("lost")),
        st.tuples(st.just("released")),
    ),
    max_size=120,
)


def take(world: World, step: tuple[object, ...]) -> None:
    name, *arguments = step
    if name in ("lost", "released"):
        world.failover(released=name == "released")
    else:
        getattr(world, str(name))(*arguments)


def begun() -> World:
    """Any 1 of 2 and 3 is proven, and something was acknowledged."""
    world = World()
    world.change([2, 3], 1)
    for node in (2, 3, 4):
        world.reload(node)
        world.replicate(node)
    world.prove()
    assert world.promised
    world.write()
    world.replicate(2)
    assert world.acknowledged == 110
    return world


@settings(max_examples=300)
@given(STEPS)
def test_nothing_that_was_acknowledged_is_lost(steps: list[tuple[object, ...]]) -> None:
    world = begun()
    for step in steps:
        take(world, step)


WEIGHTS = {
    "write": 6,
    "replicate": 14,
    "reload": 8,
    "change": 4,
    "relax": 1,
    "alone": 2,
    "prove": 6,
    "stop": 3,
    "start": 6,
    "follow": 10,
    "clone": 1,
    "lost": 2,
    "released": 1,
}


def walk(seed: int, steps: int = 300) -> World:
    rng = random.Random(seed)
    world = begun()
    names = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps)
    for name in names:
        match name:
            case "change":
                nodes = rng.sample(NODES, rng.randint(0, 3))
                take(world, (name, nodes, rng.randint(1, 2)))
            case "clone":
                take(world, (name, rng.choice(NODES), rng.choice(NODES)))
            case "replicate" | "reload" | "stop" | "start" | "follow":
                take(world, (name, rng.choice(NODES)))
            case _:
                take(world, (name,))
    return world


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_long_walks_lose_nothing_and_get_somewhere(first: int) -> None:
    worlds = [walk(seed) for seed in range(first, first + 100)]
    assert sum(world.promotions for world in worlds) > 100
    assert sum(world.acknowledged > 200 for world in worlds) > 20


# --- each rule is needed -------------------------------------------------------------------------


def new_set_alone(state: ClusterState, command: ChangeSync) -> ClusterState:
    """Raft first (attacks C5)."""
    done = CHANGED(state, command)
    rules = (command.target,) if command.target.members else done.sync.rules
    return replace(done, sync=replace(done.sync, rules=rules))


def grant_alone(record: SyncRecord, grant: SyncGrant | None) -> SyncRecord:
    """The new primary's set rules before it is proven (attacks C9)."""
    done = GRANTED(record, grant)
    return done if grant is None else replace(done, rules=(grant.target,))


def any_copy(report: SealReport | None, named: SyncMember) -> bool:
    """Nodes, not copies (attacks C7)."""
    return report is not None and bool(named.copy)


def whoever(
    view: ClusterView, verdict: Verdict, reports: Mapping[int, SealReport], safe: syncset.Safe
) -> Verdict:
    """Not only who holds as much as the furthest (attacks C10)."""
    return verdict if safe.need is not None else IF_WHOLE(view, verdict, reports, safe)


def at_once(self: World, nodes: list[int], k: int) -> None:
    """Alone before the second entry (attacks H7)."""
    CHANGE(self, nodes, k)
    if self.state.sync.target == ALONE:
        self.told = ALONE


def only_loaded(self: World) -> None:
    """Settled without any confirmation (attacks C6)."""
    self.barrier = Lsn(0)
    PROVE(self)


CHANGED, GRANTED, IF_WHOLE = sync.changed, sync.granted, candidates._if_whole
CHANGE, PROVE = World.change, World.prove
WITHOUT: list[tuple[object, str, object]] = [
    (sync, "changed", new_set_alone),
    (sync, "granted", grant_alone),
    (syncset, "_is", any_copy),
    (candidates, "_if_whole", whoever),
    (World, "change", at_once),
    (World, "prove", only_loaded),
]


@pytest.mark.parametrize(
    ("where", "name", "instead"), WITHOUT, ids=["C5", "C9", "C7", "C10", "H7", "C6"]
)
def test_without_a_rule_something_is_lost(
    where: object, name: str, instead: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, instead)

    def loses(seed: int) -> bool:
        try:
            walk(seed)
        except AssertionError as lost:
            return "acknowledged was" in str(lost)
        return False

    assert any(loses(seed) for seed in range(1500))
