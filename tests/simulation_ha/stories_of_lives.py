"""Stories of timelines, crashes, seals, switchovers and ends: as `stories`, which says how.

Start reading at any of them.
"""

from __future__ import annotations

import asyncio
import itertools

from ramd.domain.model import ClusterState, Handover, Removal
from ramd.domain.observation import DataKind
from ramd.state.commands import Destroy, RequestHandover
from tests.simulation_ha.stories import FAILOVER_S, acked, coordinated_by, formed, led_by
from tests.support.ha_host import STUCK, Host
from tests.support.ha_net import GROUP, WAL
from tests.support.ha_people import order
from tests.support.ha_process import Postmaster
from tests.support.ha_wal import Record
from tests.support.ha_world import World

# --- timelines, crashes, seals ---------------------------------------------------------------


async def two_in_a_second(world: World) -> None:
    """C8: the second primary dies before anybody has its history; a third is promoted."""
    await formed(world, sync=False)
    for one, other in itertools.combinations((2, 3, 4, 5), 2):
        world.network.cut(one, other, WAL)
    world.hosts[1].power_off()
    await world.until(lambda: world.tally["promotions"] >= 1, FAILOVER_S, "a first failover")
    second = world.hosts[world.state().reigns[-1].node_id]
    second.power_off()
    await world.until(lambda: world.tally["promotions"] >= 2, FAILOVER_S, "a second failover")
    world.network.heal()
    world.boot(1)
    world.boot(second.node_id)
    await world.until(lambda: not world.settled(), 60)


async def behind_a_fork(world: World) -> None:
    """Node 5 is elected with the beginning of a record, which node 2 has as well; it acknowledges a
    write in the place of that record and is lost. Node 2 has not received it."""
    world.sizes = (120,)
    await formed(world, sync=False)

    def half_a_record(host: Host, name: str) -> None:
        if name == "sealed_position":
            host.disk.torn = {2: 400, 5: 500}.get(host.node_id, 0)

    def strike(server: Postmaster, _record: Record) -> None:
        if server.host.node_id == 5:
            world.on_ack.clear()
            server.host.crash_server()

    world.on_call.append(half_a_record)
    world.on_ack.append(strike)
    for node_id in (2, 3, 4):
        world.network.cut(5, node_id, WAL)
    world.hosts[1].power_off()
    await world.until(lambda: world.state().epoch >= 3, FAILOVER_S, "a second failover")
    await world.until(lambda: world.tally["promotions"] >= 2, FAILOVER_S, "a promotion")
    await world.pass_s(1.0)


async def behind_an_unrecorded_fork(world: World) -> None:
    """As before; and node 5 cannot tell the group where its timeline begins before it is lost."""

    def cut_off(host: Host, name: str) -> None:
        if (host.node_id, name) == (5, "promote"):
            world.on_call.remove(cut_off)
            for node_id in (2, 3, 4):
                world.network.cut(5, node_id, GROUP)

    def back() -> None:
        world.network.heal()
        world.boot(5)

    def killed(server: Postmaster, _record: Record) -> None:
        if server.host.node_id == 5 and server.host.daemon is not None:
            server.host.daemon.kill()
            asyncio.get_running_loop().call_later(0.3, back)

    world.on_call.append(cut_off)
    world.on_ack.append(killed)
    await behind_a_fork(world)


async def orphans(world: World) -> None:
    """H1: the server dies in the middle of a commit whose session goes on and answers."""
    primary = await formed(world, sync=False)
    server = primary.server
    assert server is not None
    world.calm_clients = True
    await world.pass_s(0.5)
    record = primary.disk.append(500, 999_999)

    def answers() -> None:
        server.flush(len(primary.disk.wal))
        world.acked(server, record)

    server.backends.later(1.5, answers)
    primary.crash_server()
    await world.until(lambda: world.state().epoch >= 2, FAILOVER_S, "a failover")
    await world.pass_s(3.0)


async def sealed_and_left(world: World) -> None:
    """H2: the coordinator dies right after it has sealed; the primary was only cut off from it."""
    await formed(world, sync=False)
    coordinator = world.coordinator()
    assert coordinator is not None
    assert coordinator.node_id != 1
    world.network.cut(1, coordinator.node_id, GROUP)

    def strike(_host: Host, name: str) -> None:
        if name == "sealed_position":
            world.on_call.remove(strike)
            asyncio.get_running_loop().call_soon(coordinator.power_off)

    world.on_call.append(strike)
    await world.until(lambda: coordinator.lost, FAILOVER_S, "a seal")
    world.network.heal()
    await world.pass_s(1.0)
    world.boot(coordinator.node_id)
    await world.until(lambda: not world.settled(), 60)


