"""Facts, each with a time: exits at once, silence only after a while, no I/O when asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ramd.domain.errors import PostgresError
from ramd.domain.lsn import Lsn
from ramd.domain.observation import (
    Attempt,
    DataKind,
    Observation,
    Position,
    SealReport,
    ServerRole,
    ServerState,
    Standing,
)
from ramd.domain.server import ControlState, ServerFacts, StopMode, Upstream
from ramd.observe.observer import Identity, Observer, Pace
from tests.support.fake_server import SYSTEM_ID, FakeNet, FakeServer
from tests.support.observing import observing
from tests.support.virtual_time import clock_ns, elapse, virtual

NOTHING = Standing()


class Watched:
    """An observer over a fake server, and how often it woke the loop."""

    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer(1, FakeNet())
        self.wakes: list[int] = []
        self.observer = Observer(
            self.server,
            identity=Identity(node_id=1, boot=77, daemon_version="1.2"),
            wake=lambda: self.wakes.append(clock_ns()),
            pace=Pace(),
        )

    def now(self, standing: Standing = NOTHING, lease: tuple[int, int] = (0, 0)) -> Observation:
        return self.observer.observation(clock_ns(), standing=standing, lease=lease)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watched]:
        async with observing(self.observer):
            yield self


def primary() -> FakeServer:
    return FakeServer(1, FakeNet()).as_cluster().now_running(primary=True)


@virtual
async def test_unknown_before_anything_was_looked_at() -> None:
    watched = Watched()
    assert watched.now().state is ServerState.UNKNOWN
    assert watched.now().role is None


@virtual
async def test_running_primary() -> None:
    async with Watched(primary()).running() as watched:
        seen = watched.now()
        assert (seen.state, seen.role, seen.accepting) == (
            ServerState.RUNNING,
            ServerRole.PRIMARY,
            True,
        )
        assert seen.position == Position(timeline=1, lsn=Lsn(1000))
        assert (seen.data, seen.system_id) == (DataKind.CLUSTER, SYSTEM_ID)
        assert (seen.node_id, seen.boot, seen.daemon_version) == (1, 77, "1.2")
        assert not seen.fenced


@virtual
async def test_position_is_as_fresh_as_the_interval() -> None:
    async with Watched(primary()).running() as watched:
        watched.server.write(500)
        await elapse(1.05)
        assert watched.now().position == Position(timeline=1, lsn=Lsn(1500))


@virtual
async def test_a_directory_to_adopt_shows_its_timeline() -> None:
    net = FakeNet()
    async with Watched(FakeServer(1, net).as_cluster(timeline=4, end=700)).running() as watched:
        found = watched.now().position
        assert found is not None
        assert found.timeline == 4
        assert watched.now(Standing(opened_epoch=3)).position is None, "its own past tells less"


@virtual
async def test_observation_does_no_io() -> None:
    async with Watched(primary()).running() as watched:
        before = list(watched.server.calls)
        for _ in range(100):
            watched.now()
        assert watched.server.calls == before


@virtual
async def test_crash_is_known_at_once_and_wakes() -> None:
    async with Watched(primary()).running() as watched:
        watched.wakes.clear()
        begun_ns = clock_ns()
        watched.server.crash()
        assert watched.now().state is ServerState.CRASHED, "even before anybody was woken"
        await elapse(0)
        await elapse(0)
        assert watched.wakes == [begun_ns]
        await elapse(0.1)
        seen = watched.now(Standing(opened_epoch=1))
        assert (seen.state, seen.role, seen.position) == (ServerState.CRASHED, None, None)
        assert seen.data is DataKind.CLUSTER
        assert seen.fenced


@virtual
async def test_clean_stop_is_stopped() -> None:
    async with Watched(primary()).running() as watched:
        await watched.server.stop(StopMode.FAST, timeout_ms=1000)
        await elapse(0.1)
        assert watched.now().state is ServerState.STOPPED


@virtual
async def test_restart_is_watched_again() -> None:
    async with Watched(primary()).running() as watched:
        await watched.server.stop(StopMode.FAST, timeout_ms=1000)
        await watched.server.start(replica=True, upstream=None, timeout_ms=1000)
        watched.observer.touch()
        assert watched.now().state is ServerState.STARTING
        await elapse(1.2)
        assert watched.now().role is ServerRole.REPLICA
        assert watched.now().fenced
        watched.wakes.clear()
        watched.server.crash()
        await elapse(0.01)
        assert watched.wakes


def pair() -> tuple[FakeServer, FakeServer]:
    """A replica and its primary, which nobody reaches yet."""
    net = FakeNet()
    upstream = Upstream(node_id=2, host="node2", port=5432)
    first = FakeServer(2, net).as_cluster().now_running(primary=True)
    net.cut.add(2)
    return FakeServer(1, net).as_cluster().now_running(primary=False, upstream=upstream), first


@virtual
async def test_replica_that_begins_to_stream_is_noticed_soon_after_a_change() -> None:
    replica, _ = pair()
    async with Watched(replica).running() as watched:
        await elapse(5)
        watched.observer.touch()
        await elapse(0.05)
        replica.net.cut.clear()
        watched.wakes.clear()
        await elapse(0.1)
        assert watched.now().upstream == 2
        assert watched.wakes, "the loop is told"


@virtual
async def test_replica_of_nobody_is_not_looked_at_in_haste_for_ever() -> None:
    replica, _ = pair()
    async with Watched(replica).running():
        await elapse(5)
        replica.calls.clear()
        await elapse(30)
        assert 28 <= replica.calls.count("probe") <= 31


@virtual
async def test_stream_that_a_primary_sees_begin_or_end_wakes_the_loop() -> None:
    replica, first = pair()
    async with Watched(first).running() as watched:
        for there in (True, False):
            watched.wakes.clear()
            (first.net.cut.discard if there else first.net.cut.add)(2)
            await elapse(1.5)
            assert watched.now().streaming_replicas == ((1,) if there else ())
            assert len(watched.wakes) == 1
    assert replica.running


@virtual
async def test_three_silent_probes_are_a_hang() -> None:
    async with Watched(primary()).running() as watched:
        watched.server.faults.hung = True
        await elapse(4.5)
        assert watched.now().state is ServerState.RUNNING, "two silent probes prove nothing"
        watched.wakes.clear()
        await elapse(2.5)
        seen = watched.now()
        assert (seen.state, seen.accepting) == (ServerState.HUNG, False)
        assert not seen.fenced
        assert watched.wakes
        watched.server.faults.hung = False
        await elapse(2.1)
        assert watched.now().state is ServerState.RUNNING


@virtual
async def test_probe_that_never_returns_is_cut_off() -> None:
    async with Watched(primary()).running() as watched:
        watched.server.faults.extra_s["probe"] = 3600.0
        await elapse(9)
        assert watched.now().state is ServerState.HUNG


@virtual
async def test_failing_probe_means_not_accepting() -> None:
    async with Watched(primary()).running() as watched:
        watched.server.fail("probe", *[PostgresError("no such role")] * 3)
        await elapse(1.5)
        assert watched.now().state is ServerState.STARTING
        assert not watched.now().accepting


@virtual
async def test_facts_of_a_server_that_ended_meanwhile_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Watched(primary()).running() as watched:

        async def late(*, timeout_ms: int) -> ServerFacts:
            await elapse(0.5)
            return ServerFacts(accepting=True, role=ServerRole.PRIMARY)

        with monkeypatch.context() as patched:
            patched.setattr(watched.server, "probe", late)
            watched.observer.touch()
            await elapse(0.1)
        watched.server.crash()
        await watched.server.data.kill_remains(timeout_ms=1000)
        await watched.server.start(replica=True, upstream=None, timeout_ms=1000)
        await elapse(0.4)
        assert watched.now().role is not ServerRole.PRIMARY


@virtual
async def test_server_without_a_connection_to_spare_keeps_its_role(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Watched(primary()).running() as watched:

        async def full(*, timeout_ms: int) -> ServerFacts:
            return ServerFacts(accepting=True, refused="sorry, too many clients already")

        with monkeypatch.context() as patched:
            patched.setattr(watched.server, "probe", full)
            await elapse(5)
            seen = watched.now()
            assert (seen.state, seen.role) == (ServerState.RUNNING, ServerRole.PRIMARY)


@virtual
async def test_directory_is_inspected_only_when_something_changed() -> None:
    async with Watched().running() as watched:
        assert watched.now().data is DataKind.ABSENT
        assert watched.now().state is ServerState.STOPPED
        await elapse(30)
        assert watched.server.calls.count("inspect") == 1
        watched.server.as_cluster()
        watched.observer.touch()
        await elapse(0.1)
        assert watched.now().data is DataKind.CLUSTER
        assert watched.server.calls.count("inspect") == 2


@virtual
async def test_failed_inspection_is_repeated() -> None:
    watched = Watched()
    watched.server.as_cluster().disk.control = ControlState.IN_PRODUCTION
    watched.server.fail("inspect", PostgresError("pg_controldata failed"))
    async with watched.running():
        assert watched.now().state is ServerState.UNKNOWN
        await elapse(1.1)
        assert watched.now().state is ServerState.CRASHED


@virtual
async def test_failed_inspection_after_a_change_is_repeated_too() -> None:
    async with Watched().running() as watched:
        watched.server.as_cluster()
        watched.server.fail("inspect", PostgresError("pg_controldata failed"))
        watched.observer.touch()
        await elapse(1.2)
        assert watched.now().data is DataKind.CLUSTER


@pytest.mark.parametrize("kind", [DataKind.PARTIAL, DataKind.FOREIGN])
@virtual
async def test_what_is_no_cluster_is_stopped_not_crashed(kind: DataKind) -> None:
    watched = Watched()
    watched.server.disk.kind = kind
    async with watched.running():
        assert watched.now().state is ServerState.STOPPED
        assert watched.now().data is kind


@virtual
async def test_rejoining_is_said_unless_it_runs() -> None:
    rejoining = Standing(rejoining=True, activity="cloning from node 2", failures=2)
    async with Watched().running() as watched:
        seen = watched.now(rejoining)
        assert seen.state is ServerState.REJOINING
        assert (seen.activity, seen.failures) == ("cloning from node 2", 2)
    async with Watched(primary()).running() as watched:
        assert watched.now(rejoining).state is ServerState.RUNNING


@virtual
async def test_lease_seal_and_epoch_are_passed_on() -> None:
    sealed = SealReport(
        epoch=3,
        attempt=Attempt(term=1, number=1),
        position=Position(timeline=1, lsn=Lsn(7)),
    )
    standing = Standing(opened_epoch=3, sealed=sealed)
    watched = Watched()
    seen = watched.now(standing, lease=(3, clock_ns() + 1_500_000_000))
    assert (seen.epoch_opened, seen.sealed, seen.lease_left_ms) == (3, sealed, 1500)
    assert watched.now(standing, lease=(3, clock_ns() - 1)).lease_left_ms == 0
    assert watched.now(standing, lease=(3, 0)).lease_left_ms == 0


@pytest.mark.parametrize(("opened", "released", "fenced"), [(2, 2, True), (2, 1, False)])
@virtual
async def test_server_of_unknown_role_is_fenced_only_if_nothing_was_opened(
    opened: int, released: int, fenced: bool
) -> None:
    watched = Watched(primary())
    standing = Standing(opened_epoch=opened, released_epoch=released)
    assert watched.now(standing).role is None
    assert watched.now(standing).fenced is fenced


@virtual
async def test_when_the_receiver_was_fed_last_grows_older_between_two_looks() -> None:
    server = FakeServer(1, FakeNet()).as_cluster().now_running(primary=False)
    async with Watched(server).running() as watched:
        assert watched.now().fed_ms is None
        server.fed_ns = clock_ns()
        await elapse(1.05)
        before = watched.now().fed_ms
        assert before is not None
        await elapse(0.5)
        assert watched.now().fed_ms == before + 500
        server.crash()
        assert watched.now().fed_ms is None
