"""The interleavings that broke the first draft of the safety rules, each as a story.

Lives here: what happens, step by step, on a simulated cluster. Must not live here: the rule that is
taken out (see `without`). A story ends well with the rules, and shows the violation without its
own. Start reading at any of them; the names are those of docs/simulation-ha.md.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

from ramd.domain.model import ClusterState, DecisionRecord, Handover, Removal, Settings
from ramd.domain.observation import DataKind
from ramd.domain.sync import SyncMember, SyncMode, SyncSet
from ramd.state.commands import ChangeSettings, Destroy, RequestHandover
from ramd.state.sync import ChangeSync
from tests.support.ha_host import STUCK, Host
from tests.support.ha_net import GROUP, WAL
from tests.support.ha_world import World

SYNC = Settings(
    startup_grace_ms=1_000,
    synchronous_replication=SyncMode.ON,
    enforce_sync_standbys=True,
    sync_standby_names=("node2", "node3"),
)
"""Commits wait for node 2 or 3; writes wait rather than go on without them."""
ASYNC = replace(SYNC, synchronous_replication=SyncMode.OFF)
LOOSE = replace(SYNC, enforce_sync_standbys=False, sync_replication_timeout_ms=500)
FAILOVER_S = 20.0


async def formed(world: World, *, sync: bool = True) -> Host:
    """Node 1 leads and everybody streams; with `sync` its set is settled, and those who vote but
    are not waited for get no more WAL from it."""
    world.start()
    await world.until(lambda: not world.settled(), 30, "forming")
    if sync:
        await world.until(lambda: world.state().sync.rules[0].members, 30, "the first set")
        await world.until(lambda: not world.settled(), 30, "its proof")
    primary = world.primary()
    assert primary is not None and primary.node_id == 1
    for node_id in (4, 5) if sync else ():
        world.network.cut(1, node_id, WAL)
    return primary


def order(world: World, command: Any) -> None:
    """A person asks node 1, or whoever lives."""
    host = next(h for h in world.hosts.values() if h.daemon is not None)
    assert host.daemon is not None
    host.daemon.actor.call(host.daemon.propose, command)


async def acked(world: World, count: int = 3) -> None:
    """So many more writes are acknowledged."""
    before = world.tally["acknowledged"]
    await world.until(lambda: world.tally["acknowledged"] >= before + count, 20, "writes")


async def led_by(world: World, *nodes: int) -> None:
    """One of `nodes` takes writes."""
    await world.until(
        lambda: (p := world.primary()) is not None and p.node_id in nodes, FAILOVER_S
    )


async def promoted(world: World, epoch: int) -> None:
    """A server has become primary of `epoch`, whether or not it may acknowledge yet."""
    await world.until(
        lambda: any(
            h.server is not None and h.server.primary and h.record.opened_epoch == epoch
            for h in world.hosts.values()
        ),
        FAILOVER_S,
        f"a primary of epoch {epoch}",
    )


async def nobody(world: World, seconds: float = 8.0) -> None:
    """No node takes writes for so long, and the reason is recorded."""
    before = world.state().epoch
    await world.pass_s(seconds)
    state = world.state()
    assert state.epoch == before and world.primary() is None, "somebody was promoted"
    rules = [record.rule for record in state.decisions]
    assert "nobody_eligible" in rules, f"no reason is recorded: {rules}"


# --- the synchronous set ---------------------------------------------------------------------


async def wider_by_one(world: World) -> None:
    """C5: commits are to wait for both, not any; a walsender has not heard of it when node 2 alone
    confirms a write and is lost together with the primary."""
    primary = await formed(world)
    primary.slow["reload"] = STUCK
    world.network.cut(1, 3, WAL)
    order(world, ChangeSettings(settings=replace(SYNC, num_sync_standbys=2)))
    await world.until(lambda: world.state().sync.goal.k == 2, 10, "the change begins")
    await acked(world)
    world.hosts[1].power_off()
    world.hosts[2].power_off()
    await nobody(world)
    world.boot(2)
    await led_by(world, 2)


async def narrower_by_one(world: World) -> None:
    """C5: node 3 leaves the set while its walsender still lets commits go, and confirms alone what
    the primary acknowledges before it is lost."""
    primary = await formed(world)
    primary.slow["reload"] = STUCK
    world.network.cut(1, 2, WAL)
    named = replace(SYNC, sync_standby_names=("node2",))
    order(world, ChangeSettings(settings=named))
    await world.until(lambda: world.state().sync.goal.nodes == (2,), 15, "the change begins")
    await acked(world)
    world.hosts[1].power_off()
    world.hosts[3].power_off()
    await nobody(world)
    world.boot(3)
    await led_by(world, 2, 3)


async def member_that_lags(world: World) -> None:
    """C6: the primary went on alone; replicas come back far behind and are to be waited for again
    when it is lost."""
    await formed(world)
    world.network.cut(1, 2, WAL)
    world.network.cut(1, 3, WAL)
    await world.until(lambda: world.state().sync.goal.alone, 20, "it goes on alone")
    await acked(world, 30)
    for node_id in (2, 3):
        world.hosts[node_id].slow["flush"] = STUCK
        world.network.cuts -= {(1, node_id, WAL), (node_id, 1, WAL)}
    await world.until(lambda: world.state().sync.goal.members, 20, "a set is wanted")
    await world.pass_s(1.0)
    world.hosts[1].power_off()
    await nobody(world)
    for node_id in (2, 3):
        world.hosts[node_id].slow.clear()
    world.boot(1)
    await led_by(world, 1)


async def another_copy(world: World) -> None:
    """C7: node 2 alone confirmed a write; its directory is replaced by a copy of node 3's, and the
    primary is lost."""
    await formed(world)
    world.network.cut(1, 3, WAL)
    await world.pass_s(0.5)
    await acked(world)
    world.hosts[1].power_off()
    second = world.hosts[2]
    second.crash_server()
    second.kill_remains()
    second.disk = replace(world.hosts[3].disk.copy_of(), tie="restored")
    await nobody(world)
    world.boot(1)
    await led_by(world, 1)


async def counted_twice(world: World) -> None:
    """C7: both are waited for; node 3 is cut off, and node 2 comes with a second stream while the
    first is still there. Then the primary and node 2 are lost."""
    await formed(world)
    order(world, ChangeSettings(settings=replace(SYNC, num_sync_standbys=2)))
    await world.until(
        lambda: world.state().sync.rules[0].k == 2 and not world.settled(), 20, "both are waited for"
    )
    world.network.cut(1, 3, WAL)
    await world.pass_s(1.0)
    before = world.tally["acknowledged"]
    world.network.cuts.add((2, 1, WAL))
    world.hosts[2].crash_server()
    await world.pass_s(0.3)
    world.network.cuts.remove((2, 1, WAL))
    await world.pass_s(2.0)
    world.hosts[1].power_off()
    world.hosts[2].power_off()
    assert world.tally["acknowledged"] == before or not world.slots
    await promoted(world, 2)


async def nobody_streams_yet(world: World) -> None:
    """C9: the new primary's replicas cannot reach it: it must not acknowledge by itself."""
    await formed(world)
    world.network.cut(2, 3, WAL)
    for node_id in (4, 5):
        world.network.cut(2, node_id, WAL)
        world.network.cut(3, node_id, WAL)
    world.hosts[1].power_off()
    await world.until(lambda: world.state().epoch >= 2, FAILOVER_S, "a failover")
    await world.pass_s(4.0)
    assert world.primary() is None, "it acknowledges alone"
    world.network.heal()
    await led_by(world, 2, 3)


