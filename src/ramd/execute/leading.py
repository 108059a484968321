"""Becoming primary, staying it, and giving it back: the transitions towards Lead, Yield and GiveUp.

Order is everything here (rules S2, S3, S5): the guard watches before the server may write, the
epoch is noted durably before the server is opened, the latch is durable before a server of an epoch
is stopped for good, and an epoch is released only after the death of its server is proven.
"""

from __future__ import annotations

import asyncio

from ramd import events, member_events
from ramd.domain.decision import GiveUp, Lead, Yield
from ramd.domain.errors import PostgresError, RamdError, Unavailable
from ramd.domain.lsn import format_lsn
from ramd.domain.model import StartMode
from ramd.domain.server import Promotion, ServerFacts, StopMode
from ramd.execute.context import NotYet, Situation, Step
from ramd.execute.copies import named_anew
from ramd.execute.fetching import nothing_given
from ramd.execute.local import OwnFork, Unproven
from ramd.execute.release import release
from ramd.execute.work import Work
from ramd.state.commands import RecordFork, RecordSystem, encode

SYNCED_POLL_MS = 10

# --- Lead ------------------------------------------------------------------------------------


async def lead_absent(work: Work) -> Step:
    """Make a fresh cluster if this is the very first epoch; else there is nothing to lead with."""
    goal = _lead(work)
    if goal.start is not StartMode.OPEN:
        return await refuse(work, "there is no data directory to promote")
    need_lease(work, goal.epoch)
    work.say("initializing a new database cluster")
    await work.server.data.initdb()
    await named_anew(work.ports, Unproven.NO)
    return Step.AGAIN


async def lead_partial(work: Work) -> Step:
    """An unfinished directory is kept aside before the first initdb; it is never promoted."""
    goal = _lead(work)
    if goal.start is not StartMode.OPEN:
        return await refuse(work, "the data directory is unfinished")
    return await set_aside(work, "unfinished, before the first initdb")


async def lead_foreign(work: Work) -> Step:
    """Never touched: the epoch goes back."""
    _lead(work)
    return await refuse(work, f"the data directory is not usable: {work.seen.why}")


async def lead_stopped(work: Work) -> Step:
    """Open for the first epoch, or start as a replica to be promoted. Once it was opened for the
    epoch and stopped, that epoch never resumes; nor does a server that was to go on and stopped."""
    goal = _lead(work)
    resumes = goal.start is StartMode.RESUME
    if resumes or work.ports.store.record.opened_epoch == goal.epoch:
        return await refuse(work, "its server stopped")
    if hole := wal_hole(work):
        return await refuse(work, hole)
    need_lease(work, goal.epoch)
    if goal.start is StartMode.OPEN:
        return await _open(work, goal)
    work.say(f"starting as a replica, to be promoted in epoch {goal.epoch}")
    await start_detached(work)
    return Step.AGAIN


async def lead_starting(work: Work) -> Step:
    """Wait until the replica answers; a directory to be opened as it is must stop first."""
    goal = _lead(work)
    if goal.start is StartMode.RESUME:
        return await refuse(work, "its server was started again")
    if goal.start is StartMode.OPEN:
        return await _stop_to_reopen(work)
    work.say("waiting for the replica to accept connections")
    await wait_accepting(work)
    return Step.AGAIN


async def lead_replica(work: Work) -> Step:
    """Promote, under the lease, onto exactly the timeline of the grant."""
    goal = _lead(work)
    if goal.start is StartMode.RESUME:
        return await refuse(work, "its server is a replica")
    if goal.start is StartMode.OPEN:
        return await _stop_to_reopen(work)
    if work.ports.store.record.opened_epoch == goal.epoch:
        return await refuse(work, "an earlier promotion did not finish")
    if work.ports.state.sync.goal.members and not work.server.fence.guards:
        return await refuse(work, "without the extension its synchronous set cannot be proven")
    return await _promote(work, goal)


async def lead_primary(work: Work) -> Step:
    """Keep it, and see to what a primary owes the others: fork, system id, roles, slots."""
    goal = _lead(work)
    if work.ports.store.record.opened_epoch != goal.epoch:
        if goal.start is StartMode.OPEN:
            return await _stop_to_reopen(work)
        work.say("stopping the primary of an earlier epoch")
        await retire(work)
        return Step.AGAIN
    work.guard.watch(goal.epoch)
    facts = await wait_accepting(work)
    await _record_fork(work, goal)
    number = work.server.fence.start_number()
    await _synced(work, goal)
    work.guard.open(goal.epoch, number)
    await _record_system(work, facts)
    await work.server.ensure_roles()
    await _slots(work)
    work.say(f"primary of epoch {goal.epoch}")
    return Step.DONE


