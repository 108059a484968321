"""Stories of late words, weak sessions, machines that are suspended, members: as `stories` is told.

Start reading at any of them.
"""

from __future__ import annotations

import asyncio

from ramd.execute.context import Situation
from tests.simulation_ha.stories import (
    FAILOVER_S,
    acked,
    coordinated_by,
    formed,
    led_by,
    nobody,
    promoted,
)
from tests.simulation_ha.stories_of_situations import put
from tests.support.ha_host import STUCK, Host
from tests.support.ha_members import invite, remove
from tests.support.ha_net import GROUP, WAL
from tests.support.ha_time import Actor
from tests.support.ha_world import World


async def late_report(world: World, silent_s: float = 0.0) -> None:
    """H2: node 2 reports under a seal of node 4, which coordinates no more; it follows again and
    alone confirms more, but only the old report is known to node 5 when the primary is lost."""
    world.sizes = (120,)
    await formed(world)
    await coordinated_by(world, 4)
    third = world.hosts[3]
    third.slow["replay"] = STUCK
    world.network.cut(1, 4, GROUP)
    await world.until(lambda: world.hosts[2].reported, FAILOVER_S, "a sealed position")
    await world.pass_s(0.06)
    world.network.cut(1, 3, WAL)
    world.network.cuts.add((2, 5, GROUP))
    third.slow.clear()
    third.crash_server()
    await coordinated_by(world, 5)
    await acked(world)
    await world.pass_s(silent_s)
    world.hosts[1].power_off()
    await nobody(world, 4.0)
    world.network.cuts.discard((2, 5, GROUP))
    world.boot(1)
    await led_by(world, 1, 3, 4, 5)


async def late_report_of_a_silent_node(world: World) -> None:
    """As before; and the primary is lost when nothing has been heard of node 2 for long."""
    await late_report(world, silent_s=2.0)


async def weak_sessions(world: World) -> None:
    """H4: sessions ask not to wait for replicas, which are cut off when the primary is lost."""
    await formed(world)
    world.weak_sessions = True
    for node_id in (2, 3):
        world.network.cut(1, node_id, WAL)
    await world.pass_s(1.0)
    world.hosts[1].power_off()
    await led_by(world, 2, 3)
    await acked(world)


async def cancelled_waits(world: World) -> None:
    """H4: commits wait for replicas that are cut off, somebody cancels them, and the primary is
    lost."""
    primary = await formed(world)
    server = primary.server
    assert server is not None
    for node_id in (2, 3):
        world.network.cut(1, node_id, WAL)
    await world.until(lambda: server.waiters, 10, "a commit that waits")
    server.cancel_waits()
    await world.pass_s(0.3)
    primary.power_off()
    await led_by(world, 2, 3)
    await acked(world)


async def suspended(world: World) -> None:
    """H5: the primary's machine is suspended from outside, with its clock: when it goes on, it
    believes in its lease while another one leads, and nobody has told the third node to follow
    that one, since its daemon stands still."""
    primary = await formed(world)
    server = primary.server
    assert server is not None
    await world.until(lambda: not server.open_xids, 10, "no commit under way")
    actors = primary.actors()
    primary.clock.stop()
    for actor in actors:
        actor.freeze()
    still: list[Actor] = []

    def promoting(host: Host, name: str) -> None:
        if name == "promote":
            world.on_call.remove(promoting)
            daemon = world.hosts[5 - host.node_id].daemon
            assert daemon is not None
            still.append(daemon.actor)
            daemon.actor.freeze()

    world.on_call.append(promoting)
    await promoted(world, 2)
    primary.clock.go_on()
    for actor in reversed(actors):  # its daemon comes last, and learns last what has happened
        actor.thaw()
        await world.pass_s(0.5)
    await world.pass_s(1.0)
    still[0].thaw()
    await world.pass_s(3.0)
    await led_by(world, 2, 3)
    await world.until(lambda: not world.settled(), 60)


async def coordinator_paused(world: World) -> None:
    """M6: the coordinator's daemon stands still for longer than the lease lasts, and for less than
    an election takes: it coordinates on, and has not heard the primary, which has been there all
    the time."""
    await formed(world, sync=False)
    coordinator = await coordinated_by(world, 2)
    assert coordinator.daemon is not None
    actor = coordinator.daemon.actor
    await world.pass_s(1.0)
    actor.freeze()
    await world.pass_s(1.7)
    actor.thaw()
    await world.pass_s(3.0)
    await world.until(lambda: world.primary() is not None, FAILOVER_S)
    assert world.coordinator() is coordinator, "another node coordinates"
    assert world.state().epoch == 1, "a needless failover"


async def member_removed(world: World) -> None:
    """M7: node 2, on whose word commits rest, is removed; the server is slow to learn by whom it
    goes now. As soon as the node is gone the primary is lost for good."""
    primary = await formed(world)
    primary.slow["reload"] = 2.0
    remove(world, 2)
    await world.until(lambda: world.state().member(2) is None, FAILOVER_S, "the removal")
    primary.power_off()
    await led_by(world, 3, 4, 5)
    await acked(world)
    assert world.hosts[2].server is None, "a removed node serves"


async def first_directory_lost(world: World) -> None:
    """The first server does not start, and its directory is gone before anybody has a copy."""

    def strike(host: Host, name: str) -> None:
        if name == "start":
            world.on_call.remove(strike)
            asyncio.get_running_loop().call_soon(put, host, Situation.ABSENT)

    world.on_call.append(strike)
    world.start()
    await world.until(lambda: not world.settled(), 60, "forming")
    assert world.state().epoch == 2


async def members_come_and_go(world: World) -> None:
    """A node is removed and joins again with blank state at once; then a new one takes the place
    of another."""
    await formed(world, sync=False)
    remove(world, 3)
    await world.until(lambda: world.state().member(3) is None, FAILOVER_S, "the removal")
    await world.until(lambda: world.hosts[3].server is None, FAILOVER_S, "its server stops")
    invite(world, 3)
    await world.until(lambda: world.state().member(3) is not None, FAILOVER_S, "it joins")
    await world.until(lambda: not world.settled(), 60)
    invite(world, 4, replaces=2)
    await world.until(lambda: world.state().member(2) is None, 30, "it is replaced")
    await world.until(lambda: not world.settled(), 60)
    daemon = world.hosts[1].daemon
    assert daemon is not None
    await world.until(lambda: set(daemon.node.config.voters) == {1, 3, 4}, 20, "they vote")
