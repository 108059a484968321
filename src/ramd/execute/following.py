"""Being a replica of the recorded primary, or of nobody: the transitions towards Follow and
StaySealed, with the ladder of rejoining: plain start, rewind, clone.

A server never takes WAL from an upstream before the record of reigns has judged its own position
(rules S6, H2): it starts detached, replays what it has, is judged, and only then attached. One that
cannot come up with what it has is judged by its files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ramd import events
from ramd.domain.decision import Follow, StaySealed
from ramd.domain.errors import PostgresError, Refused, Unavailable
from ramd.domain.lsn import Lsn, format_lsn
from ramd.domain.observation import Position, SealReport
from ramd.domain.server import ServerFacts, StopMode, Upstream
from ramd.execute.context import Intake, NotYet, Step
from ramd.execute.copies import named_anew
from ramd.execute.fetching import as_ordered, nothing_given
from ramd.execute.leading import probe_once, retire, set_aside, start_detached, wal_hole
from ramd.execute.local import SealOrder, Unproven, text
from ramd.execute.starving import Hunger
from ramd.execute.work import Work, both
from ramd.policy.lineage import Advice, Rejoin, how_to_rejoin

ORDERED = "a person ordered a new copy"

# --- Follow: not running ---------------------------------------------------------------------


async def follow_absent(work: Work) -> Step:
    """Clone the primary; what comes out is started and judged like any other directory."""
    upstream = await _permitted(work)
    await _need_source(work, upstream)
    begun_ns = work.ports.clock()
    work.say(f"cloning from node {upstream.node_id}", rejoining=True)
    with work.interruptible():
        await work.server.data.clone(upstream)
    await named_anew(work.ports, Unproven.NO)
    duration_ms = (work.ports.clock() - begun_ns) // 1_000_000
    events.emit(events.CloneFinished(upstream=upstream.node_id, duration_ms=duration_ms))
    return Step.AGAIN


async def follow_partial(work: Work) -> Step:
    """Not to be started: kept aside, so that a clone can take its place."""
    upstream = await _permitted(work)
    await _need_source(work, upstream)
    return await set_aside(work, work.seen.why)


async def follow_foreign(work: Work) -> Step:
    """Never touched. Raises Refused: a person has to move the directory, then this goes on."""
    raise Refused(
        f"the data directory cannot be used: {work.seen.why}",
        code="foreign_directory",
        hint="move it away, and this node clones the primary",
    )


async def follow_stopped(work: Work) -> Step:
    """Start without upstream; the next step judges it."""
    upstream = await _permitted(work)
    if _ordered_anew(work):
        return await _make_room(work, upstream, ORDERED)
    if hole := wal_hole(work):
        return await _make_room(work, upstream, hole)
    if work.known.tried.starts >= work.timing.starts_max and not work.known.tried.made_room:
        return await _make_room(work, upstream, f"it did not start {work.known.tried.starts} times")
    work.known.tried.starts += 1
    work.say("starting as a replica, to be judged before it follows", rejoining=True)
    await start_detached(work)
    return Step.AGAIN


# --- Follow: running -------------------------------------------------------------------------


async def follow_starting(work: Work) -> Step:
    """Wait until it answers. One that waits for WAL of another upstream starts over; one that needs
    WAL which is not there gets it, or is cloned."""
    upstream = await _permitted(work)
    if _ordered_anew(work):
        return await _make_room(work, upstream, ORDERED)
    rewound = work.ports.store.record.unproven is Unproven.REWOUND
    completing = work.known.completing
    if completing != upstream and (rewound or completing is not None):
        work.say("stopping: only its former upstream could make it consistent", rejoining=True)
        await work.server.stop(StopMode.IMMEDIATE, timeout_ms=work.timing.stop_ms)
        return Step.AGAIN
    fed = completing is not None
    patience_ms = work.timing.stream_silent_ms if fed else work.timing.starved_ms
    hunger = Hunger(work, patience_ms=patience_ms)
    step = await await_answer(work, hunger.look)
    if not hunger.lasts:
        return step
    events.emit(events.Starved(file=hunger.file, fed=fed))
    if fed:
        why = f"it needs WAL {hunger.file}, which node {upstream.node_id} does not give"
        return await _make_room(work, upstream, why)
    return await _feed(work, upstream, hunger.file)


async def _feed(work: Work, upstream: Upstream, file: str) -> Step:
    """It cannot be asked for its position, so that is read from its files: how far its WAL goes,
    and its pages may go. If that is on the line, the upstream's WAL makes it consistent."""
    await _need_source(work, upstream)
    work.say(f"it needs WAL {file} to come up: judging by its files", rejoining=True)
    await work.server.stop(StopMode.IMMEDIATE, timeout_ms=work.timing.stop_ms)
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    extent = await work.server.data.extent(timeout_ms=work.timing.yield_scan_ms)
    how, why = _judge(work, upstream, extent)
    if how is Rejoin.WAIT:
        raise NotYet(why)
    if how is not Rejoin.PLAIN:
        return await _make_room(work, upstream, f"it needs WAL {file} to come up, and {why}")
    await _start_attached(work, upstream)
    return Step.AGAIN