async def _slots(work: Work) -> None:
    """One for each other member, by a list that is not older than this moment: a daemon that has
    just started reads its log again, and must not take a slot from a member that it has not
    come to yet."""
    try:
        await work.ports.consensus.read_barrier(timeout_s=work.timing.propose_s)
    except Unavailable as error:
        events.emit(member_events.SlotsLeft(why=error.message))
        return  # looked at again after `refresh_ms`
    await work.server.ensure_slots(work.ports.others, primary=True)


async def _open(work: Work, goal: Lead) -> Step:
    work.say(f"opening for writing in epoch {goal.epoch}")
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    async with work.ports.store.opening(goal.epoch):
        need_lease(work, goal.epoch)
        work.guard.watch(goal.epoch)
        work.known.forget_server()
        await work.server.start(replica=False, upstream=None, timeout_ms=work.timing.start_ms)
    work.ports.changed()
    events.emit(events.ServerOpened(epoch=goal.epoch, timeline=goal.timeline))
    return Step.AGAIN


async def _promote(work: Work, goal: Lead) -> Step:
    begun_ns = work.ports.clock()
    await nothing_given(work)
    need_lease(work, goal.epoch)
    work.say(f"promoting in epoch {goal.epoch} onto timeline {goal.timeline}")
    fault = ""
    async with work.ports.store.opening(goal.epoch):
        need_lease(work, goal.epoch)
        work.guard.watch(goal.epoch)
        work.known.forget_server()
        try:
            done = await work.server.promote(goal.timeline, timeout_ms=work.timing.promote_ms)
        except (RamdError, OSError, TimeoutError) as error:
            fault = f"promotion failed: {error}"
    if fault:
        # After the opening has ended: from here on it counts as opened, and is stopped as such.
        return await refuse(work, fault)
    work.ports.changed()
    if fault := _not_as_granted(work, goal, done):
        return await refuse(work, fault)
    events.emit(_promoted(goal, done, (work.ports.clock() - begun_ns) // 1_000_000))
    await work.ports.store.note_fork(OwnFork(epoch=goal.epoch, promotion=done))
    # Only now: on any other timeline it would have to be refused, and nothing may hang on it then.
    # If a synchronous set is to be proven first, nothing else of what follows is waited for.
    work.guard.open(goal.epoch, work.server.fence.start_number())
    return Step.AGAIN


async def _synced(work: Work, goal: Lead) -> None:
    """Nothing is acknowledged before enough replicas have what this server began with (rule S5).
    They stream through slots, so those come first. Raises NotYet."""
    if work.guard.opened or not work.ports.unsynced(goal.epoch):
        return

    async def proven() -> bool | None:
        return None if work.ports.unsynced(goal.epoch) else True

    work.say(f"primary of epoch {goal.epoch}, waiting for synchronous replicas")
    await work.server.ensure_slots(work.ports.others, primary=True)
    try:
        await work.until(
            proven,
            timeout_ms=work.timing.synced_ms,
            what="synchronous replicas",
            poll_max_ms=SYNCED_POLL_MS,  # costs nothing to ask, and clients wait for it
        )
    except Unavailable as error:
        raise NotYet(f"no writes yet: {work.ports.unsynced(goal.epoch)}") from error


def _not_as_granted(work: Work, goal: Lead, done: Promotion) -> str:
    """What is wrong with the promotion; '' if it is what the grant names."""
    if done.timeline != goal.timeline:
        return f"promotion chose timeline {done.timeline}, not {goal.timeline}"
    reign = work.ports.state.reign
    if reign is not None and reign.parent_timeline not in (None, done.parent_timeline):
        return f"it was promoted from timeline {done.parent_timeline}"
    return ""


def _promoted(goal: Lead, done: Promotion, duration_ms: int) -> events.Promoted:
    return events.Promoted(
        epoch=goal.epoch,
        timeline=done.timeline,
        parent_timeline=done.parent_timeline,
        fork=format_lsn(done.fork_lsn),
        duration_ms=duration_ms,
    )


async def _record_fork(work: Work, goal: Lead) -> None:
    """The group learns where the timeline of this epoch begins (rule S6)."""
    reign = work.ports.state.reign
    if goal.start is not StartMode.PROMOTE or reign is None or reign.epoch != goal.epoch:
        return
    if reign.fork_lsn is not None:
        return
    fork = work.ports.store.record.fork
    if fork is None or fork.epoch != goal.epoch:
        # The daemon died between the promotion and its note. Followers could never be judged.
        await refuse(work, "where its timeline begins was not noted")
        raise NotYet("given back: the fork of this epoch is not known")
    command = RecordFork(
        epoch=goal.epoch,
        parent_timeline=fork.promotion.parent_timeline,
        fork_lsn=fork.promotion.fork_lsn,
    )
    await work.ports.consensus.propose(encode(command), timeout_s=work.timing.propose_s)


async def _record_system(work: Work, facts: ServerFacts) -> None:
    if not work.ports.state.system_id and facts.system_id:
        command = RecordSystem(system_id=facts.system_id)
        await work.ports.consensus.propose(encode(command), timeout_s=work.timing.propose_s)


# --- Yield and GiveUp ------------------------------------------------------------------------


async def give_up(work: Work) -> Step:
    """Nothing more is written by the epoch's server; proof of death; release."""
    goal = work.goal
    assert isinstance(goal, GiveUp | Yield)
    return await refuse(work, goal.reason if isinstance(goal, GiveUp) else "yielded")


async def refuse(work: Work, why: str) -> Step:
    """The epoch of the goal is given back. Its server is stopped at once if it may have written;
    a replica that was never opened for it goes on running."""
    goal = work.goal
    assert isinstance(goal, Lead | Yield | GiveUp)
    store = work.ports.store
    if goal.epoch > store.released_epoch and isinstance(goal, Lead):
        events.emit(events.LeaseRefused(epoch=goal.epoch, why=why))
    work.say(f"giving back epoch {goal.epoch}: {why}")
    work.guard.shut(goal.epoch)
    opened = store.record.opened_epoch == goal.epoch
    if opened or work.seen.situation is Situation.PRIMARY:
        await retire(work)
    await release(work.ports, goal.epoch, why, scan_ms=work.timing.wal_scan_ms)
    return Step.DONE


async def retire(work: Work) -> None:
    """A server that could write is stopped with nothing more written, proven dead, and the epoch
    for which it was opened is latched: it never resumes. What is left of one that has ended by
    itself is killed while the latch is on its way to the disk."""
    epoch = work.ports.store.record.opened_epoch
    work.guard.shut(epoch)
    latching = asyncio.ensure_future(work.ports.store.latch(epoch))
    try:
        if work.server.running:
            await asyncio.shield(latching)
            await work.server.stop(StopMode.IMMEDIATE, timeout_ms=work.timing.kill_ms)
        await prove_dead(work)
    finally:
        await asyncio.shield(latching)  # durable in any case before anybody is told
    work.server.fence.unbind()
    work.known.yielding = None
    work.guard.rest()


async def prove_dead(work: Work) -> None:
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    if work.server.running:
        raise PostgresError("the server still runs after it was stopped")
    work.known.forget_server()
    work.ports.changed()


# --- shared ----------------------------------------------------------------------------------


def wal_hole(work: Work) -> str:
    """Why the server that was found stopped must not be started; '' if it may be."""
    name = work.seen.directory.wal_missing if work.seen.directory else ""
    return name and f"its WAL file {name} is missing, and later ones are not"


async def start_detached(work: Work) -> None:
    """Start as a replica that takes WAL from nobody."""
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    work.known.forget_server()
    await work.server.start(replica=True, upstream=None, timeout_ms=work.timing.start_ms)
    work.known.detached = True
    work.ports.changed()


async def wait_accepting(work: Work) -> ServerFacts:
    """Facts of the server once it accepts connections."""

    async def probe() -> ServerFacts | None:
        facts = await probe_once(work)
        return facts if facts.accepting else None

    if work.seen.facts is not None and work.seen.facts.accepting:
        return work.seen.facts
    return await work.until(probe, timeout_ms=work.timing.recover_ms, what="accepting connections")


async def probe_once(work: Work) -> ServerFacts:
    """Facts of the running server. Raises Unavailable if it has ended."""
    if not work.server.running:
        raise Unavailable("the server ended while it was waited for")
    return await work.server.probe(timeout_ms=work.timing.probe_ms)


async def set_aside(work: Work, why: str) -> Step:
    """The stopped data directory is renamed, never deleted (rule S7)."""
    work.say("keeping the data directory aside", rejoining=True)
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    path = await work.server.data.set_aside(why)
    events.emit(events.SetAside(path=str(path), why=why))
    await work.ports.store.mark(Unproven.NO)
    work.known.forget_server()
    work.ports.changed()
    return Step.AGAIN


async def _stop_to_reopen(work: Work) -> Step:
    work.say("stopping the server to open it under our configuration")
    if work.ports.store.record.opened_epoch == _lead(work).epoch:
        return await refuse(work, "it was opened and is a replica now")
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.stop_ms)
    await prove_dead(work)
    return Step.AGAIN


def _lead(work: Work) -> Lead:
    """The goal. Raises NotYet if its epoch was given back: only the next epoch can help."""
    goal = work.goal
    assert isinstance(goal, Lead)
    if goal.epoch <= work.ports.store.released_epoch:
        raise NotYet(f"epoch {goal.epoch} was given back; waiting for the next")
    return goal


def need_lease(work: Work, epoch: int) -> None:
    if work.guard.left_ns(epoch) <= 0:
        raise Unavailable(f"the lease of epoch {epoch} is not in hand")
