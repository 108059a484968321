"""The rules, each taken out: what the daemon, or its use of PostgreSQL, is without it.

Lives here: patches. Must not live here: which story shows the violation (see `test_stories`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ramd import coordinator
from ramd.domain.decision import ClusterView, FetchOrder, GiveUp, Goal, Lead, LocalFacts
from ramd.domain.model import ClusterState, Reign, StartMode
from ramd.domain.observation import Observation, SealReport, ServerRole
from ramd.execute import following, leading, leaving, yielding
from ramd.execute.context import Step
from ramd.execute.guard import Guard
from ramd.execute.lending import End, Lending, Wish
from ramd.execute.local import LocalStore
from ramd.execute.syncing import Proof, Syncing
from ramd.execute.work import Work
from ramd.policy import (
    candidates,
    damping,
    decide,
    election,
    fetching,
    handing_over,
    membership,
    plan,
    rules,
    syncset,
)
from ramd.policy.picture import attempt, living, observation, present
from ramd.policy.ruling import Ruling
from ramd.state import apply as state_apply
from ramd.state import sync
from ramd.state.commands import GrantPayload
from ramd.state.member_commands import DropMember
from ramd.state.sync import ChangeSync
from tests.support.ha_world import World

Without = Callable[[pytest.MonkeyPatch, World], None]


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


def scanned(_patch: pytest.MonkeyPatch, world: World) -> None:
    """M4: WAL is taken to end where its last file does."""
    world.scans_wal = False


def whole_records(patch: pytest.MonkeyPatch, _world: World) -> None:
    """M4: all that is fetched is taken to be replayed."""
    original = Lending._end

    async def end(self: Lending, wish: Wish) -> End:
        found = await original(self, wish)
        return End(upto=found.upto, whole=found.upto)

    patch.setattr(Lending, "_end", end)


def doubt_told(patch: pytest.MonkeyPatch, _world: World) -> None:
    """M4: the coordinator asks a server for its WAL that could not flush it."""
    original = fetching.order_for

    def order_for(view: ClusterView, *others: Any) -> FetchOrder | None:
        return original(replace(view, lease=replace(view.lease, doubt="")), *others)

    patch.setattr(election, "order_for", order_for)


def doubt_kept(patch: pytest.MonkeyPatch, _world: World) -> None:
    """M4: a node hands out WAL that its server could not flush."""
    original = LocalStore.latch

    async def kept(self: LocalStore, epoch: int, *, doubted: bool = False) -> None:
        await original(self, epoch)

    patch.setattr(LocalStore, "latch", kept)


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


def heard_first(patch: pytest.MonkeyPatch, _world: World) -> None:
    """M6: a coordinator that stood still judges by what it heard before."""
    patch.setattr(coordinator, "PAUSE_NS", 1 << 62)


def this_attempt(patch: pytest.MonkeyPatch, _world: World) -> None:
    """H2: a sealed position counts whatever it was sealed under."""

    def sealed(view: ClusterView, seen: Observation | None) -> SealReport | None:
        report = seen.sealed if seen is not None else None
        return report if report is not None and attempt(view) is not None else None

    patch.setattr(candidates, "_sealed", sealed)


def present_word(patch: pytest.MonkeyPatch, _world: World) -> None:
    """H2: what was heard of a node counts, however long ago."""
    patch.setattr(candidates, "living", observation)


def undone_before_the_grant(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C11: a switchover is undone also when its target was granted the epoch, and is lost; that is
    tried for a second."""

    def former(view: ClusterView) -> Reign | None:
        """Who handed over, if its server still runs as a primary."""
        late = view.now_ns >= (view.lease.may_move_at_ns or 0) + 1_000_000_000
        alive = living(view, present(view).node_id) is not None
        if late or alive or len(view.state.reigns) < 2:
            return None
        reign = view.state.reigns[-2]
        seen = living(view, reign.node_id)
        return reign if seen is not None and seen.role is ServerRole.PRIMARY else None

    def undo(view: ClusterView) -> Ruling:
        reign = former(view)
        assert reign is not None
        return Ruling(
            action=handing_over.next_epoch_of(view, reign),
            reason="switchover undone: its target is lost",
            candidates=candidates.foresee(view).verdicts,
        )

    def undone(rule: rules.Rule) -> rules.Rule:
        if rule.name != "switchover_undone":
            return rule
        return replace(rule, when=lambda view: former(view) is not None, act=undo)

    patch.setattr(decide, "RULES", tuple(undone(rule) for rule in rules.RULES))


def resumes_what_is_present(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C11: the log takes a grant by which an earlier epoch than the present one goes on."""
    original = state_apply._granted

    def granted(state: ClusterState, payload: GrantPayload) -> ClusterState:
        past = [r for r in state.reigns if r.node_id == payload.reign.node_id]
        if payload.reign.start is StartMode.RESUME:
            state = replace(state, reigns=(*state.reigns[:-1], past[-1]))
        return original(state, payload)

    patch.setattr(state_apply, "_resume_refusal", lambda *_: "")
    patch.setattr(state_apply, "_granted", granted)


def stood_by_for_it(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C11: a server that stood by goes on in any epoch, not just in the next one."""
    original = yielding._resume

    async def resume(work: Work, goal: Lead) -> Step:
        if work.known.yielding is not None:
            work.known.yielding.epoch = goal.epoch - 1
        return await original(work, goal)

    patch.setattr(yielding, "_resume", resume)


def stopped_if_not_for_it(patch: pytest.MonkeyPatch, _world: World) -> None:
    """C11: a server that stood by is left running in any epoch until its lease is there."""
    original = plan._elected

    def elected(state: ClusterState, told: Any, facts: LocalFacts, seen: Observation) -> Goal:
        stood_by = state.epoch - 1 if facts.yielding_epoch else 0
        return original(state, told, replace(facts, yielding_epoch=stood_by), seen)

    patch.setattr(plan, "_elected", elected)