async def await_answer(work: Work, enough: Callable[[], bool] = lambda: False) -> Step:
    """A starting replica is given time to answer, until `enough`; one that hangs for all of it is
    stopped."""
    work.say("waiting for the replica to accept connections", rejoining=True)
    answered = False

    async def probe() -> ServerFacts | None:
        nonlocal answered
        facts = await probe_once(work)
        answered = answered or facts.refused != "timeout"
        return facts if facts.accepting or enough() else None

    try:
        await work.until(probe, timeout_ms=work.timing.recover_ms, what="accepting connections")
    except Unavailable:
        if answered:
            raise
        work.say("stopping the replica: it did not answer at all", rejoining=True)
        await work.server.stop(StopMode.IMMEDIATE, timeout_ms=work.timing.stop_ms)
    return Step.AGAIN


async def follow_primary(work: Work) -> Step:
    """Another node leads: whatever this server still does must end, unwritten."""
    _follow(work)
    work.say("stopping a primary whose epoch is over", rejoining=True)
    await retire(work)
    return Step.AGAIN


async def follow_replica(work: Work) -> Step:
    """Attached to the right node: see that it streams. Else judge, then attach."""
    upstream = await _permitted(work)
    work.known.tried.starts = 0
    if _ordered_anew(work):
        return await _make_room(work, upstream, ORDERED)
    if work.known.attached != upstream:
        return await _judge_and_attach(work, upstream)
    if _streams(work, upstream):
        work.known.tried.rejudged = 0
        await _slots(work)
        work.say(f"following node {upstream.node_id}")
        return Step.DONE
    return await _not_streaming(work, upstream)


async def _judge_and_attach(work: Work, upstream: Upstream) -> Step:
    work.say(f"judging before following node {upstream.node_id}", rejoining=True)
    facts = work.seen.facts
    how: Rejoin | None = None
    why = ""
    if facts is not None and facts.upstream == upstream.node_id and facts.position is not None:
        how, why = _judge(work, upstream, facts.position)
    if how is not Rejoin.PLAIN:
        await _detach(work)
        how, why = _judge(work, upstream, await work.sealed_position())
    match how:
        case Rejoin.PLAIN:
            return await _attach(work, upstream)
        case Rejoin.WAIT:
            raise NotYet(why)
        case Rejoin.REWIND if work.known.tried.rewinds == 0:
            return await _rewind(work, upstream)
        case _:
            return await _make_room(work, upstream, why)


def _judge(work: Work, upstream: Upstream, position: Position | None) -> Advice:
    advice = how_to_rejoin(work.ports.state.reigns, position, me=work.ports.me)
    events.emit(events.RejoinJudged(upstream=upstream.node_id, how=advice.how, why=advice.reason))
    return advice


async def _attach(work: Work, upstream: Upstream) -> Step:
    await nothing_given(work)
    work.known.detached = False  # before: if it fails half-way, it is neither
    await work.server.follow(upstream)
    work.known.intake = Intake()
    work.known.attached = upstream
    work.known.report = None
    work.known.silent_since_ns = work.ports.clock()
    work.ports.changed()
    events.emit(events.FollowingUpstream(upstream=upstream.node_id, epoch=_follow(work).epoch))
    await _slots(work)
    work.say(f"following node {upstream.node_id}")
    return Step.DONE


async def _detach(work: Work) -> None:
    if not work.known.detached:
        work.known.attached = None  # before: a receiver that does not end gets no WAL, either
        await work.server.follow(None)
        work.known.detached = True


def _streams(work: Work, upstream: Upstream) -> bool:
    facts = work.seen.facts
    if facts is None or facts.upstream != upstream.node_id:
        return False
    work.known.silent_since_ns = None
    return True


async def _not_streaming(work: Work, upstream: Upstream) -> Step:
    """Attached is not healthy: a replica past a fork, or whose WAL is gone, retries for ever."""
    now_ns = work.ports.clock()
    if work.known.silent_since_ns is None:
        work.known.silent_since_ns = now_ns
    silent_ms = (now_ns - work.known.silent_since_ns) // 1_000_000
    work.say(f"attached to node {upstream.node_id}, not streaming for {silent_ms // 1000} s")
    if silent_ms <= work.timing.stream_silent_ms:
        return Step.DONE
    if not await work.ports.reachable(upstream):
        return Step.DONE
    events.emit(events.StreamLost(upstream=upstream.node_id, silent_ms=silent_ms))
    work.known.tried.rejudged += 1
    if work.known.tried.rejudged > work.timing.rejudge_max:
        work.known.tried.rejudged = 0
        return await _make_room(work, upstream, "the WAL it needs is gone from the primary")
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.stop_ms)
    return Step.AGAIN


# --- the ladder ------------------------------------------------------------------------------


