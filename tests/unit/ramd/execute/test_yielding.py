"""Handing a primary over with its server running: the order, its bounds, and how it is undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ramd.domain.decision import GiveUp, Lead, Yield
from ramd.domain.fence import Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.model import Handover, StartMode
from ramd.domain.observation import Position
from ramd.execute.context import Situation
from ramd.execute.yielding import NEAR_BYTES
from ramd.state.commands import CancelHandover
from tests.support.fake_fence import FakeFence, acknowledges, crash_cycle
from tests.support.fenced_node import LEAD, SHUT, leading
from tests.support.ramd_node import NS_PER_MS, Node
from tests.support.virtual_time import clock_ns, elapse, virtual

HAND_OVER = Yield(epoch=2)
END = 1000
TARGET = 3


@dataclass
class Inside:
    """What the fenced server does: when it ends transactions, flushes, and who confirms."""

    node: Node
    fence: FakeFence
    xids: int = 1
    ends_xids: bool = True
    flushes: bool = True
    streams: dict[int, int] = field(default_factory=lambda: {2: 900, TARGET: 900})
    confirms: tuple[int, ...] = (2, TARGET)
    on_pulse: Callable[[], None] = lambda: None
    enforce: bool = True
    recovering: bool = False
    seen_shut: list[tuple[int, int]] = field(default_factory=list)

    def pulse(self) -> Pulse:
        self.on_pulse()
        page, now_ns = self.fence.page, clock_ns()
        draining = page.word == SHUT and page.drain_at_ns != 0
        if draining and self.ends_xids and now_ns >= page.drain_at_ns:
            self.xids = 0
        end = END
        if draining and not self.xids:
            for node in self.confirms:
                self.streams[node] = end
        flushed = end if draining and self.flushes else end - 50
        return Pulse(
            at_ns=now_ns,
            in_recovery=self.recovering,
            timeline=2,
            insert_lsn=None if self.recovering else Lsn(end),
            flushed_lsn=None if self.recovering else Lsn(flushed),
            open_xids=self.xids,
            streams={n: Lsn(lsn) for n, lsn in self.streams.items()},
            enforce=self.enforce,
        )


@asynccontextmanager
async def asked(
    tmp_path: Path, *, target: int | None = TARGET, fork: bool = True
) -> AsyncIterator[Inside]:
    """A primary that serves in epoch 2 and is to be handed over."""
    node, fence = await leading(tmp_path)
    inside = Inside(node, fence)
    fence.speaks = inside.pulse
    async with node.running(lease=2):
        await node.reach(LEAD)
        assert acknowledges(node.server)
        state = node.consensus.cluster
        wanted = Handover(epoch=2, target=target)
        node.consensus.cluster = replace(state, handover=wanted)
        if not fork:
            first, second = state.reigns
            reigns = (first, replace(second, fork_lsn=None))
            node.consensus.cluster = replace(state, handover=wanted, reigns=reigns)
        yield inside
        assert not any(call.startswith("crash") for call in node.server.calls)


def resumed(node: Node) -> Lead:
    """The group has granted the next epoch to the same server."""
    state = node.consensus.cluster
    again = replace(state.reigns[-1], epoch=3, start=StartMode.RESUME)
    node.consensus.cluster = replace(state, reigns=(*state.reigns, again), handover=None)
    return Lead(epoch=3, timeline=2, start=StartMode.RESUME)


@virtual
async def test_all_wal_is_confirmed_before_the_release_and_nothing_is_stopped(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path) as inside:
        node, begun_ns = inside.node, clock_ns()
        facts: list[tuple[tuple[int, int], int, bool]] = []
        node.consensus.on_release = lambda epoch: facts.append(
            (inside.fence.page.word, inside.xids, node.store.record.released_epoch == epoch)
        )
        await node.reach(HAND_OVER)
        assert facts == [(SHUT, 0, True)], "fenced, drained, latched on disk"
        epoch, evidence = node.consensus.released[0]
        assert epoch == 2
        assert evidence.end == Position(timeline=2, lsn=Lsn(END))
        assert (evidence.holders, evidence.stands_by) == ((2, TARGET), True)
        assert [what for what, _ in evidence.spent] == ["drain", "flush", "receive"]
        assert evidence.spent[0][1] >= node.ports.timing.drain_ms
        assert clock_ns() - begun_ns < 2 * node.ports.timing.drain_ms * NS_PER_MS
        assert node.server.running
        assert not any(call.startswith("stop") for call in node.server.calls)
        await elapse(30)
        assert len(node.consensus.released) == 1
        assert not acknowledges(node.server)
        assert node.executor.standing().yielding_epoch == 2


@virtual
async def test_another_replica_does_not_stand_for_the_one_asked_for(tmp_path: Path) -> None:
    async with asked(tmp_path) as inside:
        inside.confirms = (2,)
        await inside.node.reach(HAND_OVER)
        evidence = inside.node.consensus.released[0][1]
        assert (evidence.holders, evidence.end, evidence.stands_by) == ((), None, True)
        assert "the target did not confirm" in evidence.reason


@virtual
async def test_any_replica_will_do_if_none_was_named(tmp_path: Path) -> None:
    async with asked(tmp_path, target=None) as inside:
        inside.confirms = (2,)
        await inside.node.reach(HAND_OVER)
        assert inside.node.consensus.released[0][1].holders == (2,)


@virtual
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"ends_xids": False}, "open transactions did not end"),
        ({"flushes": False}, "WAL did not reach the disk"),
        ({"confirms": ()}, "the target did not confirm all WAL"),
    ],
)
async def test_what_does_not_end_in_time_is_given_up_and_goes_on(
    fault: dict[str, object], words: str, tmp_path: Path
) -> None:
    async with asked(tmp_path) as inside:
        for name, value in fault.items():
            setattr(inside, name, value)
        node, process = inside.node, inside.node.server.process
        begun_ns = clock_ns()
        await node.reach(HAND_OVER)
        assert words in node.consensus.released[0][1].reason
        assert node.consensus.released[0][1].stands_by
        timing = node.ports.timing
        assert clock_ns() - begun_ns < (timing.drain_ms + timing.yield_ms + 500) * NS_PER_MS
        lead = resumed(node)
    async with node.running(lease=3):
        await node.reach(lead)
        assert acknowledges(node.server)
        assert node.server.process is process
        assert node.store.record.opened_epoch == 3
        assert inside.fence.page.drain_at_ns == 0
        assert node.executor.standing().yielding_epoch == 0


@virtual
async def test_a_switchover_that_nobody_asks_for_any_more_is_given_up(tmp_path: Path) -> None:
    async with asked(tmp_path) as inside:
        state = inside.node.consensus.cluster

        def cancel() -> None:
            if inside.fence.page.word == SHUT:
                inside.node.consensus.cluster = replace(state, handover=None)

        inside.on_pulse = cancel
        await inside.node.reach(HAND_OVER)
        assert "nobody asks for it" in inside.node.consensus.released[0][1].reason


@virtual
async def test_a_target_that_is_far_behind_is_waited_for_before_the_fence_falls(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path) as inside:
        inside.streams = {}
        inside.node.executor.pursue(HAND_OVER)
        await elapse(1)
        assert acknowledges(inside.node.server), "it serves meanwhile"
        inside.streams = {TARGET: max(1, END - NEAR_BYTES)}
        await inside.node.until(lambda: bool(inside.node.consensus.released))
        assert inside.node.consensus.released[0][1].end is not None


@virtual
async def test_a_target_that_never_comes_near_cancels_it_and_nothing_was_fenced(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path) as inside:
        inside.streams = {2: END}
        await inside.node.reach(HAND_OVER)
        assert isinstance(inside.node.consensus.proposed[-1], CancelHandover)
        assert inside.node.consensus.released == []
        assert acknowledges(inside.node.server)
        assert inside.node.store.released_epoch < 2


@virtual
@pytest.mark.parametrize("how", ["enforce", "fork", "silent", "recovering"])
async def test_a_server_that_could_not_resume_is_stopped_cleanly(how: str, tmp_path: Path) -> None:
    async with asked(tmp_path, fork=how != "fork") as inside:
        match how:
            case "enforce":
                inside.enforce = False
            case "silent":
                inside.fence.speaks = lambda: None
            case "recovering":
                inside.recovering = True
        await inside.node.reach(HAND_OVER)
        assert "stop fast" in inside.node.server.calls
        assert not inside.node.consensus.released[0][1].stands_by


@virtual
@pytest.mark.parametrize("how", ["crash", "cycle", "enforce"])
async def test_a_server_that_is_not_the_fenced_one_any_more_is_given_up(
    how: str, tmp_path: Path
) -> None:
    async with asked(tmp_path) as inside:
        inside.ends_xids = False
        node = inside.node
        node.executor.pursue(HAND_OVER)
        await node.until(lambda: inside.fence.page.word == SHUT)
        await elapse(0.05)
        match how:
            case "crash":
                node.server.crash()
            case "cycle":
                crash_cycle(node.server)
            case _:
                inside.enforce = False
        await node.until(lambda: bool(node.consensus.released))
        evidence = node.consensus.released[0][1]
        assert not evidence.stands_by
        assert evidence.end is not None, "the end of its WAL is read from the stopped directory"
        assert not node.server.running


@virtual
async def test_a_pulse_without_a_position_is_no_end_of_wal(tmp_path: Path) -> None:
    """A recovering server has no xids and no end of WAL: neither says that it is drained."""
    async with asked(tmp_path) as inside:
        inside.ends_xids = False
        node = inside.node
        node.executor.pursue(HAND_OVER)
        await node.until(lambda: inside.fence.page.word == SHUT)
        inside.fence.speaks = lambda: replace(inside.pulse(), insert_lsn=None, open_xids=0)
        await elapse(1)
        assert node.consensus.released == []


@virtual
async def test_cut_short_it_goes_on_where_it_was(tmp_path: Path) -> None:
    async with asked(tmp_path) as inside:
        inside.confirms = ()
        node = inside.node
        node.executor.pursue(HAND_OVER)
        await node.until(lambda: inside.xids == 0)
        node.executor.pursue(Yield(epoch=1))
        await elapse(0.05)
        inside.confirms = (TARGET,)
        await node.reach(HAND_OVER)
        assert node.consensus.released[0][1].holders == (TARGET,)
        assert node.server.calls.count("shut 2") == 1


@virtual
async def test_only_the_server_that_stood_by_resumes(tmp_path: Path) -> None:
    async with asked(tmp_path) as inside:
        node = inside.node
        await node.reach(HAND_OVER)
        crash_cycle(node.server)
        lead = resumed(node)
    async with node.running(lease=3):
        await node.until(lambda: node.server.accepting)
        node.executor.pursue(lead)
        await node.until(lambda: len(node.consensus.released) == 2)
        assert node.consensus.released[1][0] == 3
        assert not node.server.running


@virtual
@pytest.mark.parametrize(
    "situation",
    [Situation.ABSENT, Situation.STOPPED, Situation.CRASHED, Situation.STARTING, Situation.REPLICA],
)
async def test_what_is_no_running_primary_resumes_nothing(
    situation: Situation, tmp_path: Path
) -> None:
    node, _ = await leading(tmp_path)
    if node.server.process is not None:
        node.server.process = None
    node.server.disk = type(node.server.disk)()
    node.put(situation)
    lead = resumed(node)
    async with node.running(lease=3):
        node.executor.pursue(lead)
        await node.until(lambda: bool(node.consensus.released))
        assert node.consensus.released[0][0] == 3
        assert not node.server.primary


@virtual
async def test_who_cannot_resume_says_where_its_wal_ends(tmp_path: Path) -> None:
    """Nothing was acknowledged after it stood by: its own WAL is still all there is."""
    async with asked(tmp_path) as inside:
        node = inside.node
        await node.reach(HAND_OVER)
        end = node.consensus.released[0][1].end
        node.server.process = None
        lead = resumed(node)
    async with node.running(lease=3):
        node.executor.pursue(lead)
        await node.until(lambda: len(node.consensus.released) == 2)
        assert end is not None
        assert node.consensus.released[1][1].end == end


@virtual
async def test_an_epoch_given_back_is_not_resumed(tmp_path: Path) -> None:
    async with asked(tmp_path) as inside:
        node = inside.node
        await node.reach(HAND_OVER)
        lead = resumed(node)
        node.store.latch_now(3)
        node.executor.pursue(lead)
        await elapse(2)
        assert not acknowledges(node.server)
        assert "given back" in node.executor.standing().activity


@virtual
async def test_a_failed_latch_keeps_the_epoch(tmp_path: Path) -> None:
    """Nothing is released before the latch is on disk."""
    async with asked(tmp_path) as inside:
        node, latch = inside.node, inside.node.store.latch
        broken = [OSError("disk full")] * 2

        async def failing(epoch: int) -> None:
            if broken:
                raise broken.pop()
            await latch(epoch)

        object.__setattr__(node.store, "latch", failing)
        await node.reach(HAND_OVER)
        assert not broken
        assert len(node.consensus.released) == 1
        assert node.store.record.released_epoch == 2


@virtual
async def test_once_the_epoch_has_moved_the_old_server_is_stopped_at_once(tmp_path: Path) -> None:
    async with asked(tmp_path) as inside:
        node = inside.node
        await node.reach(HAND_OVER)
        await node.reach(GiveUp(epoch=2, reason="moved"))
        assert "stop immediate" in node.server.calls
        assert node.executor.standing().yielding_epoch == 0
