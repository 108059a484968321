"""`Consensus` over pgraft: the only room that knows both vocabularies.

Lives here: applying the log to the replicated state, renewing this node's lease in time, turning
pgraft's errors into ours. Must not live here: what a command means (`ramd.state`), any decision.
Start reading at `Link`, then `join`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pgraft.core.types import (
    NO_NODE,
    CoreEvent,
    Entry,
    EntryKind,
    EventKind,
    Grant,
    NodeId,
    ProposalRefused,
    Role,
    Timing,
)
from pgraft.forming import Forming
from pgraft.identity import Founder, Identity, Stage
from pgraft.net.channel import CallRefused, Channel, PeerLost
from pgraft.net.channel import PeerError as ChannelError
from pgraft.net.tcp import TcpOptions, TcpTransport, addresses, parse_address
from pgraft.net.transport import ListenError
from pgraft.node import Hooks, Node, NodeOptions, ProposalUnknown, ReadFailed, open_node
from pgraft.storage import identity_file
from pgraft.storage.disk import DirectoryLock, DirectoryLocked, OsDisk, StorageError
from ramd import events
from ramd.config.model import TimingValues
from ramd.domain.consensus import GroupStatus, Handler, ReleaseEvidence
from ramd.domain.decision import LeaseView
from ramd.domain.errors import (
    ConfigError,
    OutcomeUnknown,
    PeerError,
    RamdError,
    Refused,
    Unavailable,
)
from ramd.domain.model import ClusterState
from ramd.state.apply import apply, apply_grant
from ramd.state.commands import UndecodableError, decode, decode_grant_payload

NS_PER_MS = 1_000_000
RENEWALS_PER_TTL = 10
RAFT_DIR = "raft"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What is needed to be a member: who, where, with whom, and the shared secret."""

    node_id: int
    cluster_name: str
    founders: tuple[tuple[int, str], ...]
    """(node id, "host:raft_port") of every listed member; empty: only what was stored counts."""
    listen: str
    state_dir: Path
    secret: bytes
    timing: TimingValues
    boot: int
    released_epoch: int

    def core_timing(self) -> Timing:
        """The same times as pgraft takes them."""
        return Timing(
            heartbeat_ns=self.timing.heartbeat_ns,
            election_ns=self.timing.election_ns,
            lease_ttl_ns=self.timing.lease_ttl_ns,
            drift=self.timing.drift,
        )


@dataclass(slots=True)
class _Applied:
    """How far this node's copy of the state is."""

    state: ClusterState = field(default_factory=ClusterState)
    term: int = 0
    """Term of the last applied entry."""


@dataclass(slots=True)
class _Standing:
    """What the link knows of leadership and of this node's own release."""

    leader: int = NO_NODE
    leading_since_ns: int = 0
    evidence: tuple[int, bytes] | None = None
    appended: asyncio.Task[None] | None = None


