"""Stories of WAL that only one host has left, on a cluster whose commits wait for nobody.

Lives here: what happens, step by step. Must not live here: the rule that is taken out (`without`).
"""

from __future__ import annotations

from tests.simulation_ha.stories import acked, formed, led_by
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
