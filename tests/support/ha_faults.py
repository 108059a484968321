"""What goes wrong in a simulated cluster, drawn from its seed.

Each fault heals by itself or with the end of the storm. What people ask for meanwhile is in
`ha_orders`. Start reading at `Storm.run`; the menu is `MENU`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from ramd.domain.model import ClusterState
from ramd.domain.observation import DataKind
from ramd.state.commands import ChangeSettings
from tests.support.ha_host import Host
from tests.support.ha_net import ALL, GROUP, WAL
from tests.support.ha_orders import Orders
from tests.support.ha_people import order, quietly
from tests.support.ha_process import Postmaster
from tests.support.ha_storm import LONG_S, PAUSE_S
from tests.support.ha_wal import Directory, Record


class Storm(Orders):
    """The faults of one run."""

    async def run(self) -> None:
        """One fault after another, often several at once, for `storm_s` of the plan."""
        world, loop = self.world, asyncio.get_running_loop()
        allowed = sorted(MENU if world.plan.extension else MENU.keys() - NEEDS_EXTENSION)
        menu = self.rng.sample(allowed, self.rng.randint(3, len(allowed)))
        if self.rng.random() < 0.25:
            menu = list(HUNT)
        until_s = loop.time() + world.plan.storm_s
        while loop.time() < until_s:
            name = self.rng.choice(menu)
            if MENU[name](self):
                world.tally[f"fault {name}"] += 1
                world.note(f"fault {name}")
            await world.pass_s(self.rng.choice(PAUSE_S) * self.rng.uniform(0.5, 1.5))

    def calm(self) -> None:
        """Everything that a person could repair is repaired."""
        world = self.world
        world.on_call.clear()
        world.on_ack.clear()
        world.on_apply.clear()
        for back in self.foreign:
            back()
        world.network.heal()
        world.flaws.clear()
        for actor in self.frozen:
            while actor.frozen:
                actor.thaw()
        self.frozen.clear()
        for node_id, host in world.hosts.items():
            host.slow.clear()
            world.boot(node_id)
        world.note("calm")

    # --- servers -----------------------------------------------------------------------------

    def server_crash(self) -> bool:
        host = self.any_host()
        if host.server is None:
            return False
        host.crash_server()
        return True

    def backend_crash(self) -> bool:
        host = self.any_host()
        if host.server is None or not host.server.answers:
            return False
        host.server.crash_cycle()
        return True

    def server_hangs(self) -> bool:
        host = self.any_host()
        if host.server is None:
            return False
        self.freeze([host.server.actor, host.server.backends])
        return True

    def flaky_calls(self) -> bool:
        what = self.rng.choice(("start", "promote", "clone"))
        self.world.flaws[(self.any_host().node_id, what)] += self.rng.randint(1, 4)
        return True

    def slowness(self) -> bool:
        host, what = self.any_host(), self.rng.choice(("replay", "reload", "fsync"))
        host.slow[what] = self.rng.choice((0.05, 0.5, 3.0)) if what != "fsync" else 0.05
        self.after(LONG_S, lambda: host.slow.pop(what, None))
        return True

    # --- daemons and hosts -------------------------------------------------------------------

    def daemon_killed(self) -> bool:
        return self._kill(self.any_host())

    def _kill(self, host: Host) -> bool:
        if host.daemon is None:
            return False
        host.daemon.kill()
        self.after(PAUSE_S, lambda: self._again(host))
        return True

    def _again(self, host: Host) -> None:
        if host.daemon is None and not host.lost:
            self.world.boot(host.node_id)

    def daemon_killed_at_a_step(self) -> bool:
        """At the next call of some kind on some server, its daemon or the coordinator dies."""
        steps, world = self.rng.randint(1, 12), self.world
        whose = self.rng.choice(("own", "coordinator"))

        def strike(host: Host, name: str) -> None:
            nonlocal steps
            steps -= name not in ("probe", "sync_facts")
            if steps > 0:
                return
            world.on_call.remove(strike)
            victim = host if whose == "own" else world.coordinator()
            if victim is not None:
                # Not within the call: a dead process is not to go on to its next await.
                asyncio.get_running_loop().call_soon(self._kill, victim)

        world.on_call.append(strike)
        return True

    def server_crash_at_an_ack(self) -> bool:
        """Right after an acknowledgement, before replicas can have more."""
        world = self.world

        def strike(server: Postmaster, record: Record) -> None:
            world.on_ack.remove(strike)
            host = server.host
            if host.server is server:
                action = self.rng.choice((host.crash_server, host.power_off))
                action()
                self.back_after(LONG_S, host)

        world.on_ack.append(strike)
        return True

    def ack_and_its_copy_lost(self) -> bool:
        """At an acknowledgement, the primary and one replica that has it are lost together."""
        left = self.rng.randint(1, 20)

        def enough() -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        return self._lose_both(enough)

    def set_change_attacked(self) -> bool:
        """Another number of replicas shall confirm; the server's processes learn it late, all
        replicas but one are cut off, and what is acknowledged meanwhile is lost at two places."""
        world, state, primary = self.world, self.world.state(), self.world.primary()
        if primary is None or primary.server is None or not state.sync.goal.members:
            return False
        primary.slow["reload"] = self.rng.choice((1.0, 5.0))
        self.after(LONG_S, lambda: primary.slow.pop("reload", None))
        keeper, me = self.rng.choice(state.sync.goal.nodes), primary.node_id
        cuts = {(me, n, WAL) for n in world.hosts if n not in (me, keeper)}
        world.network.cuts |= cuts
        self.after(LONG_S, lambda: world.network.cuts.difference_update(cuts))
        number = 1 if state.settings.num_sync_standbys > 1 else 2
        wanted = replace(state.settings, num_sync_standbys=number, enforce_sync_standbys=True)
        order(world, ChangeSettings(settings=wanted))
        return self._lose_both(lambda: world.state().sync.generation > state.sync.generation)

    def _lose_both(self, now: Callable[[], bool]) -> bool:
        """At the next acknowledgement for which `now` says so."""
        world = self.world

        def strike(server: Postmaster, record: Record) -> None:
            have = [s.receiver.server.host for s in server.senders if s.flushed >= record.end]
            if not have or not now():
                return
            world.on_ack.remove(strike)
            copy = self.rng.choice(have)
            server.host.power_off()
            self.back_after(LONG_S, server.host)
            if self.rng.random() < 0.3 and self.whole() > 2:
                self._remade(copy)
            else:
                copy.power_off()
                self.back_after(LONG_S, copy)

        world.on_ack.append(strike)
        return True

    def struck_at_an_entry(self) -> bool:
        """When the group's state changes in some way, the primary or the coordinator is lost."""
        world, before = self.world, self.world.state()
        what = self.rng.choice(("epoch", "sync", "handover"))
        whom = self.rng.choice(("primary", "coordinator", "holder"))

        def strike(state: ClusterState) -> None:
            if getattr(state, what) == getattr(before, what):
                return
            world.on_apply.remove(strike)
            asyncio.get_running_loop().call_soon(self._strike, whom)

        world.on_apply.append(strike)
        return True

    def _strike(self, whom: str) -> None:
        world = self.world
        reign = world.state().reign
        victims = {"primary": world.primary(), "coordinator": world.coordinator()}
        victim = victims.get(whom) or (world.hosts[reign.node_id] if reign else None)
        if victim is None or victim.lost:
            return
        how = self.rng.choice(("power", "server", "daemon"))
        if how == "power":
            victim.power_off()
            self.back_after(LONG_S, victim)
        elif how == "server":
            victim.crash_server()
            self.world.flaws[(victim.node_id, "start")] += self.rng.choice((0, 0, 2, 5))
        else:
            self._kill(victim)

    def daemon_frozen(self) -> bool:
        host = self.any_host()
        if host.daemon is None or host.daemon.actor.frozen:
            return False
        self.freeze([host.daemon.actor])
        return True

    def node_frozen(self) -> bool:
        host = self.any_host()
        if host.daemon is None or host.daemon.actor.frozen:
            return False
        self.freeze(host.actors())
        return True

    def host_lost(self) -> bool:
        host = self.any_host()
        if host.lost:
            return False
        host.power_off()
        self.back_after(LONG_S, host)
        return True

    def cold_start(self) -> bool:
        for host in self.world.hosts.values():
            if not host.lost:
                host.power_off()
            self.back_after(PAUSE_S, host)
        return True

    def coordinator_moves(self) -> bool:
        coordinator = self.world.coordinator()
        if coordinator is None or coordinator.daemon is None:
            return False
        to = self.rng.choice([n for n in sorted(self.world.hosts) if n != coordinator.node_id])
        coordinator.daemon.actor.call(quietly, coordinator.daemon.link.transfer, to)
        return True

    # --- the network -------------------------------------------------------------------------

    def partition(self) -> bool:
        one, kind = self.any_host().node_id, self.rng.choice((ALL, ALL, GROUP, WAL))
        others = [n for n in sorted(self.world.hosts) if n != one]
        some = self.rng.sample(others, self.rng.randint(1, len(others)))
        way = self.rng.choice(("both", "both", "in", "out"))
        cuts = {(one, n, kind) for n in some if way != "in"}
        cuts |= {(n, one, kind) for n in some if way != "out"}
        self.world.network.cuts |= cuts
        self.after(LONG_S, lambda: self.world.network.cuts.difference_update(cuts))
        return True

    def slow_link(self) -> bool:
        one, slow = self.any_host().node_id, self.world.network.slow
        slow[one] = self.rng.choice((0.02, 0.1, 0.4))
        self.after(LONG_S, lambda: slow.pop(one, None))
        return True

    # --- data --------------------------------------------------------------------------------

    def disk_lost(self) -> bool:
        """While all is well: the others stream, and the record says so. Now and then the
        primary's."""
        world = self.world
        if world.settled() or self.whole() < 2:
            return False
        host = self.any_host()
        spared = host is world.primary() and self.rng.random() < 0.7
        if spared or host.server is None or host.node_id in world.remade:
            return False
        self._remade(host)
        return True

    def _remade(self, host: Host) -> None:
        """Its directory is gone, or somebody restores another node's in its place."""
        world = self.world
        if host.server is not None:
            host.crash_server()
        host.kill_remains()
        world.remade.add(host.node_id)
        host.disk = Directory()
        source = self.rng.choice([h for h in world.hosts.values() if h is not host])
        if self.rng.random() < 0.4 and source.disk.kind is DataKind.CLUSTER:
            host.disk = replace(source.disk.copy_of(), tie=world.new_tie())

    def foreign_directory(self) -> bool:
        """Somebody puts something else in the place of a replica's directory."""
        host = self.any_host()
        if self.world.settled() or host is self.world.primary() or host.server is None:
            return False
        host.crash_server()
        host.kill_remains()
        kept, host.disk = host.disk, Directory(kind=DataKind.FOREIGN)

        def back() -> None:
            if host.disk.kind is DataKind.FOREIGN:
                host.disk = kept

        self.foreign.append(back)
        self.after(LONG_S, back)
        return True


MENU: dict[str, Callable[[Storm], bool]] = {
    name: getattr(Storm, name)
    for name in (
        "server_crash",
        "backend_crash",
        "server_hangs",
        "flaky_calls",
        "slowness",
        "daemon_killed",
        "daemon_killed_at_a_step",
        "server_crash_at_an_ack",
        "ack_and_its_copy_lost",
        "set_change_attacked",
        "struck_at_an_entry",
        "foreign_directory",
        "daemon_frozen",
        "node_frozen",
        "host_lost",
        "cold_start",
        "coordinator_moves",
        "partition",
        "slow_link",
        "disk_lost",
        "handover",
        "settings",
        "member_leaves",
        "member_joins",
    )
}
"""Everything that can go wrong."""
HUNT = ("set_change_attacked", "set_change_attacked", "ack_and_its_copy_lost", "host_lost")
"""The menu of a seed that goes for acknowledged commits alone."""
NEEDS_EXTENSION = {
    "daemon_killed",
    "daemon_killed_at_a_step",
    "daemon_frozen",
    "node_frozen",
    "struck_at_an_entry",
}
"""What a server that does not check the lease itself is not safe from, and does not claim to be."""
