"""A replica's copy is made anew by order: committed, carried out by the node, ended by the
coordinator; or refused with the state unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ramd.domain.errors import Refused, Unavailable
from ramd.domain.model import Reign, Reinit, StartMode
from ramd.domain.service import ReinitRequest
from ramd.members.anew import reinit
from ramd.members.steward import Steward
from tests.support.member_desk import NOW_MS, NOW_NS, Office, local

THREE = ReinitRequest(node_id=3, actor="api")
ORDER = Reinit(node_id=3, copy="3a", requested_by="api")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(local(), tmp_path)


def meanwhile(office: Office, happens: Callable[[], Any]) -> None:
    """`happens` while the order is waited for."""

    async def until(check: Callable[[], Any]) -> Any:
        happens()
        await coordinates(office)
        return await office.until(check)

    office.desk = replace(office.desk, until=until)


async def coordinates(office: Office) -> None:
    """The coordinator takes the one next step, if there is one."""
    steps: list[Any] = []
    steward = Steward(
        office.book,
        spawn=steps.append,
        granting=lambda: False,
        clock=lambda: NOW_NS,
        unix_ms=lambda: NOW_MS,
    )
    steward.turn(office.view())
    for step in steps:
        await step


async def test_it_is_done_when_the_node_streams_with_another_copy(office: Office) -> None:
    meanwhile(office, lambda: office.copies.update({3: "3b"}))
    result = await reinit(office.desk, THREE, timeout_s=1.0)
    assert (result.node_id, result.name, result.done) == (3, "node3", True)
    assert office.book.cluster.reinits == ()
    ordered, ended = office.book.cluster.decisions[-2:]
    assert (ordered.rule, ordered.actor) == ("reinit_ordered", "api")
    assert (ended.rule, ended.reason) == ("reinit_ended", "node 3 streams with a new copy")


async def test_what_takes_long_goes_on_by_itself(office: Office) -> None:
    result = await reinit(office.desk, THREE, timeout_s=1.0)
    assert (result.done, result.activity) == (False, "following node 1")
    assert office.book.cluster.reinits == (ORDER,)
    with pytest.raises(Refused, match="is being made anew already"):
        await reinit(office.desk, THREE, timeout_s=1.0)


async def test_whoever_becomes_primary_meanwhile_keeps_its_copy(office: Office) -> None:
    def takes_over() -> None:
        reign = Reign(epoch=2, node_id=3, timeline=2, start=StartMode.PROMOTE, parent_timeline=1)
        state = office.book.cluster
        office.book.cluster = replace(state, reigns=(*state.reigns, reign), reinits=())

    meanwhile(office, takes_over)
    with pytest.raises(Refused, match="has become the primary meanwhile"):
        await reinit(office.desk, THREE, timeout_s=1.0)


async def test_what_is_in_the_way_is_named(office: Office) -> None:
    async def refused(node_id: int) -> str:
        with pytest.raises((Refused, Unavailable)) as caught:
            await reinit(office.desk, ReinitRequest(node_id=node_id), timeout_s=1.0)
        assert office.book.proposed == []
        return caught.value.message

    assert await refused(9) == "there is no node 9"
    assert await refused(1) == "node 1 is the primary: switch over to another node first"
    office.copies[2] = ""
    assert "which copy of the data node 2 holds is not known" in await refused(2)
    office.silent = {3}
    office.book.cluster = replace(office.book.cluster, reinits=(replace(ORDER, copy="older"),))
    assert "which copy of the data node 3 holds is not known" in await refused(3)
    office.silent, office.copies = {1}, {}
    assert "no primary serves" in await refused(2)
    office.book.quorum = False
    assert "no majority" in await refused(2)
