"""Attacks on the primary lease (and one on the log), step by step, without any other fault.

Lives here: one function per attack; each breaks a property if its rule is taken out. Must not live
here: the rules (`pgraft.core.lease`), the patches (see `mutations_lease`). Start reading at
`Stage`, then at any attack.

A, B are holders, L1, L2 successive coordinators; times are those of the plan. A stage that cannot
be set up as its attack needs it (the wrong node was elected) is skipped: another seed will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pgraft.core.types import Append, AppendReply, Grant, NodeId, Outgoing, RenewReply, Timing
from tests.simulation.checkers import all_checkers
from tests.support.raft_group import Group
from tests.support.raft_host import Host
from tests.support.raft_process import Process
from tests.support.raft_world import DEFAULT, MS, drawn


class NotSetUp(Exception):
    """This seed does not lead to the situation that the attack begins with."""


class Stage:
    """A group at peace, and the hand that moves it."""

    def __init__(self, seed: int, size: int = 3, timing: Timing = DEFAULT) -> None:
        plan = replace(drawn(seed), size=size, menu=(), churn=False, wal=False, timing=timing)
        self.group = Group(plan, all_checkers())
        self.group.post = self._post  # type: ignore[method-assign]
        self.held: dict[tuple[type, NodeId], int] = {}
        self._wanted: NodeId | None = None
        for host in self.group.hosts.values():
            host.start()
        self._poll()

    @property
    def e_ns(self) -> int:
        """The election timeout."""
        return self.group.plan.e_ns

    @property
    def ttl_ns(self) -> int:
        """The time a renewal lasts, unless changed."""
        return self.group.plan.timing.lease_ttl_ns

    def process(self, node: NodeId) -> Process:
        """The daemon of a node that is up."""
        process = self.group.hosts[node].process
        assert process is not None
        return process

    def others(self, *some: NodeId) -> list[NodeId]:
        """Everybody else."""
        return [node for node in self.group.hosts if node not in some]

    def run(self, ns: float) -> None:
        """Let time pass."""
        self.group.run_until(self.group.now + int(ns))

    def until(self, condition: Callable[[], object], limit_ns: float) -> None:
        """Let time pass until something is so. NotSetUp if it does not happen in time."""
        end = self.group.now + limit_ns
        while not condition():  # bounded by the limit
            if self.group.now >= end:
                raise NotSetUp
            self.run(MS // 2)

    def leader(self) -> NodeId:
        """Whoever leads the newest term."""
        self.until(self._leaders, 20 * self.e_ns)
        return max(self._leaders(), key=lambda p: p.raft._parts.state.term).host.node

    def holder(self, node: NodeId) -> Host:
        """Make `node` the primary, with a lease."""
        self.want(node)
        host = self.group.hosts[node]
        self.until(host.holds, 20 * self.e_ns + 2 * self.ttl_ns)
        return host

    def want(self, node: NodeId | None) -> None:
        """Leaders grant the next epoch to `node` at the very moment they may."""
        self._wanted = node

    def hold(self, kind: type, to: NodeId, ns: int) -> None:
        """From now on messages of a kind to a node are under way for so long, cut or no cut."""
        self.held[kind, to] = ns

    def _post(self, sender: Host, outgoing: Outgoing) -> None:
        ns = self.held.get((type(outgoing.message), outgoing.to))
        if ns is None:
            Group.post(self.group, sender, outgoing)
        else:
            host = self.group.hosts[outgoing.to]
            self.group.later(ns, lambda: host.receive(sender.node, outgoing.message))

    def isolate(self, node: NodeId) -> None:
        """Nothing reaches or leaves it any more."""
        self.group.network.cut([node], self.others(node))

    def just_renewed(self, host: Host) -> None:
        """Wait for the next renewal."""
        before = host.page.deadline_ns
        self.until(lambda: host.page.deadline_ns > before, self.ttl_ns)

    def change_ttl(self, leader: NodeId, ttl_ns: int) -> None:
        """Change the ttl, and wait for it to be applied."""
        process = self.process(leader)
        epoch = process.grant.epoch if process.grant is not None else 0
        process.attempt(lambda raft, now: raft.change_ttl(epoch, ttl_ns, now))
        applied = process.raft._parts.state.log.applied
        self.until(lambda: applied.lease.ttl_ns == ttl_ns, 4 * self.e_ns)

    def _leaders(self) -> list[Process]:
        processes = [host.process for host in self.group.hosts.values()]
        return [p for p in processes if p is not None and p.raft._parts.state.leads_applied]

    def _poll(self) -> None:
        self.group.later(MS, self._poll)
        for process in self._leaders():
            process.when_awake(self.coordinate)

    def coordinate(self, process: Process) -> None:
        """What a coordinator does at each beat: grant the next epoch if it is wanted and may be."""
        grant, wanted = process.grant, self._wanted
        if wanted is None or (grant is not None and grant.holder == wanted):
            return
        movable = process.raft.granter.may_move_at(process.now)
        if movable is not None and movable <= process.now:
            epoch = (grant.epoch if grant is not None else 0) + 1
            following = Grant(holder=wanted, epoch=epoch, ttl_ns=self.ttl_ns)
            process.attempt(lambda raft, now: raft.propose_grant(following, now))


def _cast(stage: Stage) -> tuple[NodeId, NodeId, NodeId]:
    """L1, a holder A that is another node, and the third."""
    l1 = stage.leader()
    a, b = stage.others(l1)
    stage.holder(a)
    return l1, a, b


def c1a_renewal_meets_the_next_grant(seed: int) -> None:
    """A's lease ends; the grant for B is appended; A's renewal comes before it is committed."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    stage.isolate(a)
    stage.until(lambda: not stage.group.hosts[a].holds(), 2 * stage.ttl_ns)
    for node in stage.group.hosts:
        stage.process(node).sync_ns = 300 * MS
    stage.group.network.heal()
    stage.want(b)
    stage.until(stage.process(l1).raft._parts.state.log.has_unapplied_grant, stage.ttl_ns)
    stage.process(a).renew()
    stage.run(2 * stage.ttl_ns)