async def started_by_hand(world: World) -> None:
    """M8: while positions are compared somebody starts the crashed primary by hand."""
    primary = await formed(world, sync=False)
    assert primary.daemon is not None
    third = world.hosts[3]
    world.hosts[2].slow["replay"] = STUCK
    await acked(world)
    primary.daemon.kill()
    primary.crash_server()
    primary.kill_remains()
    await world.until(lambda: third.reported is not None, FAILOVER_S, "a sealed position")
    primary.run_server(primary=True)
    for _ in range(10):
        primary.disk.append(120)
    assert primary.server is not None
    primary.server.flush(len(primary.disk.wal))
    await world.pass_s(3.0)
    await led_by(world, 2, 3)


async def recovered_by_itself(world: World) -> None:
    """H6, H8: a commit waits for replicas that are cut off; a crash of another session ends the
    wait, and the server recovers by itself: under another start, which nobody has proven."""
    primary = await formed(world)
    server = primary.server
    assert server is not None
    for node_id in (2, 3, 4, 5):
        world.network.cut(1, node_id, WAL)
    await world.pass_s(0.5)  # what was on its way when they were cut off is there
    await world.until(lambda: server.waiters, 10, "a commit that waits")
    world.calm_clients = True
    server.crash_cycle()
    await world.pass_s(3.0)
    assert world.primary() is None, "it may acknowledge although nobody has what it recovered"
    world.network.heal()
    await world.until(lambda: world.primary() is not None, FAILOVER_S)


async def handed_over(world: World) -> None:
    """C4, C11: a switchover; the old lease has not run out when the fence falls, a session takes
    its time to end, and the old primary is not told what has become of its epoch."""
    primary = await formed(world, sync=False)
    server = primary.server
    assert server is not None
    server.open_xids += 1

    def ends() -> None:
        server.open_xids -= 1

    server.backends.later(0.15, ends)

    def strike(state: ClusterState) -> None:
        if state.epoch == 2:
            world.on_apply.remove(strike)
            world.network.cut(1, 2, GROUP)
            world.network.cut(1, 3, GROUP)

    world.on_apply.append(strike)
    order(world, RequestHandover(handover=Handover(epoch=1, target=2)))
    await led_by(world, 2)
    await acked(world, 20)
    world.network.heal()
    await world.until(lambda: not world.settled(), 60)


async def target_lost(world: World) -> None:
    """C11: the target of a switchover has acknowledged a write, and nobody knows yet where its
    timeline begins, when it is lost: the old primary still stands by. An ordinary failover follows,
    with the old primary as a candidate."""
    primary = await formed(world, sync=False)
    begun = primary.server
    await coordinated_by(world, 3)

    def cut_off(host: Host, name: str) -> None:
        if (host.node_id, name) == (2, "promote"):
            world.on_call.remove(cut_off)
            for node_id in (1, 3):
                world.network.cut(2, node_id, GROUP)

    def strike(server: Postmaster, _record: Record) -> None:
        if server.host.node_id == 2:
            world.on_ack.remove(strike)
            asyncio.get_running_loop().call_soon(server.host.power_off)

    world.on_call.append(cut_off)
    world.on_ack.append(strike)
    order(world, RequestHandover(handover=Handover(epoch=1, target=2)))
    await world.until(lambda: world.hosts[2].lost, FAILOVER_S, "a write in its epoch")
    await world.until(lambda: world.state().epoch >= 3, FAILOVER_S, "a failover")
    await led_by(world, 1, 3)
    assert primary.server is not begun, "the server of an epoch that was over went on"
    world.network.heal()
    world.boot(2)
    await world.until(lambda: not world.settled(), 60)


async def target_cut_off(world: World) -> None:
    """H3: the target does not get the last WAL: the switchover is undone without a restart."""
    primary = await formed(world, sync=False)
    server = primary.server
    for node_id in (2, 3):
        world.hosts[node_id].slow["flush"] = STUCK
    await acked(world)
    order(world, RequestHandover(handover=Handover(epoch=1, target=2)))
    await world.until(lambda: world.state().epoch >= 2, FAILOVER_S, "the next epoch")
    await led_by(world, 1)
    assert primary.server is server, "it was restarted"


