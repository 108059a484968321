"""WAL between two nodes under a seal: all that there is, or nothing and the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ramd.domain.decision import FetchOrder, StaySealed
from ramd.domain.errors import Refused, Unavailable
from ramd.domain.lsn import Lsn
from ramd.domain.observation import Attempt, Position, SealReport
from ramd.execute.context import Situation
from ramd.execute.lending import END, READ, Lending, Wish, with_sum, without_sum
from tests.support.ramd_node import Node, make
from tests.support.virtual_time import virtual

UNDER = Attempt(term=3, number=1)
ORDER = FetchOrder(number=1, node_id=1, source=2, timeline=1, have=Lsn(1000), upto=Lsn(2500))
GOAL = StaySealed(epoch=2, attempt=UNDER, fetch=ORDER)


def connect(taker: Node, source: Node, lending: Lending) -> None:
    """What the taker asks, the source answers."""
    methods: dict[str, Callable[[int, bytes], Awaitable[bytes]]] = {
        END: lending.end,
        READ: lending.read,
    }

    async def call(node_id: int, method: str, payload: bytes, *, timeout_s: float) -> bytes:
        assert node_id == 2
        return await methods[method](1, payload)

    taker.consensus.call = call  # type: ignore[method-assign]


def pair(tmp_path: Path, *, end: int = 2500) -> tuple[Node, Node]:
    """Node 1, a replica with WAL to 1000, and node 2, sealed under the same attempt at `end`."""
    (tmp_path / "2").mkdir()
    taker, _ = make(tmp_path, Situation.REPLICA)
    source = Node(2, taker.server.net, taker.consensus.cluster, tmp_path / "2")
    source.put(Situation.REPLICA)
    source.server.disk.end = end
    at = Position(timeline=1, lsn=Lsn(end))
    report = SealReport(epoch=2, attempt=UNDER, position=at)
    connect(taker, source, Lending(source.ports, lambda: report))
    return taker, source


def report_of(node: Node) -> SealReport:
    report = node.executor.standing().sealed
    assert report is not None
    return report


@virtual
async def test_all_that_the_source_has_is_replayed_and_reported_once(tmp_path: Path) -> None:
    taker, _ = pair(tmp_path)
    async with taker.running():
        await taker.reach(GOAL)
        report = report_of(taker)
        assert report.position.lsn == 2500
        assert report.fetched is not None
        assert (report.fetched.number, report.fetched.upto) == (1, 2500)
        assert not taker.server.exchange.given
        await taker.reach(StaySealed(epoch=2, attempt=UNDER, fetch=None))
        await taker.reach(GOAL)
        assert taker.server.calls.count("wal.begin") == 1


@virtual
async def test_an_incomplete_record_at_the_end_counts_for_the_one_that_got_it(
    tmp_path: Path,
) -> None:
    taker, source = pair(tmp_path)
    source.server.faults.torn = 40
    async with taker.running():
        await taker.reach(GOAL)
        assert taker.server.disk.end == 2460
        assert report_of(taker).position.lsn == 2500


@virtual
async def test_what_was_there_already_is_not_fetched(tmp_path: Path) -> None:
    taker, _ = pair(tmp_path, end=900)
    order = FetchOrder(number=1, node_id=1, source=2, timeline=1, have=Lsn(1000))
    async with taker.running():
        await taker.reach(StaySealed(epoch=2, attempt=UNDER, fetch=order))
        fetched = report_of(taker).fetched
        assert fetched is not None
        assert fetched.upto == 900
        assert "wal.begin" not in taker.server.calls


@virtual
@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda t, s: setattr(s.server.exchange, "odd", b"x" * 5000), "more WAL came"),
        (lambda t, s: setattr(s.server.disk, "end", 1500), "gone"),
        (lambda t, s: setattr(t.server.disk, "timeline", 4), "timeline 4"),
        (lambda t, s: t.server.fail("wal.replay", Unavailable("it ended")), "it ended"),
        (lambda t, s: t.server.faults.extra_s.update({"wal.replay": 9.0}), "longer than"),
    ],
    ids=["too_much", "gone", "timeline", "replay", "late"],
)
async def test_a_fetch_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, break_it: Callable[[Node, Node], None], why: str
) -> None:
    taker, source = pair(tmp_path)
    break_it(taker, source)
    async with taker.running():
        await taker.reach(GOAL)
        fetched = report_of(taker).fetched
        assert fetched is not None
        assert fetched.upto is None
        assert why in fetched.why
        assert not taker.server.exchange.given


@virtual
async def test_wal_is_handed_out_only_of_what_cannot_change(tmp_path: Path) -> None:
    node, _ = make(tmp_path, Situation.STOPPED)
    sealed: list[SealReport | None] = [None]
    lending = Lending(node.ports, lambda: sealed[0])
    wish = Wish(epoch=2, term=3, number=1, timeline=1, at=900, size=50)

    async def refused(wish: Wish = wish, method: str = "end") -> str:
        with pytest.raises(Refused) as error:
            await getattr(lending, method)(2, wish.encode())
        return error.value.message

    assert "not a wish" in await refused(type("Odd", (), {"encode": lambda self: b"[]"})())
    assert "not sealed" in await refused()
    assert "epoch 2, not 1" in await refused(Wish(epoch=1, term=3, number=1, timeline=1))
    node.ports.ended.epoch = 2
    assert "end was not asked" in await refused(method="read")
    assert "on timeline 1" in await refused(Wish(epoch=2, term=3, number=1, timeline=9))
    await lending.end(2, wish.encode())
    assert len(without_sum(await lending.read(2, wish.encode()))) == 50
    far = Wish(epoch=2, term=3, number=1, timeline=1, at=1000, size=50)
    assert "there is no WAL" in await refused(far, "read")
    node.ports.ended.end = None
    node.server.faults.extra_s["end_of_wal"] = 60.0
    assert "could not be found" in await refused()
    await node.store.latch(2, doubted=True)
    assert "write or flush" in await refused()


def test_damage_on_the_way_is_seen() -> None:
    sent = with_sum(b"abc")
    assert without_sum(sent) == b"abc"
    with pytest.raises(Refused):
        without_sum(sent[:-1] + b"x")
