"""Stories of WAL that only one host has left: what of it is fetched before a promotion, and what is
not (attacks M4).

Lives here: what happens, step by step. Must not live here: the rule that is taken out (`without`).
"""

from __future__ import annotations

from tests.simulation_ha.stories import FAILOVER_S, acked, formed, led_by
from tests.support.ha_host import Host
from tests.support.ha_net import WAL
from tests.support.ha_world import World


async def only_on_the_crashed_primary(world: World) -> None:
    """No replica has got the last writes when the primary's server crashes."""
    await formed(world, sync=False)
    for node_id in (2, 3):
        world.network.cut(1, node_id, WAL)
    await acked(world)
    world.hosts[1].crash_server()
    await led_by(world, 2, 3)
    assert not world.tally["writes lost as said"], "a write is lost"


async def only_on_a_tagged_replica(world: World) -> None:
    """The one that has the last writes may not be promoted, and the primary's host is lost."""
    await formed(world, sync=False)
    world.network.cut(1, 3, WAL)
    await world.pass_s(0.5)
    await acked(world)
    world.network.cut(1, 2, WAL)
    world.hosts[1].power_off()
    await led_by(world, 3)
    assert world.tally["rule fetch_first"], "nothing is fetched"


async def recycled_behind_the_end(world: World) -> None:
    """M4: node 3 alone confirmed the last writes and is lost with its host; the primary's server
    crashes and does not start again. Its last file goes on behind the last record with what it held
    before: node 2 needs the records, and waits for nothing behind them."""
    primary = await formed(world)
    world.network.cut(1, 2, WAL)
    await world.pass_s(0.5)
    await acked(world)
    primary.disk.recycled = 4_000
    world.flaws[(1, "start")] = 1_000
    world.hosts[3].power_off()
    primary.crash_server()
    await world.until(lambda: world.state().epoch >= 2, FAILOVER_S, "no primary can be chosen")
    _fetched(world)


async def half_a_record_behind_the_end(world: World) -> None:
    """M4: the replica that has most may not be promoted, and what it has received ends within a
    record: all of it is fetched, and replay is waited for only to the last whole record."""
    await formed(world, sync=False)

    def half_a_record(host: Host, name: str) -> None:
        if (host.node_id, name) == (2, "sealed_position"):
            host.disk.torn = 400

    world.on_call.append(half_a_record)
    world.network.cut(1, 3, WAL)
    await world.pass_s(0.5)
    await acked(world)
    world.network.cut(1, 2, WAL)
    world.hosts[1].power_off()
    await world.until(lambda: world.state().epoch >= 2, FAILOVER_S, "a failover")
    _fetched(world)
    await led_by(world, 3)


async def flush_that_failed(world: World) -> None:
    """M4: a flush of WAL fails, and the primary's server ends by that. The record can be read
    there, and nobody knows for how long: it goes to nobody."""
    primary = await formed(world, sync=False)
    server = primary.server
    assert server is not None
    await world.until(lambda: not server.open_xids, 10, "no commit under way")
    doubted = primary.disk.append(500, 999_999)
    primary.fail_flush()
    await led_by(world, 2, 3)
    winner = world.primary()
    assert winner is not None
    assert doubted not in winner.disk.wal, "WAL whose flush failed lives on"
    await world.until(lambda: not world.settled(), 60)


def _fetched(world: World) -> None:
    reasons = [record.reason for record in world.state().decisions if record.epoch == 2]
    assert any("it fetched" in reason for reason in reasons), f"it is not fetched: {reasons}"