async def destroyed(world: World, *, remove_data: bool = False) -> None:
    """S7: the cluster is destroyed; directories are kept aside unless a person said otherwise."""
    await formed(world, sync=False)
    order(world, Destroy(removal=Removal(remove_data=remove_data)))
    gone = lambda: all(h.disk.kind is DataKind.ABSENT for h in world.hosts.values())  # noqa: E731
    await world.until(gone, 30, "no directory is left in its place")
    kept = [bool(h.aside) for h in world.hosts.values()]
    assert kept == [not remove_data] * len(kept), f"kept aside: {kept}"


async def quorum_lost_and_back(world: World) -> None:
    """S9: without a quorum writes stop with the lease; when it is back they go on, in the same
    epoch and on the same server."""
    primary = await formed(world)
    server, epoch = primary.server, world.state().epoch
    others = [h for h in world.hosts.values() if h is not primary]
    await _majority_away(world, others)
    for host in others:
        if host.daemon is not None:
            host.daemon.actor.thaw()
    await world.until(lambda: world.primary() is not None, FAILOVER_S)
    _same(world, primary, server, epoch)


async def quorum_back_here(world: World) -> None:
    """S9: one of the majority is back, the primary's own daemon is elected, and dates its own lease
    as long over."""
    coordinator = await _back(world, slow_s=0.0)
    assert coordinator.node_id == 1


async def quorum_back_elsewhere(world: World) -> None:
    """S9: those who are back elect one of them, which has not heard the primary for long and does
    not hear it at once, as on a busy machine."""
    coordinator = await _back(world, slow_s=0.4)
    assert coordinator.node_id != 1


async def _back(world: World, *, slow_s: float) -> Host:
    """The quorum is lost; all but the last coordinator are back, and the primary goes on. Returns
    who coordinates now."""
    primary = await formed(world, sync=False)
    server, epoch, last = primary.server, world.state().epoch, world.coordinator()
    others = [h for h in world.hosts.values() if h is not primary]
    await _majority_away(world, others)
    world.network.slow[primary.node_id] = slow_s
    for host in others:
        if host.daemon is not None and host is not last:
            host.daemon.actor.thaw()
    await world.until(lambda: world.primary() is not None, FAILOVER_S)
    _same(world, primary, server, epoch)
    assert world.tally["rule primary_may_renew"], "it was given time"
    coordinator = world.coordinator()
    assert coordinator is not None
    return coordinator


async def _majority_away(world: World, others: list[Host]) -> None:
    for host in others:
        if host.daemon is not None:
            host.daemon.actor.freeze()
    await world.until(lambda: world.primary() is None, 10, "writes stop")
    await world.pass_s(4.0)


async def daemon_back_late(world: World) -> None:
    """A daemon is killed, and back when its lease is over: its server lived, and is taken over."""
    primary = await formed(world)
    server, epoch = primary.server, world.state().epoch
    assert primary.daemon is not None
    primary.daemon.kill()
    await world.until(lambda: world.primary() is None, 10, "writes stop")
    await world.pass_s(0.5)
    world.boot(primary.node_id)
    await world.until(lambda: world.primary() is not None, FAILOVER_S)
    _same(world, primary, server, epoch)
    assert world.tally["rule receivers_fed"], "it was waited for"


async def daemon_gone(world: World) -> None:
    """The daemon does not come back: it is waited for once, and not for long."""
    primary = await formed(world, sync=False)
    epoch = world.state().epoch
    assert primary.daemon is not None
    primary.daemon.kill()
    await world.until(lambda: world.primary() is None, 10, "writes stop")
    await world.until(lambda: world.state().epoch > epoch, 2.0, "another primary is chosen")
    assert world.tally["rule receivers_fed"] == 1, "it was waited for once"


async def host_gone(world: World) -> None:
    """A whole host is lost: nothing feeds a receiver any more, and nobody waits for its daemon."""
    primary = await formed(world, sync=False)
    epoch = world.state().epoch
    over_s = primary.lease[1]
    primary.power_off()
    await world.until(lambda: world.state().epoch > epoch, 10, "another primary is chosen")
    assert (primary.clock() - over_s) / 1e9 < 0.7, "lease and half a second"
    assert not world.tally["rule receivers_fed"]


def _same(world: World, primary: Host, server: Postmaster | None, epoch: int) -> None:
    assert world.primary() is primary, "it was another node"
    assert primary.server is server, "it was another server"
    assert world.state().epoch == epoch, "it was another epoch"
