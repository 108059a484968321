"""What the page of the server's extension adds to the facts, and what is said of the fence."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.fence import FenceCounts, Pulse
from ramd.domain.lsn import Lsn
from ramd.domain.observation import (
    FenceKind,
    Observation,
    Position,
    ServerRole,
    ServerState,
    Standing,
)
from ramd.domain.server import ServerFacts, StopMode, Upstream
from ramd.observe.observer import FLUSH_HUNG_MS, Identity, Observer
from tests.support.fake_fence import FakeFence
from tests.support.fake_server import FakeNet, FakeServer
from tests.support.observing import observing
from tests.support.ramd_node import event
from tests.support.virtual_time import clock_ns, elapse, virtual

WRITES = Pulse(at_ns=0, in_recovery=False, timeline=2, insert_lsn=Lsn(7000))
READS = Pulse(at_ns=0, in_recovery=True, timeline=2, received_lsn=Lsn(6000), replayed_lsn=Lsn(5000))


class Paged:
    """An observer over a fake server with a page. `says` is what SQL is made to say, if set."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        primary: bool,
        pulse: Pulse | None = None,
        loads: bool = True,
    ) -> None:
        net = FakeNet()
        upstream = None if primary else Upstream(node_id=2, host="node2", port=5432)
        self.server = FakeServer(1, net).as_cluster()
        self.server.now_running(primary=primary, upstream=upstream)
        self.fence = FakeFence(self.server, loads=loads)
        self.fence.latest = pulse
        self.says: ServerFacts | None = None
        self.wakes = 0
        self._probe = self.server.probe
        monkeypatch.setattr(self.server, "probe", self.probe)
        self.observer = Observer(
            self.server, identity=Identity(node_id=1, boot=1), wake=self._woken
        )

    def _woken(self) -> None:
        self.wakes += 1

    async def probe(self, *, timeout_ms: int) -> ServerFacts:
        return self.says or await self._probe(timeout_ms=timeout_ms)

    @property
    def seen(self) -> Observation:
        return self.observer.observation(clock_ns(), standing=Standing(opened_epoch=1))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Paged]:
        async with observing(self.observer):
            yield self


@virtual
async def test_position_is_as_fresh_as_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        probes = paged.server.calls.count("probe")
        assert paged.seen.position == Position(timeline=2, lsn=Lsn(7000))
        paged.fence.latest = replace(WRITES, insert_lsn=Lsn(7500))
        assert paged.seen.position == Position(timeline=2, lsn=Lsn(7500))
        assert paged.seen.replayed_lsn is None
        assert paged.server.calls.count("probe") == probes


@virtual
async def test_a_page_without_a_position_leaves_the_one_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blank = Pulse(at_ns=0, in_recovery=True, timeline=0)
    async with Paged(monkeypatch, primary=False, pulse=blank).running() as paged:
        paged.says = ServerFacts(
            accepting=True,
            role=ServerRole.REPLICA,
            position=Position(timeline=1, lsn=Lsn(1000)),
            replayed_lsn=Lsn(900),
        )
        paged.observer.touch()
        await elapse(0.1)
        assert paged.seen.position == Position(timeline=1, lsn=Lsn(1000))
        assert paged.seen.replayed_lsn == 900


