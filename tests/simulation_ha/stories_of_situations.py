"""Every situation of a server under every kind of goal: each entry of the table of transitions.

Lives here: how a node comes into a situation while it is to follow, lead, give up, and so on, and
how that must end. Must not live here: what a transition does. Start reading at `put`, then at any
story.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ramd.domain.model import ClusterState, Handover, Removal
from ramd.domain.observation import DataKind
from ramd.domain.server import ControlState
from ramd.execute.context import Situation
from ramd.state.commands import Destroy, RequestHandover
from tests.simulation_ha.stories import FAILOVER_S, coordinated_by, formed, led_by
from tests.support.ha_host import Host
from tests.support.ha_members import remove
from tests.support.ha_net import GROUP
from tests.support.ha_people import order
from tests.support.ha_wal import ENDLESS, Directory
from tests.support.ha_world import World

KINDS = {
    Situation.ABSENT: DataKind.ABSENT,
    Situation.PARTIAL: DataKind.PARTIAL,
    Situation.FOREIGN: DataKind.FOREIGN,
}
LEASE_S = 4.0


def put(host: Host, situation: Situation) -> None:
    """What somebody, or an accident, has made of its server and directory."""
    if situation is Situation.REPLICA and host.server is not None and not host.server.primary:
        return
    host.crash_server()
    host.kill_remains()
    if situation in KINDS:
        host.disk = Directory(kind=KINDS[situation])
        return
    if situation in (Situation.STOPPED, Situation.CRASHED):
        clean = situation is Situation.STOPPED
        host.disk.control = ControlState.SHUT_DOWN if clean else ControlState.IN_PRODUCTION
        return
    if situation is Situation.STARTING:
        host.disk.consistent_at = ENDLESS
    host.run_server(primary=situation is Situation.PRIMARY)


def repaired(host: Host) -> None:
    """A person moves a foreign directory away, and gives a server the WAL that it waits for."""
    if host.disk.kind is DataKind.FOREIGN:
        host.disk = Directory()
    if host.disk.consistent_at == ENDLESS:
        host.disk.consistent_at = 0


async def reached(world: World, situation: Situation, goal: str) -> None:
    name = f"transition {situation} {goal}"
    await world.until(lambda: world.tally[name], FAILOVER_S, name)


async def all_well(world: World) -> None:
    """Everything that a person can repair is, and the cluster comes back."""
    world.network.heal()
    for node_id, host in world.hosts.items():
        repaired(host)
        world.boot(node_id)
    await world.until(lambda: not world.settled(), 90)


def absent_daemon(host: Host) -> None:
    """Its daemon is dead: nobody sees what happens to the server."""
    assert host.daemon is not None
    host.daemon.kill()


# --- replicas ----------------------------------------------------------------------------------


async def begins(world: World, situation: Situation) -> None:
    """A daemon starts beside it, at first without a word of the group: nothing is touched."""
    await formed(world, sync=False)
    host = world.hosts[3]
    absent_daemon(host)
    put(host, situation)
    server, disk = host.server, host.disk
    for node_id in (1, 2):
        world.network.cut(3, node_id, GROUP)
    world.boot(3)
    await reached(world, situation, "Wait")
    await world.pass_s(1.0)
    assert host.server is server, "its server was touched"
    assert host.disk is disk, "its directory was touched"
    world.network.heal()
    if situation is Situation.PRIMARY:
        # It was stopped without a word of the group; now somebody does it once more.
        await world.until(lambda: not world.settled(), FAILOVER_S)
        put(host, situation)
    await reached(world, situation, "Follow")
    await all_well(world)


async def sealed(world: World, situation: Situation) -> None:
    """The daemon comes back while positions are compared, and its copy is needed."""
    await formed(world)
    world.network.heal()
    host = world.hosts[3]
    absent_daemon(host)
    world.hosts[1].power_off()
    await world.until(lambda: world.hosts[2].reported, FAILOVER_S, "a seal")
    put(host, situation)
    world.boot(3)
    await reached(world, situation, "StaySealed")
    await world.pass_s(1.0)
    await all_well(world)


async def removed(world: World, situation: Situation) -> None:
    """The node is removed while its daemon is dead; its data stay, whatever they are."""
    await formed(world, sync=False)
    host = world.hosts[3]
    absent_daemon(host)
    remove(world, 3)
    await world.until(lambda: world.state().member(3) is None, FAILOVER_S, "the removal")
    put(host, situation)
    disk = host.disk
    world.boot(3)
    await reached(world, situation, "Withdraw")
    await world.until(lambda: host.server is None, FAILOVER_S, "its server stops")
    assert host.disk is disk, "its directory was touched"
    assert not host.aside, "its directory was touched"
    await world.until(lambda: not world.settled(), 30)


async def destroyed(world: World, situation: Situation) -> None:
    """The cluster is destroyed while the daemon is frozen. What is not ours stays."""
    await formed(world, sync=False)
    host = world.hosts[3]
    assert host.daemon is not None
    host.daemon.actor.freeze()
    put(host, situation)
    order(world, Destroy(removal=Removal(remove_data=False)))
    await world.until(lambda: world.state().removal, FAILOVER_S, "the order")
    host.daemon.actor.thaw()
    await reached(world, situation, "Leave")
    ours = situation not in (Situation.ABSENT, Situation.FOREIGN)
    kind = DataKind.FOREIGN if situation is Situation.FOREIGN else DataKind.ABSENT
    await world.until(lambda: host.disk.kind is kind and host.server is None, 90, "its end")
    assert bool(host.aside) is ours


# --- the holder of an epoch ----------------------------------------------------------------------


async def elected(world: World, situation: Situation) -> None:
    """It strikes the node that was just elected, before it knows."""

    def strike(host: Host) -> None:
        assert host.daemon is not None
        host.daemon.actor.freeze()
        put(host, situation)
        asyncio.get_running_loop().call_later(0.02, host.daemon.actor.thaw)

    holder = await at_the_grant(world, strike)
    await reached(world, situation, "Lead")
    repaired(holder)
    await led_by(world, 3, 4, 5)
    await all_well(world)


async def yielding(world: World, situation: Situation) -> None:
    """As before; and by then a person wants yet another primary."""

    def strike(host: Host) -> None:
        assert host.daemon is not None
        actor = host.daemon.actor
        actor.freeze()

        def asked(state: ClusterState) -> None:
            if state.handover is not None:
                world.on_apply.remove(asked)
                put(host, situation)
                asyncio.get_running_loop().call_later(0.02, actor.thaw)

        world.on_apply.append(asked)
        order(world, RequestHandover(handover=Handover(epoch=2, target=None)), but=host.node_id)

    await at_the_grant(world, strike)
    await reached(world, situation, "Yield")
    await all_well(world)


async def gives_up(world: World, situation: Situation) -> None:
    """It strikes the primary while its daemon is dead."""
    primary = await formed(world, sync=False)
    absent_daemon(primary)
    put(primary, situation)
    world.boot(1)
    await reached(world, situation, "GiveUp")
    await world.pass_s(LEASE_S)
    await all_well(world)


async def at_the_grant(world: World, strike: Callable[[Host], None]) -> Host:
    """The primary's host is lost; `strike` the one that gets the next epoch, which is not the
    coordinator, when the first member has read that."""
    await formed(world, sync=False)
    await coordinated_by(world, 2)
    holders: list[Host] = []

    def granted(state: ClusterState) -> None:
        if state.epoch == 2 and state.reign is not None:
            world.on_apply.remove(granted)
            holders.append(world.hosts[state.reign.node_id])
            asyncio.get_running_loop().call_soon(strike, holders[0])

    world.on_apply.append(granted)
    world.hosts[1].power_off()
    await world.until(lambda: holders, FAILOVER_S, "a grant")
    return holders[0]