class Link:
    """One member's handle on the group. Made by `join`; every call from the control loop's thread.

    `woken` is called whenever something a decision depends on has changed.
    """

    def __init__(
        self,
        options: GroupOptions,
        channel: Channel,
        lock: DirectoryLock,
        *,
        clock: Callable[[], int],
        woken: Callable[[], None],
    ) -> None:
        self._options = options
        self._channel = channel
        self._clock = clock
        self._woken = woken
        self._applied = _Applied()
        self._standing = _Standing()
        self._node: Node | None = None
        self._cluster_id = ""
        self._lock = lock

    def open(self, disk: OsDisk, identity: Identity) -> None:
        """Recover and start this member. Raises ConfigError if its storage cannot be used."""
        options = NodeOptions(
            timing=self._options.core_timing(),
            rng=random.Random(random.SystemRandom().getrandbits(64)),
            boot=self._options.boot,
            released_epoch=self._options.released_epoch,
            clock=self._clock,
        )
        hooks = Hooks(apply=self._apply, on_event=self._on_event, on_leader_change=self._on_leader)
        try:
            self._node = open_node(disk, identity, self._channel, hooks, options)
        except StorageError as error:
            raise ConfigError(str(error)) from error
        self._cluster_id = identity.cluster_id
        self._node.start()

    async def run(self) -> None:
        """Renew this node's lease in time, for as long as it runs; ends by cancellation.

        Raises NodeFailed when the member has stopped for good: the daemon must end then.
        """
        watching = asyncio.ensure_future(self.node.watch())
        pause_s = self._options.timing.lease_ttl_ns / RENEWALS_PER_TTL / 1e9
        try:
            while not watching.done():
                self._renew()
                await asyncio.wait({watching}, timeout=pause_s)
            watching.result()
        finally:
            watching.cancel()

    async def close(self) -> None:
        """Stop this member and give its directory back; its server is not touched."""
        try:
            if self._node is not None:
                await self._node.stop()
            await self._channel.close()
        finally:
            self._lock.release()

    @property
    def node(self) -> Node:
        assert self._node is not None, "the member was not opened"
        return self._node

    @property
    def cluster_id(self) -> str:
        """Drawn when the group was formed; equal on every member, unique among groups."""
        return self._cluster_id

    # --- domain.consensus.Consensus ----------------------------------------------------------

    def status(self) -> GroupStatus:
        status = self.node.status()
        leading = status.role is Role.LEADER
        return GroupStatus(
            me=self._options.node_id,
            coordinator=int(status.leader) or None,
            is_coordinator=leading,
            ready=leading and self._applied.term == status.term,
            term=int(status.term),
            commit_index=int(status.commit),
            applied_index=int(status.applied),
            has_quorum=status.leader != NO_NODE,
            coordinator_since_ns=self._standing.leading_since_ns if leading else 0,
            loop_lag_ms=self.node.loop_lag.last_ns // NS_PER_MS,
        )

    def state(self) -> ClusterState:
        return self._applied.state

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        try:
            await self.node.propose(command, timeout_s)
        except ProposalRefused as refused:
            raise _refusal(refused) from refused
        except ProposalUnknown as unknown:
            raise OutcomeUnknown(
                f"the group has not confirmed it: {unknown}",
                hint="look at the cluster's status before trying again",
            ) from unknown

    def grant(self, holder: int, epoch: int, payload: bytes) -> None:
        grant = Grant(
            holder=NodeId(holder),
            epoch=epoch,
            ttl_ns=self._options.timing.lease_ttl_ns,
            payload=payload,
        )
        try:
            self.node.append_grant(grant)
        except ProposalRefused as refused:
            raise _refusal(refused) from refused

    async def read_barrier(self, *, timeout_s: float) -> None:
        try:
            await self.node.read_barrier(timeout_s)
        except ReadFailed as failed:
            raise Unavailable(str(failed), code="no_quorum") from failed

    def transfer(self, node_id: int) -> None:
        try:
            self.node.transfer(NodeId(node_id))
        except ProposalRefused as refused:
            raise _refusal(refused) from refused

    def lease(self) -> tuple[int, int]:
        holder = self.node.holder
        return holder.epoch, holder.deadline_ns

    def release(self, epoch: int, evidence: bytes) -> None:
        self._standing.evidence = (epoch, evidence)
        if self.node.holder.epoch == epoch:
            self.node.holder.release(evidence)

    def lease_view(self) -> LeaseView:
        epoch = self._applied.state.epoch
        granter = self.node.granter
        movable_ns = granter.may_move_at()
        if movable_ns is None and epoch:
            # It cannot be told yet: a deadline that keeps running away is not reached.
            movable_ns = self._clock() + self._options.timing.lease_ttl_ns
        raw = granter.released(epoch) if epoch else None
        if raw is None:
            return LeaseView(may_move_at_ns=movable_ns)
        try:
            evidence = ReleaseEvidence.decode(raw)
        except ValueError:
            evidence = ReleaseEvidence(reason="unreadable evidence", end=None)
        return LeaseView(
            may_move_at_ns=movable_ns,
            released=True,
            release_lsn=evidence.end.lsn if evidence.end else None,
            release_reason=evidence.reason,
        )

    def seal(self, epoch: int) -> None:
        self.node.granter.seal(epoch)

    def unseal(self) -> None:
        self.node.granter.unseal()

    def cast(self, node_id: int, method: str, payload: bytes) -> None:
        self._channel.cast(NodeId(node_id), method, payload)

    async def call(self, node_id: int, method: str, payload: bytes, *, timeout_s: float) -> bytes:
        try:
            return await self._channel.call(NodeId(node_id), method, payload, timeout_s)
        except CallRefused as refused:
            raise PeerError(f"node {node_id} refused {method}: {refused.message}") from refused
        except PeerLost as lost:
            raise OutcomeUnknown(str(lost)) from lost
        except ChannelError as error:
            raise Unavailable(str(error)) from error

    def register(self, method: str, handler: Handler) -> None:
        async def serve(sender: NodeId, payload: bytes) -> bytes:
            try:
                return await handler(int(sender), payload)
            except RamdError as error:
                raise CallRefused(error.code, error.message) from error

        self._channel.register(method, serve)

    def receive(self, method: str, handler: Callable[[int, bytes], None]) -> None:
        """Take casts of `method`; `handler` must not block."""
        self._channel.register_cast(method, lambda sender, payload: handler(int(sender), payload))

    # --- what the member tells ----------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        applied = self._applied
        applied.term = int(entry.term)
        index = int(entry.index)
        try:
            if entry.kind is EntryKind.COMMAND:
                applied.state = apply(applied.state, decode(entry.data), index)
            elif entry.kind is EntryKind.GRANT and entry.grant is not None:
                grant = entry.grant
                payload = decode_grant_payload(grant.payload)
                applied.state = apply_grant(
                    applied.state, int(grant.holder), grant.epoch, payload, index
                )
                # The new holder's lease should stand as soon as it can.
                asyncio.get_running_loop().call_soon(self._renew)
        except UndecodableError as error:
            # The same on every node: the entry changes nothing anywhere.
            events.emit(events.EntryIgnored(index=index, why=str(error)))
        self._woken()

    def _on_leader(self, leader: NodeId) -> None:
        if leader == self._options.node_id:
            self._standing.leading_since_ns = self._clock()
        self._standing.leader = int(leader)
        status = self.node.status()
        events.emit(
            events.CoordinatorChanged(coordinator=int(leader) or None, term=int(status.term))
        )
        self._renew()
        self._woken()

    def _on_event(self, event: CoreEvent) -> None:
        if event.kind in (EventKind.RELEASED, EventKind.LEASE_CONFIRMED, EventKind.ROLE_CHANGED):
            self._woken()

    def _renew(self) -> None:
        """Ask for one more ttl, or tell again that the epoch was given back."""
        if self._node is None:
            return
        holder = self._node.holder
        if holder.epoch == 0:
            return
        evidence = self._standing.evidence
        if evidence is not None and evidence[0] == holder.epoch:
            holder.release(evidence[1])
        else:
            holder.renew()