async def unreplayed(world: World) -> None:
    """C10: node 2 alone confirmed a write, crashed, and still replays what it has when positions
    are compared. What it lacks is less than what an incomplete record may take away."""
    world.sizes = (120,)
    await formed(world)
    second = world.hosts[2]
    second.slow["replay"] = STUCK
    world.network.cut(1, 3, WAL)
    await world.pass_s(0.5)
    await acked(world, 10)
    second.crash_server()
    second.kill_remains()
    second.disk.minimum = second.disk.restart
    await world.pass_s(0.05)
    world.hosts[1].power_off()
    await nobody(world)
    second.slow.clear()
    second.crash_server()
    await led_by(world, 2, 3, 4, 5)


async def furthest_is_tagged(world: World) -> None:
    """C10: the only replica that has the last write is tagged nofailover."""
    await formed(world)
    world.network.cut(1, 3, WAL)
    await world.pass_s(0.5)
    await acked(world)
    world.hosts[1].power_off()
    await nobody(world)
    world.boot(1)
    await led_by(world, 1)


async def dead_branch(world: World) -> None:
    """C10: node 4 followed the old primary past the fork, so its WAL ends at a greater LSN than
    that of those who followed the new one."""
    primary = await formed(world)
    world.network.heal()
    await world.until(lambda: not world.settled(), 30)
    for node_id in (2, 3, 5):
        for one in (1, 4):
            world.network.cut(one, node_id)
    await led_by(world, 2, 3)
    assert primary.server is not None
    for _ in range(40):  # hint bits, vacuum: a fenced primary goes on writing WAL
        primary.disk.append(300_000)
    primary.server.flush(len(primary.disk.wal))
    await acked(world)
    winner = world.primary()
    assert winner is not None
    primary.power_off()
    winner.power_off()
    world.network.heal()
    await promoted(world, 3)


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
    assert coordinator is not None and coordinator.node_id != 1
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
    await world.until(lambda: server.waiters, 10, "a commit that waits")
    world.calm_clients = True
    server.crash_cycle()
    await world.pass_s(3.0)
    assert world.primary() is None, "it may acknowledge although nobody has what it recovered"
    world.network.heal()
    await world.until(lambda: world.primary() is not None, FAILOVER_S)


