"""The rules, each taken out on its own: what the daemon, or its use of PostgreSQL, is without it.

Lives here: patches. Must not live here: which story shows the violation (see `test_stories`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ramd.domain.decision import GiveUp
from ramd.domain.model import ClusterState
from ramd.execute import following, leading, leaving, yielding
from ramd.execute.context import Step
from ramd.execute.guard import Guard
from ramd.execute.local import LocalStore
from ramd.execute.syncing import Proof, Syncing
from ramd.policy import candidates, damping, election, membership, plan, syncset
from ramd.state import apply as state_apply
from ramd.state import sync
from ramd.state.member_commands import DropMember
from ramd.state.sync import ChangeSync
from tests.support.ha_world import World

Without = Callable[[pytest.MonkeyPatch, World], None]


def nothing(_patch: pytest.MonkeyPatch, _world: World) -> None:
    """All rules hold."""


def joint_record(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C5: the new set rules alone as soon as it is recorded, whatever the server goes by."""

    def changed(state: ClusterState, command: ChangeSync) -> ClusterState:
        record = replace(
            state.sync,
            generation=command.generation,
            rules=(command.target,),
            target=command.target,
            primary_copy=command.primary_copy or state.sync.primary_copy,
        )
        return replace(state, sync=record)

    patch.setitem(state_apply._EFFECTS, ChangeSync, changed)


def proof(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C6: whoever streams is taken to have everything."""

    def prove(self: Syncing, proof: Proof, *_: Any) -> None:
        proof.done = True

    patch.setattr(Syncing, "_prove", prove)


def copies(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C7: a node is a member by its name, whatever is in its directory."""

    async def tie(self: LocalStore, tie: str) -> str:
        wanted = replace(self._record, copy=self._record.copy or "0" * 16, copy_tie=tie)
        await self._write(wanted)
        return ""

    patch.setattr(LocalStore, "tie", tie)


def slots(_patch: pytest.MonkeyPatch, world: World) -> None:
    """C7: several streams of one node are counted each."""
    world.slots = False


def numbered_timelines(patch: pytest.MonkeyPatch, world: World) -> None:
    """C8: PostgreSQL takes the next number that it knows of, and nobody minds."""
    world.numbers_timelines = False
    patch.setattr(leading, "_not_as_granted", lambda *_: "")


def proven_start(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C9, H6: the lease is published without looking at replicas."""
    patch.setattr(Syncing, "obstacle", lambda self, epoch: "")


def replayed(_patch: pytest.MonkeyPatch, world: World) -> None:
    """C10: the position is what was received or replayed so far."""
    world.replays_first = False


def furthest(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C10: the best of those that people want, whatever it lacks and could get."""
    patch.setattr(candidates, "guarded", lambda view: False)
    patch.setattr(election, "order_for", lambda *_: None)


def lineage(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C10: positions are compared as numbers."""
    patch.setattr(candidates, "off_line", lambda *_: "")
    patch.setattr(candidates, "void", lambda *_: "")
    patch.setattr(syncset, "void", lambda *_: "")


def forks(patch: pytest.MonkeyPatch, _world: World) -> None:
    """Positions on the line are compared as numbers, whatever their timelines."""
    patch.setattr(candidates, "reach", lambda reigns, position, others=(): position.lsn)


def dead_sessions(_patch: pytest.MonkeyPatch, world: World) -> None:
    """H1: the epoch is given back although sessions of the dead server live."""
    world.kills_remains = False


def unsealing(patch: pytest.MonkeyPatch, _world: World) -> None:
    """H2: nobody lifts the seal of a coordinator that is gone."""
    original = LocalStore.unseal

    async def unseal(self: LocalStore, attempt: Any) -> None:
        held = self.record.seal
        if held is not None and attempt is not None and attempt.term != held.attempt.term:
            attempt = None
        await original(self, attempt)

    patch.setattr(LocalStore, "unseal", unseal)


def seal(patch: pytest.MonkeyPatch, world: World) -> None:
    """M8: without a primary there is nothing to seal against."""

    async def detach(work: Any) -> None:
        work.known.detached = True

    world.seals_detached = False
    patch.setattr(following, "_detach", detach)


def start_numbers(patch: pytest.MonkeyPatch, _world: World) -> None:
    """H8: a lease is for whatever runs."""
    original = Guard._publish

    def publish(self: Guard) -> None:
        if self._watched.start_number:
            self._watched.start_number = self._ports.server.fence.start_number()
        original(self)

    patch.setattr(Guard, "_publish", publish)


def fetched(patch: pytest.MonkeyPatch, _world: World) -> None:
    """Nobody fetches anything before a promotion."""
    patch.setattr(election, "order_for", lambda *_: None)


def latch(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C4, C11: the word goes to 0 and nothing is latched: the next look publishes again."""

    def shut(self: Guard, epoch: int, *, drain_at_ns: int = 0) -> None:
        self._ports.server.fence.shut(0, drain_at_ns=drain_at_ns)

    async def kept(self: LocalStore, epoch: int) -> None:
        return None

    patch.setattr(Guard, "shut", shut)
    patch.setattr(LocalStore, "latch", kept)


def confirmed_end(patch: pytest.MonkeyPatch, _world: World) -> None:
    """H3: whoever streams is taken to have all WAL."""
    patch.setattr(yielding, "_holders", lambda work, *_: work.ports.others)


def kept_aside(patch: pytest.MonkeyPatch, _world: World) -> None:
    """S7: a directory that is in the way is deleted."""

    async def set_aside(work: Any, why: str) -> Any:
        await work.server.data.kill_remains(timeout_ms=1_000)
        await work.server.data.remove_data()
        work.ports.changed()
        return Step.AGAIN

    patch.setattr(leaving, "set_aside", set_aside)


def two_entries(patch: pytest.MonkeyPatch, world: World) -> None:
    """H7: going on alone is one entry, which counts before the primary has relaxed."""
    joint_record(patch, world)


def checked_sets(patch: pytest.MonkeyPatch, _world: World) -> None:
    """M9: any set is taken."""
    patch.setattr(sync, "set_refusal", lambda *_, **__: "")


def raised_commits(_patch: pytest.MonkeyPatch, world: World) -> None:
    """H4: a session may ask not to wait for replicas."""
    world.raises_weak = False


def checked_waits(_patch: pytest.MonkeyPatch, world: World) -> None:
    """H4: a commit whose wait was cancelled is confirmed with a warning."""
    world.checks_waits = False


def kept_until_it_counts_no_more(patch: pytest.MonkeyPatch, _world: World) -> None:
    """M7: a member that commits may rest on is let go."""
    patch.setattr(membership, "_still_counts", lambda *_: False)
    original = state_apply._CHECKS[DropMember]

    def refusal(state: ClusterState, command: DropMember) -> str:
        return original(replace(state, sync=replace(state.sync, rules=())), command)

    patch.setitem(state_apply._CHECKS, DropMember, refusal)


def waiting_fenced(patch: pytest.MonkeyPatch, _world: World) -> None:
    """S9: a primary whose lease has ended is given up."""
    patch.setattr(plan, "_fenced", lambda epoch, *_: GiveUp(epoch=epoch, reason="no lease"))


def time_to_renew(patch: pytest.MonkeyPatch, _world: World) -> None:
    """S9: a lease that is over is over, whoever was there to renew it."""
    patch.setattr(damping, "_renew_until_ns", lambda view: 0)


def fed_receivers(patch: pytest.MonkeyPatch, _world: World) -> None:
    """A daemon that is silent is gone."""
    patch.setattr(damping, "_fed", lambda view: None)
