"""Members of a simulated group come, go, lose their disks and are replaced.

Lives here: what an operator would ask for, and which member may be lost without losing what was
promised. Must not live here: how a change is made (`pgraft.core`). Start reading at `Churn.begin`.

A node whose disk is lost, or refused, never comes back under its id: it is removed, and a new
member with an id and a uuid of its own takes its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from pgraft.core.config import all_members
from pgraft.core.types import Change, Config, NodeId, PeerRecord, ProposalRefused
from tests.simulation.checkers.quorums import majority
from tests.support.raft_calm import may_lose, relevant_of
from tests.support.raft_host import Host
from tests.support.raft_process import Process
from tests.support.raft_world import World

VOTERS_WANTED = 5
MEMBERS_WANTED = 7


class Churn:
    """A change now and then, until `end`. `admit` makes a blank host for a new member."""

    def __init__(self, world: World, admit: Callable[[], Host]) -> None:
        self._world = world
        self._admit = admit
        self._rng = random.Random(f"churn {world.plan.seed}")
        self._over = False
        self._wipes = self._rng.random() < 0.5

    def begin(self) -> None:
        """Start to change things."""
        self._world.later(int(self._rng.uniform(1, 4) * self._world.plan.e_ns), self._next)

    def end(self) -> None:
        """No more changes; one that was begun still ends by itself."""
        self._over = True

    def _hosts(self) -> list[Host]:
        return [host for host in self._world.hosts.values() if not host.gone]

    def _next(self) -> None:
        if self._over:
            return
        self.begin()
        self._forget_former()
        if self._wipes and self._rng.random() < 0.2:
            host = self._rng.choice(self._hosts())
            if may_lose(self._world, host):
                self._world.counts["disks lost"] += 1
                host.lose()
        for host in self._hosts():
            if host.process is not None and host.process.leads:
                host.process.when_awake(self.change)

    def change(self, process: Process) -> None:
        """This leader is asked for some change."""
        config = process.config
        change = self._wanted(config)
        voters = (config.voters | change.promote) - change.demote - change.remove
        left = frozenset(host.node for host in self._hosts() if not host.doubtful)
        if not majority(voters, left):
            return  # what is lost must be replaced first: the core cannot know that it is lost
        try:
            process.raft.change(change, process.now)
            self._world.counts["changes begun"] += 1
        except ProposalRefused as refused:
            self._world.counts[f"refused {refused.reason}"] += 1
        process.pump()

    def _wanted(self, config: Config) -> Change:
        """Something an operator may want."""
        rng, hosts = self._rng, self._world.hosts
        members = sorted(all_members(config))
        learners = [node for node in sorted(config.learners) if not hosts[node].gone]
        dead = [node for node in members if hosts[node].gone]
        voters = sorted(config.voters)
        if dead and learners and rng.random() < 0.7:
            return Change(remove=frozenset(dead[:1]), promote=frozenset(learners[:1]))
        if len(members) < MEMBERS_WANTED and (not learners or rng.random() < 0.2):
            return Change(add_learners=(self._admit().record,))
        if learners and len(voters) < VOTERS_WANTED and rng.random() < 0.6:
            return Change(promote=frozenset(rng.sample(learners, 1)))
        leaves = frozenset(rng.sample(dead or members, 1))
        if learners and rng.random() < 0.5:
            return Change(remove=leaves, promote=frozenset(learners[:2]) - leaves)
        if rng.random() < 0.3:
            return Change(demote=frozenset(rng.sample(voters, 1)))
        return Change(remove=leaves)

    def _forget_former(self) -> None:
        """Hosts that nobody's configuration names any more are switched off in the end."""
        for host in self._hosts():
            others = [other for other in self._hosts() if other is not host]
            named = any(
                host.node in all_members(config)
                for other in others
                for config in relevant_of(other)
            )
            if others and not named and self._rng.random() < 0.3:
                host.lose()


def record_of(node: NodeId) -> PeerRecord:
    """The record of a new member."""
    return PeerRecord(node=node, uuid=f"{node:032x}", address=f"host{node}:7300")
