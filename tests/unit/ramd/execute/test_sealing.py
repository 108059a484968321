"""The seal: no WAL from anybody, one final position, lifted only by a Follow not older than it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.domain.decision import Follow, StaySealed, Wait
from ramd.domain.errors import PostgresError
from ramd.domain.fence import Pulse
from ramd.domain.observation import Attempt
from ramd.domain.server import Upstream
from ramd.execute.context import Situation
from ramd.execute.local import LocalStore
from tests.support.fenced_node import LEAD, elected
from tests.support.ramd_node import ME, Node, led_by_node_2, make, streams
from tests.support.virtual_time import elapse, virtual

FOLLOW = Follow(epoch=2, upstream=2)
FIRST, SECOND = Attempt(term=3, number=1), Attempt(term=3, number=2)


@virtual
async def test_sealed_replica_takes_no_wal_and_reports_its_end(tmp_path: Path) -> None:
    node, primary = make(tmp_path, Situation.STOPPED)
    async with node.running():
        await node.reach(FOLLOW, attempt=FIRST)
        node.server.stream()
        await node.reach(StaySealed(epoch=2, attempt=SECOND))
        sealed = node.executor.standing().sealed
        assert sealed is not None
        assert (sealed.epoch, sealed.attempt, sealed.position.lsn) == (2, SECOND, 1100)
        primary.write()
        node.server.stream()
        assert node.server.disk.end == 1100
        assert LocalStore.load(tmp_path).record.seal is not None


@virtual
async def test_only_a_follow_of_no_older_attempt_unseals(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    async with node.running():
        await node.reach(StaySealed(epoch=2, attempt=SECOND))
        for older in (None, FIRST):
            node.executor.pursue(FOLLOW, attempt=older)
            await node.until(lambda: node.executor.standing().failures >= 2)
            assert "follow 2" not in node.server.calls
            assert node.executor.standing().sealed is not None
        node.executor.pursue(FOLLOW, attempt=SECOND)
        await node.until(lambda: node.executor.standing().settled, within_s=1.0)
        assert streams(node)
        assert LocalStore.load(tmp_path).record.seal is None


@virtual
async def test_lower_attempt_does_not_seal_again(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    async with node.running():
        await node.reach(StaySealed(epoch=2, attempt=SECOND))
        node.executor.pursue(StaySealed(epoch=2, attempt=FIRST))
        await node.until(lambda: node.executor.standing().failures >= 1)
        sealed = node.executor.standing().sealed
        assert sealed is not None
        assert sealed.attempt == SECOND


@virtual
async def test_higher_attempt_reports_anew(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    async with node.running():
        await node.reach(StaySealed(epoch=2, attempt=FIRST))
        await node.reach(StaySealed(epoch=2, attempt=SECOND))
        sealed = node.executor.standing().sealed
        assert sealed is not None
        assert sealed.attempt == SECOND


@virtual
async def test_report_ends_with_the_server_and_is_read_again(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    goal = StaySealed(epoch=2, attempt=FIRST)
    async with node.running():
        await node.reach(goal)
        node.server.crash()
        assert node.executor.standing().sealed is None
        node.executor.pursue(goal)
        await node.until(lambda: node.executor.standing().sealed is not None, within_s=2.0)
        assert "start as replica of None" in node.server.calls


@virtual
async def test_seal_survives_the_daemon(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    async with node.running():
        await node.reach(StaySealed(epoch=2, attempt=SECOND))
    again = Node(ME, node.server.net, led_by_node_2(), tmp_path)
    again.server.as_cluster().now_running(primary=False)
    assert again.executor.standing().sealed_attempt == SECOND
    async with again.running():
        again.executor.pursue(FOLLOW, attempt=FIRST)
        await again.until(lambda: again.executor.standing().failures >= 1)
        assert not streams(again)


@virtual
async def test_no_report_before_local_wal_is_replayed(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.REPLICA)
    node.server.faults.never_replays = True
    async with node.running():
        node.executor.pursue(StaySealed(epoch=2, attempt=FIRST))
        await elapse(30)
        assert node.executor.standing().sealed is None
        node.server.faults.never_replays = False
        await node.until(lambda: node.executor.standing().sealed is not None)


@virtual
async def test_sealed_primary_is_stopped_for_good_first(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.PRIMARY)
    async with node.store.opening(1):
        pass
    async with node.running():
        await node.reach(StaySealed(epoch=2, attempt=FIRST))
        assert node.store.record.released_epoch == 1
        assert "stop immediate" in node.server.calls
        assert not node.server.primary


@pytest.mark.parametrize("fails", [None, 2], ids=["detaching", "attaching"])
@virtual
async def test_half_done_it_is_neither_attached_nor_detached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int | None
) -> None:
    """A receiver that hangs keeps the call from its end; the setting has changed by then."""
    node, primary = make(tmp_path, Situation.REPLICA)
    whole, hangs = node.server.follow, [True]

    async def half(upstream: Upstream | None) -> None:
        await whole(upstream)
        if hangs[0] and (upstream.node_id if upstream else None) == fails:
            raise PostgresError("the WAL receiver did not end")

    async with node.running():
        if fails is None:
            await node.reach(FOLLOW)
        else:
            await node.reach(StaySealed(epoch=2, attempt=FIRST))
        monkeypatch.setattr(node.server, "follow", half)
        order, other = StaySealed(epoch=2, attempt=SECOND), FOLLOW
        first, then = (order, other) if fails is None else (other, order)
        node.executor.pursue(first, attempt=SECOND)
        await node.until(lambda: node.executor.standing().failures >= 1)
        hangs[0] = False
        await node.reach(then, attempt=SECOND, within_s=5)
        if fails is None:
            primary.write()
            assert streams(node)
        else:
            assert node.server.disk.upstream is None
            assert node.executor.standing().sealed is not None


@virtual
async def test_a_known_replica_is_asked_no_more_while_a_failover_waits(tmp_path: Path) -> None:
    """What its page says is enough, unless it has begun anew since or the page says nothing."""
    node, fence = elected(tmp_path)
    fence.speaks = lambda: Pulse(at_ns=0, in_recovery=not node.server.primary, timeline=1)
    async with node.running(lease=2):
        await node.reach(Wait(reason="first"))
        assert node.server.calls.count("probe") == 1
        await node.reach(StaySealed(epoch=1, attempt=FIRST))
        await node.reach(Wait(reason="chosen"))
        assert node.server.calls.count("probe") == 1
        node.executor.pursue(LEAD)
        await node.until(lambda: "promote" in node.server.calls)
        assert node.server.calls.count("probe") == 1
        await node.until(lambda: node.executor.standing().settled)
        assert node.server.calls.count("probe") > 1, "a primary is asked"


@virtual
@pytest.mark.parametrize("page", ["silent", "of a primary", "of another start"])
async def test_a_replica_is_asked_again_when_its_page_does_not_vouch_for_it(
    tmp_path: Path, page: str
) -> None:
    node, fence = elected(tmp_path)
    says = [Pulse(at_ns=0, in_recovery=True, timeline=1)]
    fence.speaks = lambda: says[-1] if says else None
    async with node.running():
        await node.reach(Wait(reason="first"))
        if page == "silent":
            says.clear()
        elif page == "of a primary":
            says.append(Pulse(at_ns=0, in_recovery=False, timeline=1))
        else:
            fence.page.start += 1
        await node.reach(Wait(reason="second"))
        assert node.server.calls.count("probe") == 2
