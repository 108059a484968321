"""One seed: a cluster forms, a storm, then calm, in which everything must come back.

Start reading at `run_seed`.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ramd import events
from ramd.domain.model import Handover, Removal, Settings
from ramd.domain.observation import DataKind
from ramd.execute import local
from ramd.state.commands import ChangeSettings, Destroy, RequestHandover
from tests.support.ha_faults import Storm
from tests.support.ha_people import drawn_settings, order
from tests.support.ha_time import run_on
from tests.support.ha_world import Plan, World

FORM_S = 30.0
CALM_S = 180.0
WRITES_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a run. `failure`: what broke, '' if nothing did; `trace` is a fingerprint."""

    seed: int
    tally: dict[str, int] = field(default_factory=dict)
    trace: str = ""
    failure: str = ""


def drawn(seed: int, storm_s: float | None = None) -> Plan:
    """The plan of a seed: a function of its number alone, unless told otherwise."""
    rng = random.Random(f"ha plan {seed}")
    size = rng.choice((3, 3, 5))
    length = rng.choice((10.0, 30.0, 60.0))
    return Plan(
        seed=seed,
        size=size,
        settings=Settings(startup_grace_ms=rng.choice((1_000, 6_000))),
        extension=rng.random() < 0.93,
        storm_s=length if storm_s is None else storm_s,
        nofailover=(rng.randint(1, size),) if rng.random() < 0.25 else (),
    )


@contextmanager
def patched(world: World) -> Iterator[None]:
    """Events go to the world, and names of copies are drawn from its seed."""
    emit, new_copy = events.emit, local.new_copy
    events.emit = world.emitted
    local.new_copy = lambda: f"{world.rng.getrandbits(64):016x}"
    try:
        yield
    finally:
        events.emit, local.new_copy = emit, new_copy


def run_seed(seed: int, storm_s: float | None = None) -> Outcome:
    """Run one seed. Never raises: what broke is in the outcome."""
    return run_plan(drawn(seed, storm_s), _storm_and_calm)


def run_plan(plan: Plan, story: Any) -> Outcome:
    """Run `story` in a world of `plan`."""
    kept: list[World] = []

    async def main() -> None:
        world = World(plan)
        kept.append(world)
        with patched(world):
            await story(world)
            world.tally["simulated ms"] = round(asyncio.get_running_loop().time() * 1_000) - 10**6

    failure = ""
    try:
        run_on(main())
    except Exception as error:
        text = "".join(traceback.format_exception(error)[-4:])
        failure = f"{type(error).__name__}: {error}\n{text}" + "\n".join(kept[0].trace)
    world = kept[0]
    trace = f"{world.uid} {world.tally['acknowledged']} {world.rng.random():.12f}"
    return Outcome(seed=plan.seed, tally=dict(world.tally), trace=trace, failure=failure)


def run_story(story: Any, **changes: Any) -> Counter[str]:
    """Run a directed story; raises what broke in it. Returns what happened how often."""
    plan = replace(Plan(), **changes)

    async def main() -> Counter[str]:
        world = World(plan)
        with patched(world):
            try:
                await story(world)
            except BaseException as error:
                error.add_note("\n".join(world.trace))
                raise
        return world.tally

    tally: Counter[str] = run_on(main())
    return tally


async def _storm_and_calm(world: World) -> None:
    world.start()
    storm = Storm(world)
    if world.rng.random() < 0.8:
        await world.until(lambda: not world.settled(), FORM_S, "forming")
        settings = drawn_settings(world, world.state().settings)
        order(world, ChangeSettings(settings=replace(settings, auto_failover_enabled=True)))
        await world.pass_s(world.rng.choice((0.1, 3.0, 6.0)))
    await storm.run()
    storm.calm()
    begun_s = asyncio.get_running_loop().time()
    await _comes_back(world)
    took_s = asyncio.get_running_loop().time() - begun_s
    world.tally["calm ms"] += round(took_s * 1_000)
    world.tally["calm over 40 s"] += took_s > 40
    before = sum(client.acked for client in world.clients)
    await world.until(
        lambda: sum(client.acked for client in world.clients) >= before + 5, WRITES_S, "writes"
    )
    world.tally["runs"] += 1
    if world.rng.random() < 0.2:
        await _ends(world, remove_data=world.rng.random() < 0.3)


async def _ends(world: World, *, remove_data: bool) -> None:
    """A person destroys the cluster: no directory of a member is left in its place."""
    order(world, Destroy(removal=Removal(remove_data=remove_data)))

    def members() -> list[int]:
        return [member.node_id for member in world.state().members]

    def gone() -> bool:
        done = world.state().removal is not None
        return done and all(world.hosts[n].disk.kind is DataKind.ABSENT for n in members())

    await world.until(gone, CALM_S, "the end of the cluster")
    world.tally["clusters destroyed"] += 1


async def _comes_back(world: World) -> None:
    """A primary takes writes and everybody streams. Where copies of the data were lost, a person
    may have to say that what is left is all there is."""
    settings = world.state().settings
    for _ in range(3):
        order(world, ChangeSettings(settings=replace(settings, auto_failover_enabled=True)))
        try:
            await world.until(lambda: not world.settled(), CALM_S)
            return
        except AssertionError:
            state = world.state()
            if not world.remade or _rule(world) != "nobody_eligible" or state.reign is None:
                raise
            world.tally["a person accepts a loss"] += 1
            wanted = Handover(epoch=state.epoch, target=None, accept_loss=True)
            order(world, RequestHandover(handover=wanted))
    raise AssertionError(f"nobody can be promoted, even with a person's word: {world.settled()}")


def _rule(world: World) -> str:
    """By which rule the coordinator decides now."""
    host = world.coordinator()
    decision = host.daemon.coordinator.decision if host is not None and host.daemon else None
    return decision.rule if decision is not None else ""
