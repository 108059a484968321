"""One run of a daemon on a simulated host: every part of it is the real one.

Real: coordinator, control loop, executor with its table, guard, syncing, observer, link. Simulated:
the server (`ha_server`), the network, the disk under `local.json`. Start reading at `Daemon`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from pgraft.core.types import CoreEvent, EventKind, NodeId
from ramd.coordinator import Coordinator
from ramd.domain.errors import RamdError
from ramd.domain.model import ClusterState
from ramd.domain.server import Upstream
from ramd.execute.context import Ports
from ramd.execute.executor import Executor
from ramd.execute.guard import Guard
from ramd.execute.lease_note import LeaseNote
from ramd.execute.lending import Lending
from ramd.execute.local import LocalRecord, LocalStore
from ramd.execute.syncing import Syncing
from ramd.link.facts import Facts
from ramd.link.handle import Link, Times
from ramd.link.join import WAKING
from ramd.link.state_copy import StateCopy
from ramd.loop import ControlLoop, Parts
from ramd.members.steward import Steward
from ramd.observe.observer import Identity, Observer
from ramd.state.commands import Command, encode
from tests.support.ha_casts import Casts
from tests.support.ha_group import GroupHooks, GroupNode
from tests.support.ha_members import peer, unix_ms
from tests.support.ha_server import SimServer
from tests.support.ha_time import Actor

if TYPE_CHECKING:
    from tests.support.ha_host import Host

PROPOSE_S = 5.0


class SimStore(LocalStore):
    """`local.json` on a simulated disk: durable after a while, unless the daemon dies first."""

    def __init__(self, host: Host, actor: Actor) -> None:
        super().__init__(cast(Any, None), host.record)
        self._record = host.record
        self._host = host
        self._actor = actor

    async def _write(self, record: LocalRecord) -> None:
        self._host.world.called(self._host, "local.json")
        writing = asyncio.ensure_future(self._sync(record))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            self._record = record
            raise
        self._record = record

    async def _sync(self, record: LocalRecord) -> None:
        await asyncio.sleep(self._host.fsync_s())
        if not self._actor.dead:
            self._host.record = record


class SimFacts:
    """What only people ask of the group is not simulated."""

    def __init__(self, node: GroupNode) -> None:
        self._node = node

    def of(self, _status: object, _lag: object) -> None:
        return None

    def removed(self, _committed: object) -> str:
        return self._node.removed()


class Daemon:
    """See module. `kill` is SIGKILL: nothing is said, nothing is tidied up."""

    def __init__(self, host: Host) -> None:
        world = host.world
        self.host = host
        self.actor = Actor(f"daemon {host.node_id}")
        self.wake = asyncio.Event()
        self.synced = asyncio.Event()
        self.founding = False
        self.store = SimStore(host, self.actor)
        self.node = GroupNode(
            host.node_id,
            host.raft,
            world.nodes,
            world.founding,
            own=peer(host),
            actor=self.actor,
            network=world.network,
            clock=host.clock,
            rng=world.rng,
            released_epoch=host.record.released_epoch,
            timing=world.plan.timing,
        )
        self.link = self._link()
        self.server = SimServer(host, self.store, self.actor)
        self.observer = Observer(
            self.server,
            identity=Identity(node_id=host.node_id, boot=self.node.boot),
            wake=self.wake.set,
            exited=lambda: self.guard.shut(0),
        )
        self.syncing = Syncing(
            me=host.node_id,
            server=self.server,
            consensus=self.link,
            store=self.store,
            clock=host.clock,
            changed=self._proven,
        )
        self.guard, self.executor = self._acting()
        self.coordinator = Coordinator(
            me=host.node_id,
            consensus=self.link,
            now_ns=host.clock(),
            propose=self.propose,
            ttl_ns=world.plan.timing.lease_ttl_ns,
        )
        self.steward = self._steward()
        self.loop = self._control_loop()

    # --- putting together --------------------------------------------------------------------

    def _link(self) -> Link:
        host, world = self.host, self.host.world
        loop = asyncio.get_running_loop()

        def changed(granted: bool) -> None:
            if granted:
                loop.call_soon(self.link.renew)
            self.wake.set()

        copy = StateCopy(changed)

        def apply(entry: Any) -> None:
            before = copy.state
            copy.apply(entry)
            world.applied(entry, before)

        def on_event(event: CoreEvent) -> None:
            if event.kind in WAKING:
                self.wake.set()
            if event.kind is EventKind.ROLE_CHANGED:
                world.tally[f"raft {event.detail}"] += 1

        def coordinator(node_id: NodeId) -> None:
            self.link.on_coordinator(int(node_id))
            self.wake.set()

        def lease(epoch: int, deadline_ns: int) -> None:
            if deadline_ns:
                host.lease = (epoch, deadline_ns)

        self.node.hooks = GroupHooks(
            apply=apply, event=on_event, coordinator=coordinator, lease=lease
        )
        timing = world.plan.timing
        return Link(
            cast(Any, self.node),
            cast(Any, Casts(self.node, world.channels)),
            copy,
            cast(Facts, SimFacts(self.node)),
            times=Times(ttl_ns=timing.lease_ttl_ns, grace_ns=2 * timing.election_ns),
            clock=host.clock,
        )

    def _acting(self) -> tuple[Guard, Executor]:
        world, ports = self.host.world, self._ports()
        ttl_ms = world.plan.timing.lease_ttl_ns // 1_000_000
        guard = Guard(ports, ttl_ms=ttl_ms, note=cast(LeaseNote, self.host.note))
        executor = Executor(ports, guard, rng=random.Random(world.rng.getrandbits(32)))
        Lending(ports, lambda: executor.standing().sealed).register()
        return guard, executor

    def _ports(self) -> Ports:
        host = self.host

        async def reachable(upstream: Upstream) -> bool:
            await asyncio.sleep(0.002)
            server = host.world.hosts[upstream.node_id].server
            up = server is not None and server.answers
            return up and host.world.network.both(host.node_id, upstream.node_id)

        def changed() -> None:
            self.observer.touch()
            self.wake.set()

        return Ports(
            me=host.node_id,
            server=self.server,
            consensus=self.link,
            store=self.store,
            clock=host.clock,
            changed=changed,
            reachable=reachable,
            unsynced=self.syncing.obstacle,
            synced=self.synced,
        )

    def _steward(self) -> Steward:
        return Steward(
            self.link,
            spawn=self._spawn,
            granting=lambda: self.coordinator.granting,
            clock=self.host.clock,
            unix_ms=unix_ms,
        )

    def _proven(self) -> None:
        self.synced.set()
        self.wake.set()

    def _control_loop(self) -> ControlLoop:
        host = self.host
        parts = Parts(
            me=host.node_id,
            consensus=self.link,
            store=self.store,
            observer=self.observer,
            executor=self.executor,
            coordinator=self.coordinator,
            fence=self.server.fence,
            clock=host.clock,
            synced=self.syncing.seen,
            adopt_until_ns=host.note.deadline_ns(self.store.record.opened_epoch),
        )
        return ControlLoop(parts, wake=self.wake, beaten=self._beaten)

    # --- its life ----------------------------------------------------------------------------

    def start(self) -> None:
        self.actor.call(self.node.start)
        _ = self.actor.begin(self._life())

    async def _life(self) -> None:
        await self.executor.startup()
        for work in (
            self._renew(),
            self.observer.run(),
            self.guard.run(),
            self.executor.run(),
            self.syncing.run(),
            self.loop.run(),
        ):
            _ = self.actor.begin(work)

    async def _renew(self) -> None:
        while True:
            self.link.renew()
            self.node.dial()
            await asyncio.sleep(self.host.world.plan.timing.lease_ttl_ns / 10 / 1e9)

    def kill(self) -> None:
        """Nothing of it runs any more; its server does not notice."""
        self.node.die()
        self.actor.kill()
        self.host.world.graveyard.append(self)
        self.host.daemon = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        _ = self.actor.begin(work)

    def propose(self, command: Command) -> None:
        """Hand a command to the group; losing it is nothing."""
        _ = self.actor.begin(self._propose(encode(command)))

    async def _propose(self, data: bytes) -> None:
        try:
            await self.link.propose(data, timeout_s=PROPOSE_S)
        except RamdError:
            self.founding = False

    def _beaten(self) -> None:
        status, state = self.link.status(), self.link.state()
        if status.is_coordinator and status.ready and not state.formed and not self.founding:
            self.founding = True
            self.propose(self.host.world.plan.founding())
        if status.is_coordinator and status.ready:
            now_ns, coordinator = self.host.clock(), self.coordinator
            self.steward.turn(coordinator.view(now_ns, status, coordinator.heard))

    @property
    def state(self) -> ClusterState:
        return self.link.state()