def c1b_renewal_before_an_own_entry_is_applied(seed: int) -> None:
    """L2 confirms A by heartbeats before its own entry is committed, and dies; B's grant, which L1
    had left on a minority, is committed after all."""
    stage = Stage(seed, size=5)
    l1 = stage.leader()
    b, a, x, y = stage.others(l1)
    host = stage.holder(a)
    stage.group.network.cut([l1], [a])
    first = stage.process(l1)

    def movable() -> bool:
        at = first.raft.granter.may_move_at(first.now)
        return at is not None and at <= first.now

    stage.until(movable, 2 * stage.ttl_ns)
    stage.group.network.cut([l1, b], [a, x, y])
    stage.want(b)
    left = stage.process(b).raft._parts.state.log
    stage.until(left.has_unapplied_grant, stage.e_ns)
    stage.want(None)
    behind = (a, x, y)
    for node in behind:
        stage.hold(Append, node, 10 * stage.ttl_ns)
    stage.until(lambda: any(stage.process(n).leads for n in behind), 20 * stage.e_ns)
    l2 = next(node for node in behind if stage.process(node).leads)
    end = stage.group.now + stage.e_ns
    while stage.group.now < end and not host.holds():  # bounded by the election timeout
        stage.process(a).renew()
        stage.run(2 * MS)
    stage.group.hosts[l2].crash()
    stage.held.clear()
    stage.group.network.heal()
    stage.run(2 * stage.ttl_ns)


