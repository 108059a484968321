"""Rules of the coordinator that no interleaving comes to, and how each must end: as `stories`.

Start reading at any of them.
"""

from __future__ import annotations

from dataclasses import replace

from ramd.domain.model import Handover
from ramd.execute.context import Situation
from ramd.state.commands import ChangeSettings, RequestHandover
from tests.simulation_ha.stories import ASYNC, FAILOVER_S, acked, coordinated_by, formed, led_by
from tests.simulation_ha.stories_of_situations import at_the_grant, put
from tests.support.ha_host import STUCK, Host
from tests.support.ha_net import GROUP, WAL
from tests.support.ha_people import order
from tests.support.ha_world import World


async def ruled(world: World, *rules: str) -> None:
    """The coordinator has come to each of these."""

    def reached() -> bool:
        return all(world.tally[f"rule {rule}"] for rule in rules)

    await world.until(reached, FAILOVER_S, ", ".join(rules))


async def one_is_not_heard(world: World) -> None:
    """A founder is not there: whose data counts cannot be said, so nobody begins."""
    for node_id in (1, 2):
        world.network.cut(3, node_id, GROUP)
    world.start()
    await ruled(world, "first_primary_waits")
    await world.pass_s(3.0)
    assert world.state().epoch == 0, "somebody began without it"
    world.network.heal()
    await world.until(lambda: not world.settled(), 60)


async def target_is_gone(world: World) -> None:
    """A switchover to a node that is silent: the primary goes on as it was."""
    primary = await formed(world, sync=False)
    await coordinated_by(world, 2)
    server = primary.server
    world.hosts[3].power_off()
    await world.pass_s(3.0)
    order(world, RequestHandover(handover=Handover(epoch=1, target=3)), but=3)
    await ruled(world, "handover_cancelled")
    await world.until(lambda: world.state().handover is None, FAILOVER_S, "its end")
    await acked(world)
    assert world.primary() is primary
    assert primary.server is server, "it was restarted"


async def winner_does_not_start(world: World) -> None:
    """The server of the elected node does not start: its lease is renewed no more, and when it has
    run out another one is chosen."""

    def strike(host: Host) -> None:
        put(host, Situation.STOPPED)
        world.flaws[(host.node_id, "start")] = 1_000

    holder = await at_the_grant(world, strike)
    await ruled(world, "primary_failing", "sealed_lease_running")
    assert world.state().epoch == 2, "somebody was promoted beside a lease"
    await led_by(world, *(n for n in world.hosts if n not in (1, holder.node_id)))
    world.flaws.clear()
    world.boot(1)
    await world.until(lambda: not world.settled(), 90)


async def power_cut(world: World) -> None:
    """All hosts lose power; the last primary, which alone has the last writes, is back last."""
    await formed(world, sync=False)
    for node_id in (2, 3):
        world.network.cut(1, node_id, WAL)
    await acked(world)
    for host in world.hosts.values():
        host.power_off()
    world.network.heal()
    for node_id in (2, 3):
        world.boot(node_id)
    await ruled(world, "cold_start_grace")
    world.boot(1)
    await led_by(world, 1)
    assert world.tally["rule restart_in_place"], "it was another way"
    await world.until(lambda: not world.settled(), 60)


async def failover_is_off(world: World) -> None:
    """People have reserved the choice: nobody is promoted, and the old primary may come back."""
    primary = await formed(world, sync=False)
    await coordinated_by(world, 2)
    order(world, ChangeSettings(settings=replace(ASYNC, auto_failover_enabled=False)))
    await world.until(lambda: not world.state().settings.auto_failover_enabled, 10, "the setting")
    primary.power_off()
    await ruled(world, "auto_failover_disabled")
    await world.pass_s(5.0)
    assert world.state().epoch == 1, "somebody was promoted"
    world.boot(1)
    await led_by(world, 1)
    assert world.state().epoch == 2
    await world.until(lambda: not world.settled(), 60)


async def ended_while_it_waits(world: World) -> None:
    """The primary, fenced, hears the group again when its epoch is being ended: it is given up."""
    primary = await formed(world, sync=False)
    server = primary.server
    for node_id in (2, 3):
        world.hosts[node_id].slow["replay"] = STUCK
        world.network.cut(1, node_id, GROUP)
    await acked(world)
    await ruled(world, "sealed_waiting")
    assert primary.server is server, "it was stopped unasked"
    world.network.heal()
    await world.until(lambda: world.tally["transition primary GiveUp"], FAILOVER_S, "its end")
    for node_id in (2, 3):
        world.hosts[node_id].slow.clear()
        world.hosts[node_id].crash_server()
    await world.until(lambda: world.state().epoch >= 2, FAILOVER_S, "a failover")
    await world.until(lambda: not world.settled(), 60)