async def half_way_to_alone(world: World) -> None:
    """H7: the primary asks to go on alone, and is lost before it did."""
    await formed(world)

    def strike(state: ClusterState) -> None:
        if state.sync.target is not None and state.sync.target.alone:
            world.on_apply.remove(strike)
            asyncio.get_running_loop().call_soon(world.hosts[1].power_off)

    world.on_apply.append(strike)
    world.network.cut(1, 2, WAL)
    world.network.cut(1, 3, WAL)
    await world.until(lambda: world.hosts[1].lost, 20, "it asks to go on alone")
    await led_by(world, 2, 3, 4, 5)


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
    """C11: the target of a switchover dies once it was granted the epoch: an ordinary failover
    from it follows, with the old primary as a candidate."""
    primary = await formed(world, sync=False)
    assert primary.server is not None
    begun = primary.server

    def strike(state: ClusterState) -> None:
        if state.epoch == 2:
            world.on_apply.remove(strike)
            asyncio.get_running_loop().call_soon(world.hosts[2].power_off)

    world.on_apply.append(strike)
    order(world, RequestHandover(handover=Handover(epoch=1, target=2)))
    await world.until(lambda: world.state().epoch >= 3, FAILOVER_S, "a failover")
    await led_by(world, 1, 3)
    assert primary.server is not begun, "the server of an epoch that was over went on"
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


async def impossible_set(world: World) -> None:
    """M9: a set of which more must confirm than it has members."""
    await formed(world)
    state = world.state()
    member = SyncMember(node_id=2, copy=world.hosts[2].record.copy)
    record = DecisionRecord(epoch=1, rule="sync_changed", action="ChangeSync", reason="by hand")
    wanted = SyncSet(members=(member,), k=2)
    order(
        world,
        ChangeSync(
            epoch=state.epoch,
            generation=state.sync.generation + 1,
            target=wanted,
            primary_copy="",
            record=record,
        ),
    )
    ruled: list[ClusterState] = []
    world.on_apply.append(lambda new: ruled.append(new) if wanted in new.sync.rules else None)
    await world.pass_s(1.0)
    assert not ruled, "a set that nobody can satisfy rules"
    await acked(world)


async def quorum_lost_and_back(world: World) -> None:
    """S9: without a quorum writes stop with the lease; when it is back they go on, in the same
    epoch and on the same server."""
    primary = await formed(world)
    server = primary.server
    others = [h for h in world.hosts.values() if h is not primary]
    for host in others:
        if host.daemon is not None:
            host.daemon.actor.freeze()
    await world.until(lambda: world.primary() is None, 10, "writes stop")
    await world.pass_s(4.0)
    for host in others:
        if host.daemon is not None:
            host.daemon.actor.thaw()
    await world.until(lambda: world.primary() is not None, FAILOVER_S)
    assert world.primary() is primary and primary.server is server, "it was another server"