def c2_the_leader_steps_down_and_votes(seed: int) -> None:
    """L1 renews A with A's own answer and steps down; the third, which heard nobody for long, is
    elected by L1: the only one who knows of the renewal is L1 itself."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    stage.group.network.cuts = {(l1, b), (a, b)}
    stage.run(1.5 * stage.ttl_ns)
    stage.just_renewed(stage.group.hosts[a])
    stage.isolate(a)
    stage.group.network.cuts -= {(l1, b)}
    stage.process(l1).attempt(lambda raft, now: raft.step_down("asked", now))
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def c2_leaders_that_fall_silent(seed: int) -> None:
    """L1 renews A and is gone; L2 is elected and is gone before anybody hears it; L3 asks."""
    stage = Stage(seed, size=5)
    l1 = stage.leader()
    a, *rest = stage.others(l1)
    host = stage.holder(a)
    stage.just_renewed(host)
    stage.isolate(a)
    stage.group.hosts[l1].crash()
    stage.want(rest[0])
    for node in rest:
        stage.group.hosts[node].link(l1, False)
    stage.until(lambda: any(stage.process(n).leads for n in rest), 4 * stage.e_ns)
    stage.run(2 * stage.ttl_ns)


def a_voter_restarts_within_the_window(seed: int) -> None:
    """The one voter that heard L1's last round is started anew, and votes for who heard nothing."""
    stage = Stage(seed)
    l1 = stage.leader()
    x, y = stage.others(l1)
    host = stage.holder(l1)
    stage.group.network.cuts = {(l1, y), (x, y)}
    stage.run(1.5 * stage.ttl_ns)
    stage.just_renewed(host)
    stage.isolate(l1)
    stage.group.network.cuts -= {(x, y), (y, x)}
    stage.group.hosts[x].crash()
    stage.group.hosts[x].start()
    stage.want(y)
    stage.run(2 * stage.ttl_ns)