async def join(
    options: GroupOptions,
    *,
    clock: Callable[[], int],
    woken: Callable[[], None],
    forming: Callable[[str], None],
) -> Link:
    """A running member of its group: at once if it belongs to one, else after forming it.

    `forming` is told, in words for people, what is being waited for. Waits as long as it takes;
    cancel it to give up. Raises ConfigError, Refused.
    """
    try:
        lock, disk, identity = _open_identity(options)
    except DirectoryLocked as locked:
        raise ConfigError(str(locked), field="state_dir") from locked
    except StorageError as error:
        raise ConfigError(str(error)) from error
    channel = _channel(options, identity)
    link = Link(options, channel, lock, clock=clock, woken=woken)
    try:
        founding = Forming(disk, identity, channel)
        if identity.stage is Stage.STARTED:
            link.open(disk, identity)
        await _listen(channel)
        if identity.stage is not Stage.STARTED:
            link.open(disk, await _form(founding, forming))
    except BaseException:
        await link.close()
        raise
    return link


async def _listen(channel: Channel) -> None:
    try:
        await channel.start()
    except ListenError as error:
        raise Refused(str(error), code="port_in_use", field="raft_port") from error


def belongs(state_dir: Path) -> bool:
    """There is Raft state of an earlier run: the group it belongs to is the one that counts."""
    return (state_dir / RAFT_DIR / identity_file.NAME).exists()


def _open_identity(options: GroupOptions) -> tuple[DirectoryLock, OsDisk, Identity]:
    directory = options.state_dir / RAFT_DIR
    disk = OsDisk(directory)
    lock = DirectoryLock(directory)
    try:
        founders = tuple(
            Founder(node=NodeId(node), address=address) for node, address in options.founders
        )
        identity = identity_file.load_or_create(
            disk, NodeId(options.node_id), options.cluster_name, founders
        )
    except BaseException:
        lock.release()
        raise
    return lock, disk, identity


def _channel(options: GroupOptions, identity: Identity) -> Channel:
    founders = identity.founders if identity.record is None else identity.record.founders()
    myself = NodeId(options.node_id)
    tcp = TcpOptions(
        listen=parse_address(options.listen),
        peers=addresses(founders, myself),
        secret=options.secret,
    )
    rng = random.Random(random.SystemRandom().getrandbits(64))
    return Channel(myself, TcpTransport(identity, tcp, rng))


async def _form(founding: Forming, tell: Callable[[str], None]) -> Identity:
    """Form the group, telling at each change what is waited for. Raises ConfigError if refused."""
    forming = asyncio.ensure_future(founding.form())
    told = ""
    try:
        while True:
            done, _ = await asyncio.wait({forming}, timeout=0.25)
            if done:
                return forming.result()
            text = founding.status().text()
            if text != told:
                told = text
                tell(text)
    finally:
        forming.cancel()


_NO_LEADER = frozenset({"no_leader", "not_leader", "no_connection", "transferring", "stopped"})


def _refusal(refused: ProposalRefused) -> RamdError:
    if refused.reason in _NO_LEADER:
        return Unavailable(
            "no coordinator takes it: a majority of members must be reachable",
            code="no_quorum",
        )
    return Refused(f"the group refuses it: {refused.reason.replace('_', ' ')}")
