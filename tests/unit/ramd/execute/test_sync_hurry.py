"""A new primary takes writes at the moment its synchronous set is proven, and asks no more than
it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramd.domain.lsn import Lsn
from tests.support.fake_fence import acknowledges, crash_cycle
from tests.support.fenced_node import LEAD, leading
from tests.support.sync_primary import ENOUGH_S, Primary, any_of, granted
from tests.support.virtual_time import elapse, virtual


@virtual
async def test_a_proof_opens_the_server_whatever_else_a_new_primary_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group does not answer, so that its fork is not recorded."""
    primary = Primary(tmp_path, granted(any_of(1, 2, 3)))

    async def never(command: bytes, *, timeout_s: float) -> None:
        await elapse(1000)

    monkeypatch.setattr(primary.node.consensus, "propose", never)
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        assert primary.node.server.primary
        assert primary.fence.published == []
        primary.show(flushed={2: 2000})
        await elapse(0.06)
        assert acknowledges(primary.node.server)


@virtual
async def test_a_proof_opens_no_start_of_the_server_that_began_since(tmp_path: Path) -> None:
    node, fence = await leading(tmp_path)
    node.unsynced = lambda epoch: "not proven"
    async with node.running(lease=2):
        node.guard.open(2, fence.start_number())
        crash_cycle(node.server, recovers_s=0)
        node.unsynced = lambda epoch: ""
        node.ports.synced.set()
        await elapse(ENOUGH_S)
        assert fence.published == []
        node.guard.open(2, fence.start_number())
        assert fence.published


@virtual
async def test_sql_is_asked_when_the_page_says_that_it_is_worth_it(tmp_path: Path) -> None:
    """Under a proof the page is looked at every two milliseconds; what it says proves nothing."""
    primary = Primary(tmp_path, granted(any_of(1, 2, 3)))
    primary.show(loaded=6)
    async with primary.node.running(primary.syncing.run(), lease=2):
        primary.node.executor.pursue(LEAD)
        await elapse(ENOUGH_S)
        asked = primary.asked
        await elapse(ENOUGH_S)
        assert 5 <= primary.asked - asked <= 11
        primary.show(loaded=7, flushed={2: 1999})
        await elapse(ENOUGH_S)
        asked = primary.asked
        primary.paged = {2: Lsn(2000)}
        primary.show()
        await elapse(0.1)
        assert primary.asked - asked > 10
        assert primary.waits().startswith("0 of 1 members have confirmed"), "by SQL it has not"