def c3_a_raised_ttl(seed: int) -> None:
    """A has a longer lease than the grant says."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    stage.change_ttl(l1, 2 * stage.ttl_ns)
    stage.just_renewed(stage.group.hosts[a])
    stage.isolate(a)
    stage.want(b)
    stage.run(3 * stage.ttl_ns)


def c3_a_lowered_ttl(seed: int) -> None:
    """A's lease is from before the ttl was lowered."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    stage.just_renewed(stage.group.hosts[a])
    stage.isolate(a)
    stage.change_ttl(l1, stage.ttl_ns // 4)
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def c4a_an_answer_after_the_fence(seed: int) -> None:
    """An answer is under way when A fences itself and gives the epoch back."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    stage.hold(RenewReply, a, stage.e_ns)
    process = stage.process(a)
    process.renew()
    stage.run(20 * MS)
    process.release()
    stage.group.network.cuts = {(l1, a), (b, a)}
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def c4b_a_release_that_is_read_late(seed: int) -> None:
    """A's release is still under way when A's daemon is started anew."""
    stage = Stage(seed)
    _, a, b = _cast(stage)
    stage.group.network.slow = 1.0
    stage.process(a).release()
    stage.group.network.slow = 0.0
    stage.group.hosts[a].crash()
    stage.group.hosts[a].start()
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def m1_a_slow_holder(seed: int) -> None:
    """A's clock is slewed to run 8 % slow just after a renewal, and A's daemon knows it."""
    stage = Stage(seed)
    _, a, b = _cast(stage)
    host = stage.group.hosts[a]
    stage.just_renewed(host)
    host.suspect_clock(True)
    host.run_clock_at(-83_000)
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def m1_a_slow_holder_found_out_late(seed: int, late_ns: int) -> None:
    """As before, but it takes A's daemon a while to notice; the coordinator's clock is fast."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    host = stage.group.hosts[a]
    for node in (l1, b):
        stage.group.hosts[node].run_clock_at(10_000)
    stage.just_renewed(host)
    host.run_clock_at(-83_000)
    stage.isolate(a)
    stage.want(b)
    stage.run(late_ns)
    host.suspect_clock(True)
    stage.run(2 * stage.ttl_ns)


def m1_a_fast_coordinator(seed: int) -> None:
    """The clock of a new coordinator, and of who votes for it, has long been running 8 % fast."""
    stage = Stage(seed)
    l1, a, b = _cast(stage)
    stage.group.hosts[a].run_clock_at(-10_000)
    for node in (l1, b):
        stage.group.hosts[node].suspect_clock(True)
        stage.group.hosts[node].run_clock_at(83_000)
    stage.just_renewed(stage.group.hosts[a])
    stage.isolate(a)
    stage.process(l1).attempt(lambda raft, now: raft.transfer(b, now))
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def m6_a_coordinator_that_stood_still(seed: int) -> None:
    """A renews, but the coordinator was asleep: the epoch must not move."""
    stage = Stage(seed)
    l1, _, b = _cast(stage)
    stage.want(b)
    for node in (l1, b):  # the third sleeps on the same hypervisor, else it would take over
        stage.process(node).paused_until = stage.group.now + 2 * stage.ttl_ns
    state = stage.process(l1).raft._parts.state
    stage.run(2 * stage.ttl_ns + MS // 2)
    if not state.leading:
        raise NotSetUp
    moves = state.log.has_unapplied_grant() or state.log.applied.epoch > 1
    assert not moves, "the epoch moves although its holder's renewals lie in the inbox"


def an_answer_that_takes_long(seed: int) -> None:
    """The answer to A's last renewal is under way for most of an election timeout."""
    stage = Stage(seed)
    _, a, b = _cast(stage)
    stage.hold(RenewReply, a, stage.e_ns)
    stage.process(a).renew()
    stage.run(20 * MS)
    stage.isolate(a)
    stage.want(b)
    stage.run(2 * stage.ttl_ns)


def an_ack_from_another_term(seed: int) -> None:
    """X acknowledged an entry to L1 that others replaced since; L1, which leads again and holds
    the other entry, hears of it only now."""
    stage = Stage(seed, size=5)
    l1 = stage.leader()
    x, *rest = stage.others(l1)
    stage.group.network.cut([l1, x], rest)
    stage.hold(AppendReply, l1, 12 * stage.e_ns)
    stage.process(l1).attempt(lambda raft, now: raft.propose(b"replaced", now))
    stage.until(lambda: any(stage.process(n).leads for n in rest), 6 * stage.e_ns)
    stage.held.clear()
    stage.group.network.heal()
    stage.isolate(x)
    stage.run(stage.e_ns)
    l2 = next(node for node in rest if stage.process(node).leads)
    stage.process(l2).attempt(lambda raft, now: raft.transfer(l1, now))
    stage.until(lambda: stage.process(l1).leads, stage.e_ns)
    stage.run(14 * stage.e_ns)


ATTACKS: dict[str, Callable[[int], None]] = {
    "old_acks_count": an_ack_from_another_term,
    "renew_after_grant_appended": c1a_renewal_meets_the_next_grant,
    "renew_before_own_entry_applied": c1b_renewal_before_an_own_entry_is_applied,
    "leader_is_no_contact_of_itself": c2_the_leader_steps_down_and_votes,
    "contact_is_cleared_with_the_term": c2_leaders_that_fall_silent,
    "contact_is_forgotten_at_start": a_voter_restarts_within_the_window,
    "raised_ttl_is_not_waited_for": c3_a_raised_ttl,
    "lowered_ttl_shortens_the_wait_at_once": c3_a_lowered_ttl,
    "release_does_not_latch": c4a_an_answer_after_the_fence,
    "renew_after_release": c4b_a_release_that_is_read_late,
    "suspect_holder_keeps_its_lease": m1_a_slow_holder,
    "suspect_clocks_are_trusted": m1_a_fast_coordinator,
    "pauses_of_the_coordinator_are_not_noticed": m6_a_coordinator_that_stood_still,
    "holder_counts_from_the_answer": an_answer_that_takes_long,
}
"""By the mutation that takes a rule out, the attack which that rule stops."""
