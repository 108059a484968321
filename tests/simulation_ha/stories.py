"""The interleavings that broke the first draft of the safety rules, each as a story.

Lives here: what happens, step by step, on a simulated cluster. Must not live here: the rule that is
taken out (see `without`). A story ends well with the rules, and shows the violation without its
own. Start reading at any of them; the names are those of docs/simulation-ha.md.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ramd.domain.model import ClusterState, DecisionRecord, Settings
from ramd.domain.sync import SyncMember, SyncMode, SyncSet
from ramd.state.commands import ChangeSettings
from ramd.state.sync import ChangeSync
from tests.support.ha_host import STUCK, Host
from tests.support.ha_net import WAL
from tests.support.ha_people import order, quietly
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
    assert primary is not None
    assert primary.node_id == 1
    for node_id in (4, 5) if sync else ():
        world.network.cut(1, node_id, WAL)
    return primary


async def coordinated_by(world: World, node_id: int) -> Host:
    """The coordinator hands over to this node."""

    def there() -> bool:
        now = world.coordinator()
        if now is None or now.node_id == node_id or now.daemon is None:
            return now is not None and now.node_id == node_id
        now.daemon.actor.call(quietly, now.daemon.link.transfer, node_id)
        return False

    await world.until(there, FAILOVER_S, f"node {node_id} coordinates")
    return world.hosts[node_id]


async def acked(world: World, count: int = 3) -> None:
    """So many more writes are acknowledged."""
    before = world.tally["acknowledged"]
    await world.until(lambda: world.tally["acknowledged"] >= before + count, 20, "writes")


async def led_by(world: World, *nodes: int) -> None:
    """One of `nodes` takes writes."""
    await world.until(lambda: (p := world.primary()) is not None and p.node_id in nodes, FAILOVER_S)


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
    assert state.epoch == before, "somebody was promoted"
    assert world.primary() is None, "somebody takes writes"
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
    await led_by(world, *world.hosts)


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
    await led_by(world, *world.hosts)


async def counted_twice(world: World) -> None:
    """C7: both are waited for; node 3 is cut off, and node 2 comes with a second stream while the
    first is still there. Then the primary and node 2 are lost."""
    await formed(world)
    order(world, ChangeSettings(settings=replace(SYNC, num_sync_standbys=2)))
    await world.until(
        lambda: world.state().sync.rules[0].k == 2 and not world.settled(),
        20,
        "both are waited for",
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
    """C10: the only replica that has the last write is tagged nofailover: another one gets it."""
    await formed(world)
    world.network.cut(1, 3, WAL)
    await world.pass_s(0.5)
    await acked(world)
    world.hosts[1].power_off()
    await led_by(world, 3, 4, 5)


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
