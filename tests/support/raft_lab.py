"""A group of real cores on a table: the test decides what is delivered, what syncs, and when.

Lives here: a host without any chance in it, with a trace of what happened. Must not live here:
assertions. Start reading at `Lab`. All nodes share one clock; times are ms where a name says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from pgraft.core.config import founding
from pgraft.core.raft import Raft
from pgraft.core.types import (
    Change,
    Config,
    Entry,
    EntryKind,
    Grant,
    HardState,
    Index,
    Message,
    NodeId,
    Outgoing,
    ProposalRefused,
    Recovered,
    Role,
    Snapshot,
    Status,
    Term,
    Timing,
)
from tests.support.raft_member import Letter, Member
from tests.support.raft_show import show_entry
from tests.support.raft_store import Image

MS = 1_000_000
START_NS = 1_000_000 * MS
TIMING = Timing()
PASSES_MAX = 1000


class Lab:
    """Members by id, letters under way, one clock."""

    def __init__(
        self,
        *voters: int,
        learners: Iterable[int] = (),
        timing: Timing = TIMING,
        logs: dict[int, Recovered] | None = None,
    ) -> None:
        self.now = START_NS
        self.config = replace(founding(NodeId(v) for v in voters), learners=_ids(learners))
        self.timing = timing
        self.letters: list[Letter] = []
        self.cuts: set[tuple[int, int]] = set()
        self.held: set[int] = set()
        self.trace: list[str] = []
        self.members: dict[int, Member] = {}
        self.since: dict[int, Index] = {}
        for node in sorted((*voters, *learners)):
            disk = Image()
            if logs is not None and node in logs:
                found = logs[node]
                disk = Image(found.hard_state, list(found.entries), found.snapshot)
            self._boot(node, disk)

    def __getitem__(self, node: int) -> Raft:
        return self.members[node].raft

    # -- time

    def elapse(self, ms: float, *, only: Iterable[int] | None = None) -> None:
        """Let time pass in small steps; who is due ticks, and messages are delivered."""
        end = self.now + int(ms * MS)
        nodes = list(self.members if only is None else only)
        while self.now < end:
            due = min([self[n].next_deadline() for n in nodes if n in self.members], default=end)
            self.now = min(max(due, self.now + 1), end)
            for node in nodes:
                if node in self.members and self[node].next_deadline() <= self.now:
                    self.tick(node)
            self.settle()

    def tick(self, node: int) -> None:
        """Tick one node now."""
        self[node].tick(self.now)
        self.pump(node)

    def expire(self, node: int) -> None:
        """Time passes until the election timeout of `node`; nothing is delivered.

        The others do not campaign, as if they had drawn longer timeouts, but they were not asleep.
        """
        for _ in range(PASSES_MAX):
            self.now = max(self.now, self[node].next_deadline())
            for other in self.members.values():
                other.raft._parts.election._ticked_ns = self.now
            role = self[node].status().role
            self[node].tick(self.now)
            campaigned = self[node].status().role is Role.PRE_CANDIDATE or (
                self[node].status().role is not role
            )
            self.pump(node)
            if campaigned:
                return
        raise AssertionError(f"node {node} never campaigns")

    # -- messages

    def settle(self) -> None:
        """Deliver what is under way, and what that causes, until nothing is."""
        for _ in range(PASSES_MAX):
            if not self.letters:
                return
            self.deliver_all()
        raise AssertionError("the group does not come to rest")

    def deliver_all(self) -> None:
        """Deliver what is under way now, once."""
        letters, self.letters = self.letters, []
        for letter in letters:
            self.deliver(letter)

    def deliver(self, letter: Letter) -> None:
        """Deliver one letter (again, if you kept it), unless its way is cut or the node is down."""
        if (letter.sender, letter.to) in self.cuts or letter.to not in self.members:
            self.trace.append(f"lost {letter}")
            return
        self.trace.append(str(letter))
        self[letter.to].step(letter.sender, letter.message, self.now)
        self.pump(letter.to)

    def send(self, sender: int, to: int, message: Message) -> None:
        """Deliver a message made by hand, at once."""
        self.deliver(Letter(NodeId(sender), NodeId(to), message))

    def take(self, kind: type[Message], *, to: int | None = None) -> list[Letter]:
        """Take letters of a kind out of the mail."""
        taken = [x for x in self.letters if isinstance(x.message, kind) and to in (None, int(x.to))]
        self.letters = [x for x in self.letters if x not in taken]
        return taken

    def cut(self, one: int, other: int) -> None:
        """Cut both directions."""
        self.cuts |= {(one, other), (other, one)}

    def isolate(self, node: int) -> None:
        """Cut a node off from all others."""
        for other in self.members:
            if other != node:
                self.cut(node, other)

    def heal(self) -> None:
        """Every way is open again."""
        self.cuts.clear()

    # -- disks and processes

    def pump(self, node: int) -> None:
        """Perform every Ready of a node; batches are durable at once unless its disk is held."""
        member = self.members[node]
        for _ in range(PASSES_MAX):
            ready = member.raft.ready()
            if ready is None:
                return
            self._post(node, ready.send_now)
            if ready.snapshot is not None:
                member.restore(ready.snapshot)
            for entry in ready.committed:
                self.trace.append(f"{node}: applies {show_entry(entry)}")
                member.apply(entry)
            member.reads.extend(ready.reads)
            member.events.extend(ready.events)
            for read in ready.reads:
                self.trace.append(f"{node}: read {read.context} at {read.index}")
            for event in ready.events:
                detail = f" {event.detail}" if event.detail else ""
                self.trace.append(f"{node}: {event.kind.value}{detail} (term {event.term})")
            if ready.token is not None:
                member.unsynced.append(ready)
                if node not in self.held:
                    self.sync(node)
        raise AssertionError(f"node {node} does not come to rest")

    def sync(self, node: int, batches: int | None = None) -> None:
        """Make batches of a node durable, oldest first; all of them unless told how many."""
        member = self.members[node]
        count = len(member.unsynced) if batches is None else batches
        done, member.unsynced = member.unsynced[:count], member.unsynced[count:]
        for ready in done:
            member.disk.write(ready)
            assert ready.token is not None
            self._post(node, ready.send_after_sync)
            member.raft.persisted(ready.token, self.now)
        self.pump(node)

    def hold(self, node: int) -> None:
        """The disk of a node hangs: nothing becomes durable before `release_disk`."""
        self.held.add(node)

    def release_disk(self, node: int) -> None:
        """The disk works again."""
        self.held.discard(node)
        self.sync(node)

    def crash(self, node: int) -> Image:
        """The process dies; what was not synced is lost. Returns its disk."""
        self.held.discard(node)
        return self.members.pop(node).disk

    def restart(self, node: int, disk: Image | None = None, *, released_epoch: int = 0) -> None:
        """Start a node from its disk (crash it first if it runs)."""
        if disk is None:
            released_epoch = max(released_epoch, self.members[node].released_epoch)
            disk = self.crash(node)
        self._boot(node, disk, released_epoch)

    # -- membership and snapshots

    def join(self, node: int, *, since: int = 0) -> None:
        """A blank node starts that knows the founding list and is to be admitted."""
        self.since[node] = Index(since)
        self._boot(node, Image())

    def change(self, node: int, change: Change) -> tuple[Term, Index]:
        """The leader changes the configuration; nothing is delivered yet."""
        position = self[node].change(change, self.now)
        self.pump(node)
        return position

    def compact(self, node: int) -> Snapshot:
        """A node keeps a snapshot of what it has applied, and forgets what it stands for."""
        member = self.members[node]
        snapshot = member.raft.snapshot(b"\n".join(member.state))
        member.disk.compact(snapshot)
        member.raft.compacted(snapshot, self.now)
        self.pump(node)
        return snapshot

    # -- shortcuts

    def elect(self, node: int) -> None:
        """Make `node` leader of all that can hear it, with its first entry applied everywhere."""
        self.expire(node)
        self.settle()
        assert self[node].status().role is Role.LEADER, f"node {node} was not elected"
        self.beat(node)

    def beat(self, node: int) -> None:
        """Half a heartbeat later a leader beats, and everything is delivered."""
        self.now += self.timing.heartbeat_ns
        self.tick(node)
        self.settle()

    def propose(self, node: int, data: bytes = b"x") -> tuple[Term, Index]:
        """Propose a command; nothing is delivered yet."""
        position = self[node].propose(data, self.now)
        self.pump(node)
        return position

    def grant(self, node: int, holder: int, epoch: int, ttl_ms: int = 3000) -> None:
        """The leader grants an epoch; nothing is delivered yet."""
        grant = Grant(holder=NodeId(holder), epoch=epoch, ttl_ns=ttl_ms * MS)
        self[node].propose_grant(grant, self.now)
        self.pump(node)

    def change_ttl(self, node: int, epoch: int, ttl_ms: int) -> None:
        """The leader changes how long renewals last; nothing is delivered yet."""
        self[node].change_ttl(epoch, ttl_ms * MS, self.now)
        self.pump(node)

    def renew(self, node: int) -> None:
        """A holder asks for one more ttl; nothing is delivered yet."""
        self[node].holder.renew(self.now)
        self.pump(node)

    def release(self, node: int, evidence: bytes = b"end") -> None:
        """A holder gives its epoch back, as the daemon does: stored first."""
        member = self.members[node]
        member.released_epoch = member.raft.holder.epoch
        member.raft.holder.release(evidence, self.now)
        self.pump(node)

    def link(self, node: int, peer: int, *, up: bool) -> None:
        """The transport of a node saw its link to a peer break or come back."""
        self[node].link(NodeId(peer), up, self.now)
        self.pump(node)

    def transfer(self, node: int, to: int) -> None:
        """A leader hands over; nothing is delivered yet."""
        self[node].transfer(NodeId(to), self.now)
        self.pump(node)

    def read(self, node: int, context: int) -> None:
        """A node asks for a linearizable read; nothing is delivered yet."""
        self[node].read_index(context, self.now)
        self.pump(node)

    def status(self, node: int) -> Status:
        """Status of a node."""
        return self[node].status()

    def leaders(self) -> list[int]:
        """Who believes to lead."""
        return [n for n in self.members if self.status(n).role is Role.LEADER]

    def terms(self, node: int) -> list[int]:
        """Terms of the entries in a node's log, in order."""
        return [entry.term for entry in self.log(node)]

    def log(self, node: int) -> list[Entry]:
        """A node's log, also what is not durable."""
        return list(self[node]._parts.state.log._entries)

    def commands(self, node: int) -> list[bytes]:
        """Commands a node applied, in order."""
        return list(self.members[node].state)

    def _post(self, node: int, letters: Iterable[Outgoing]) -> None:
        self.letters.extend(Letter(NodeId(node), x.to, x.message) for x in letters)

    def _boot(self, node: int, disk: Image, released_epoch: int = 0) -> None:
        boot = 1000 * node + len(self.trace)
        raft = Raft(
            NodeId(node),
            disk.recovered(self.config),
            self.timing,
            random.Random(node),
            self.now,
            boot=boot,
            released_epoch=released_epoch,
            since=self.since.get(node, Index(0)),
        )
        member = Member(raft=raft, disk=disk, boot=boot, released_epoch=released_epoch)
        self.members[node] = member
        if disk.snapshot is not None:
            member.restore(disk.snapshot)
        self.pump(node)


def entries(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    """A log with these terms; every entry says in its data where it came from."""
    return tuple(
        Entry(
            term=Term(term),
            index=Index(first + offset),
            kind=EntryKind.COMMAND,
            data=f"{term}/{first + offset}".encode(),
        )
        for offset, term in enumerate(terms)
    )


def recovered(*terms: int, term: int | None = None, vote: int = 0, commit: int = 0) -> Recovered:
    """What a node with such a log finds at start; its term is that of the last entry or `term`."""
    current = term if term is not None else max(terms, default=0)
    return Recovered(
        hard_state=HardState(term=Term(current), vote=NodeId(vote), commit=Index(commit)),
        entries=entries(*terms),
    )


def refused(action: Callable[[], object]) -> str:
    """The reason for which a proposal is refused, "" if it is taken."""
    try:
        action()
    except ProposalRefused as refusal:
        return refusal.reason
    return ""


def joint(voters: Iterable[int], outgoing: Iterable[int]) -> Config:
    """A configuration in the middle of a change."""
    return Config(voters=_ids(voters), outgoing=_ids(outgoing))


def _ids(nodes: Iterable[int]) -> frozenset[NodeId]:
    return frozenset(NodeId(node) for node in nodes)