async def _rewind(work: Work, upstream: Upstream) -> Step:
    """Rewind and start attached: only the upstream's WAL makes a rewound server consistent.

    The mark is durable before the first byte changes, so that no half-written directory is ever
    started, by whatever this is interrupted.
    """
    await _need_source(work, upstream)
    begun_ns, store = work.ports.clock(), work.ports.store
    work.known.tried.rewinds += 1
    work.say(f"rewinding from node {upstream.node_id}", rejoining=True)
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.stop_ms)
    await work.server.data.kill_remains(timeout_ms=work.timing.kill_ms)
    await store.mark(Unproven.REWINDING)
    try:
        with work.interruptible():
            await work.server.data.rewind(upstream)
    except PostgresError as error:
        events.emit(events.RewindFailed(upstream=upstream.node_id, why=error.message))
        return Step.AGAIN
    await named_anew(work.ports, Unproven.REWOUND)
    duration_ms = (work.ports.clock() - begun_ns) // 1_000_000
    events.emit(events.RewindFinished(upstream=upstream.node_id, duration_ms=duration_ms))
    await _start_attached(work, upstream)
    return Step.AGAIN


async def _start_attached(work: Work, upstream: Upstream) -> None:
    """Only the upstream's WAL makes it consistent, and it is known to be on the upstream's line."""
    work.known.forget_server()
    await work.server.start(replica=True, upstream=upstream, timeout_ms=work.timing.start_ms)
    work.known.completing = upstream
    work.ports.changed()


async def _make_room(work: Work, upstream: Upstream, why: str) -> Step:
    """Stop and keep the directory aside, once the source of the clone is known to be there."""
    await _need_source(work, upstream)
    work.known.tried.made_room = True
    await work.server.stop(StopMode.FAST, timeout_ms=work.timing.stop_ms)
    return await set_aside(work, why)


def _ordered_anew(work: Work) -> bool:
    """A person wants the very copy that is here made anew."""
    anew = _follow(work).anew
    return bool(anew) and anew == work.ports.store.record.copy


async def _need_source(work: Work, upstream: Upstream) -> None:
    """A replica that still serves reads is not taken apart for a source that is not there."""
    if not await work.ports.reachable(upstream):
        raise NotYet(f"node {upstream.node_id} is not reachable")


async def _slots(work: Work) -> None:
    """On a replica the slots of a primary are made ahead, so that re-pointing needs no wait."""
    wanted = (False, work.ports.others)
    if work.known.slots != wanted:
        await work.server.ensure_slots(work.ports.others, primary=False)
        work.known.slots = wanted


# --- StaySealed ------------------------------------------------------------------------------


async def seal_stopped(work: Work) -> Step:
    """The seal is noted before the server starts, so that it survives us; then start detached."""
    await _seal(work)
    if hole := wal_hole(work):
        raise NotYet(f"no position can be reported: {hole}")
    work.say("starting without upstream, to report its position")
    await start_detached(work)
    return Step.AGAIN


async def seal_starting(work: Work) -> Step:
    await _seal(work)
    return await await_answer(work)


async def seal_primary(work: Work) -> Step:
    """A primary has no position to report before it is stopped for good."""
    await _seal(work)
    work.say("stopping a primary under a seal")
    await retire(work)
    return Step.AGAIN


async def seal_replica(work: Work) -> Step:
    """Take no WAL from anybody but as ordered; report the position once it is final."""
    goal = work.goal
    assert isinstance(goal, StaySealed)
    work.say(f"sealing under attempt {text(goal.attempt)}")
    # Two files; both are durable before anything is reported.
    order = await both(_seal(work), _detach(work))
    await nothing_given(work)
    fetched = await as_ordered(work)
    position = await work.sealed_position()
    position = replace(position, lsn=Lsn(max(position.lsn, work.known.intake.reach)))
    report = SealReport(
        epoch=order.epoch,
        attempt=order.attempt,
        position=position,
        copy=work.ports.store.record.copy,
        fetched=fetched,
    )
    if work.known.report != report:
        work.known.report = report
        work.ports.changed()
        events.emit(
            events.PositionSealed(
                epoch=order.epoch,
                attempt=text(order.attempt),
                position=format_lsn(position.lsn),
                timeline=position.timeline,
            )
        )
    work.say(f"sealed under attempt {text(order.attempt)}")
    return Step.DONE


async def _seal(work: Work) -> SealOrder:
    goal = work.goal
    assert isinstance(goal, StaySealed)
    order = SealOrder(epoch=goal.epoch, attempt=goal.attempt)
    await work.ports.store.seal(order)
    return order


# --- shared ----------------------------------------------------------------------------------


async def _permitted(work: Work) -> Upstream:
    """Whom to follow, once no newer seal forbids it (rule H2). Raises Refused."""
    goal = _follow(work)
    if work.ports.state.epoch != goal.epoch:
        raise NotYet(f"the record is at epoch {work.ports.state.epoch}, not {goal.epoch}")
    upstream = work.upstream(goal.upstream)
    await work.ports.store.unseal(work.attempt)
    return upstream


def _follow(work: Work) -> Follow:
    goal = work.goal
    assert isinstance(goal, Follow)
    return goal
