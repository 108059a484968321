"""The second half of a run: faults are frozen to a connected quorum; all must work again.

Lives here: who is left out, what is demanded and within which time. Must not live here: the storm
(see `raft_faults`). Start reading at `Calm.begin`.

Healing everything would hide what a member that is half there can do: so all but a quorum (of every
configuration that may still count) are often left dead, cut off, or able to speak but not to hear.
"""

from __future__ import annotations

from pgraft.core.config import all_members
from pgraft.core.types import Config, Index, NodeId
from tests.simulation.checkers.base import CheckFailed
from tests.simulation.checkers.quorums import nodes, quorum
from tests.support.raft_host import Host
from tests.support.raft_process import Process
from tests.support.raft_world import World

LEADER_E = 12
"""Election timeouts until a leader is agreed on and has committed something new."""
CONVERGED_E = 24
"""Until every connected member has it, and no change of membership is left half-way."""
LEASE_E = 12
"""Beside the longest wait for a lease that may still be held: until there is a new one."""


class Calm:
    """`core`: the members that must work again, after `begin`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.core: frozenset[NodeId] = frozenset()
        self._before = Index(0)
        self._since_ns = 0
        self._target: Index | None = None

    def begin(self) -> None:
        """Choose who is left, and bring all of them up."""
        world = self._world
        self._since_ns = world.now
        for host in world.hosts.values():
            if host.doubtful and not host.gone and host.process is None:
                host.start()  # or its disk turns out to be lost; the others can do without
        hosts = [host for host in world.hosts.values() if not host.gone]
        self.core = self._choose(hosts)
        self._before = max(host.store.durable.hard_state.commit for host in hosts)
        for host in hosts:
            if host.node in self.core:
                if host.process is None and not host.start():
                    raise CheckFailed(f"node {host.node} does not start again")
            else:
                self._leave_out(host)

    def unmet(self) -> str:
        """What is still missing, "" if all that is demanded holds."""
        found = self._leader()
        if isinstance(found, str):
            return found
        state = found.raft._parts.state
        if self._target is None:
            if state.log.applied.index <= self._before or not state.leads_applied:
                return "a commit"
            self._target = state.log.applied.index
            self._note("leader")
        config = found.config
        if config.outgoing:
            return f"the end of a change of membership: {config}"
        behind = {
            node for node in all_members(config) & self.core if self._machine(node) < self._target
        }
        if behind:
            return f"{self._target} on {nodes(behind)}"
        grant = found.grant
        if grant is None or grant.holder not in self.core:
            return f"a grant to somebody who is there, not {grant}"
        if not self._world.hosts[grant.holder].holds():
            return f"the lease of epoch {grant.epoch} on node {grant.holder}"
        return ""

    def overdue(self, unmet: str) -> None:
        """CheckFailed if what is missing should long be there."""
        timing = self._world.plan.timing
        wait_ns = self._world.now - self._since_ns
        limit_ns = CONVERGED_E * timing.election_ns
        if self._target is None:
            limit_ns = LEADER_E * timing.election_ns
        elif "grant" in unmet or "lease" in unmet:
            limit_ns = LEASE_E * timing.election_ns + 5 * timing.lease_ttl_ns
        if wait_ns > limit_ns:
            raise CheckFailed(
                f"{wait_ns / timing.election_ns:.1f} election timeouts after the last fault nodes "
                f"{nodes(self.core)}, all connected, still lack {unmet}"
            )

    def _choose(self, hosts: list[Host]) -> frozenset[NodeId]:
        """As few as will do, or more: a quorum of every configuration that may still count."""
        relevant = [config for host in hosts for config in relevant_of(host)]
        core = frozenset(host.node for host in hosts)
        if self._world.rng.random() < 0.4:
            return core
        for host in self._world.rng.sample(hosts, len(hosts)):
            fewer = core - {host.node}
            if all(quorum(config, fewer) for config in relevant):
                core = fewer
            if self._world.rng.random() < 0.2:
                break
        return core

    def _leave_out(self, host: Host) -> None:
        others = [node for node in self._world.hosts if node != host.node]
        cuts = self._world.network.cuts
        how = self._world.rng.choice(("dead", "cut off", "deaf", "dumb"))
        if how == "dead" and host.process is not None:
            host.crash()
        elif how == "cut off":
            self._world.network.cut([host.node], others)
        elif how == "deaf":
            cuts |= {(other, host.node) for other in others}
        else:
            cuts |= {(host.node, other) for other in others}
        if how != "dead" and host.process is None:
            host.start()

    def _leader(self) -> Process | str:
        """The leader all voters of the core agree on, or what is missing."""
        running = [self._world.hosts[node].process for node in sorted(self.core)]
        processes = [process for process in running if process is not None]
        leaders = [process for process in processes if process.leads]
        if len(leaders) != 1:
            return f"one leader, there are {len(leaders)}"
        voters = leaders[0].config.voters
        for process in processes:
            node, state = process.host.node, process.raft._parts.state
            if node in voters and state.leader != leaders[0].host.node:
                return f"the word of {node} for leader {leaders[0].host.node}"
        return leaders[0]

    def _machine(self, node: NodeId) -> Index:
        process = self._world.hosts[node].process
        return process.client.machine.applied if process is not None else Index(0)

    def _note(self, what: str) -> None:
        took = (self._world.now - self._since_ns) * 10 // self._world.plan.e_ns
        name = f"worst {what}, tenths of E"
        self._world.counts[name] = max(self._world.counts[name], took)


def relevant_of(host: Host) -> list[Config]:
    """Configurations in this host's log by which it may still help to decide."""
    return [c for c in host.trail.relevant(host.store.durable.hard_state.commit) if c.voters]


def may_lose(world: World, host: Host) -> bool:
    """Whether every configuration that may still count has a quorum of disks without this one."""
    hosts = [other for other in world.hosts.values() if not other.gone]
    left = frozenset(o.node for o in hosts if o is not host and not o.doubtful)
    return all(quorum(config, left) for other in hosts for config in relevant_of(other))