@virtual
@pytest.mark.parametrize(
    "full", [False, True], ids=["answers", "answers that it has no connection to spare"]
)
async def test_a_server_that_hangs_in_its_promotion_accepts_nothing(
    monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    async with Paged(monkeypatch, primary=False, pulse=READS).running() as paged:
        paged.says = ServerFacts(accepting=False, refused="timeout")
        paged.fence.latest = WRITES
        paged.observer.touch()
        await elapse(0.1)
        assert (paged.seen.role, paged.seen.accepting) == (ServerRole.PRIMARY, False)
        paged.says = ServerFacts(accepting=True, role=None if full else ServerRole.PRIMARY)
        paged.observer.touch()
        await elapse(0.1)
        assert (paged.seen.role, paged.seen.accepting) == (ServerRole.PRIMARY, True)


@virtual
async def test_promotion_is_seen_in_the_page_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Paged(monkeypatch, primary=False, pulse=READS).running() as paged:
        before = paged.seen
        assert (before.role, before.replayed_lsn) == (ServerRole.REPLICA, 5000)
        assert before.fenced
        paged.fence.latest = WRITES
        after = paged.seen
        assert (after.role, after.replayed_lsn) == (ServerRole.PRIMARY, None)
        assert not after.fenced


@virtual
async def test_role_is_not_told_from_the_page_before_the_server_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A primary that recovers from a crash looks there like a replica."""
    paged = Paged(monkeypatch, primary=True, pulse=READS)
    assert paged.server.process is not None
    paged.server.process.accepts_at = clock_ns() / 1e9 + 3.0
    async with paged.running():
        assert (paged.seen.state, paged.seen.role) == (ServerState.STARTING, None)
        assert paged.seen.position is None
        await elapse(4.0)
        assert paged.seen.role is ServerRole.REPLICA


@virtual
async def test_page_that_is_not_written_any_more_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        paged.fence.latest = None
        assert paged.seen.role is ServerRole.PRIMARY
        assert paged.seen.position == Position(timeline=1, lsn=Lsn(1000))
        assert paged.seen.fence is FenceKind.EXTENSION
        assert not paged.seen.fenced
        assert paged.seen.flush_stuck_ms == 0


@virtual
async def test_page_of_a_server_that_has_ended_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        paged.server.crash()
        assert paged.fence.pulse() is WRITES, "still in the page"
        assert (paged.seen.role, paged.seen.position) == (None, None)
        assert paged.seen.fence is FenceKind.NONE
        assert paged.seen.fenced


# --- the lag ----------------------------------------------------------------------------------


def streaming(lag_seconds: float | None) -> ServerFacts:
    return ServerFacts(accepting=True, role=ServerRole.REPLICA, lag_seconds=lag_seconds)


@virtual
async def test_lag_is_read_from_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    paged = Paged(monkeypatch, primary=False)
    paged.says = streaming(42.0)
    async with paged.running():
        assert paged.seen.lag_seconds == 42.0
        ago_us = round((time.time() - 30) * 1e6)
        paged.fence.latest = replace(READS, replayed_commit_unix_us=ago_us)
        lag_s = paged.seen.lag_seconds
        assert lag_s is not None
        assert 30 <= lag_s < 90
        paged.fence.latest = replace(READS, replayed_commit_unix_us=round(2e15 + time.time() * 1e6))
        assert paged.seen.lag_seconds == 0.0, "its clock is ahead of ours"


@pytest.mark.parametrize(
    "pulse",
    [
        replace(READS, replayed_lsn=READS.received_lsn, replayed_commit_unix_us=1),
        replace(READS, replayed_commit_unix_us=0),
    ],
    ids=["all replayed", "no commit replayed yet"],
)
@virtual
async def test_no_lag(monkeypatch: pytest.MonkeyPatch, pulse: Pulse) -> None:
    paged = Paged(monkeypatch, primary=False, pulse=pulse)
    paged.says = streaming(42.0)
    async with paged.running():
        assert paged.seen.lag_seconds == 0.0


@virtual
async def test_lag_is_of_a_replica_that_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    old = replace(READS, replayed_commit_unix_us=1)
    paged = Paged(monkeypatch, primary=False, pulse=old)
    paged.says = streaming(None)
    async with paged.running():
        assert paged.seen.lag_seconds is None
        paged.says = streaming(42.0)
        paged.observer.touch()
        await elapse(0.1)
        paged.fence.latest = WRITES
        assert paged.seen.lag_seconds is None, "promoted meanwhile"


# --- who fences -------------------------------------------------------------------------------


@pytest.mark.parametrize("fenced", [False, True])
@virtual
async def test_a_primary_says_itself_whether_it_is_fenced(
    monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    pulse = replace(WRITES, fenced=fenced)
    async with Paged(monkeypatch, primary=True, pulse=pulse).running() as paged:
        assert paged.seen.fenced is fenced
        assert paged.seen.role is ServerRole.PRIMARY
        assert paged.seen.fence is FenceKind.EXTENSION


@virtual
async def test_without_the_extension_the_daemon_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES, loads=False).running() as paged:
        assert paged.seen.fence is FenceKind.STAND_IN
        assert paged.seen.position == Position(timeline=1, lsn=Lsn(1000))


@virtual
async def test_enforcement_that_is_off_is_told_once_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    off = replace(WRITES, enforce=False)
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        await elapse(3)
        assert event(caplog, "enforcement_off") == []
        paged.fence.latest = off
        assert paged.seen.fence is FenceKind.OFF
        assert not paged.seen.fenced
        await elapse(10)
        assert len(event(caplog, "enforcement_off")) == 1
        paged.fence.latest = None
        await elapse(3)
        paged.fence.latest = off
        await elapse(3)
        assert len(event(caplog, "enforcement_off")) == 1, "a gap in the page is no news"
        paged.fence.latest = WRITES
        await elapse(3)
        paged.fence.latest = off
        await elapse(3)
        assert len(event(caplog, "enforcement_off")) == 2


@virtual
async def test_what_the_fence_did_is_told_as_it_grows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ramd")
    paged = Paged(monkeypatch, primary=True, pulse=WRITES)
    paged.fence.counted = FenceCounts(refused_statements=5, dropped_acks=1)
    async with paged.running():
        await elapse(3)
        assert event(caplog, "fence_acted") == [], "that was before this daemon"
        paged.fence.counted = FenceCounts(
            refused_statements=7,
            refused_commits=3,
            dropped_acks=1,
            dropped_sync=4,
            ended_sessions=5,
        )
        await elapse(3)
        acted = event(caplog, "fence_acted")
        assert len(acted) == 1
        assert (
            acted[0].refused_statements,
            acted[0].refused_commits,
            acted[0].dropped_acks,
            acted[0].dropped_sync,
            acted[0].ended_sessions,
        ) == (2, 3, 0, 4, 5)
        paged.fence.counted = replace(paged.fence.counted, dropped_acks=3)
        paged.server.crash()
        await elapse(3)
        assert [e.dropped_acks for e in event(caplog, "fence_acted")] == [0, 2]


# --- what hangs -------------------------------------------------------------------------------


@virtual
async def test_server_that_writes_its_page_lives_though_sql_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        paged.server.faults.hung = True
        await elapse(10)
        assert paged.seen.state is ServerState.RUNNING
        paged.fence.latest = None
        assert (paged.seen.state, paged.seen.accepting) == (ServerState.HUNG, False)


@virtual
async def test_flush_that_never_ends_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        paged.fence.latest = replace(WRITES, flush_stuck_ms=FLUSH_HUNG_MS - 1)
        assert paged.seen.state is ServerState.RUNNING
        assert paged.seen.flush_stuck_ms == FLUSH_HUNG_MS - 1
        paged.fence.latest = replace(WRITES, flush_stuck_ms=FLUSH_HUNG_MS)
        assert (paged.seen.state, paged.seen.accepting) == (ServerState.HUNG, False)
        woken = paged.wakes
        await elapse(1.1)
        assert paged.wakes > woken
        paged.fence.latest = WRITES
        assert paged.seen.state is ServerState.RUNNING


@virtual
async def test_restarted_server_is_read_from_its_own_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        await paged.server.stop(StopMode.FAST, timeout_ms=1000)
        assert paged.seen.fence is FenceKind.NONE
        paged.fence.latest = None
        await paged.server.start(replica=True, upstream=None, timeout_ms=1000)
        paged.observer.touch()
        await elapse(1.2)
        assert (paged.seen.fence, paged.seen.role) == (FenceKind.EXTENSION, ServerRole.REPLICA)


@virtual
async def test_failing_sql_leaves_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Paged(monkeypatch, primary=True, pulse=WRITES).running() as paged:
        paged.server.fail("probe", *[PostgresError("no such role")] * 2)
        await elapse(1.5)
        assert not paged.seen.accepting
        assert not paged.seen.fenced
        assert paged.seen.fence is FenceKind.EXTENSION
