"""`Consensus` over a running pgraft member: errors and vocabulary turned into ours.

Must not live here: how the member came to be (`join`), any decision. Start reading at `Link`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgraft.core.types import Change, Grant, NodeId, ProposalRefused, Role
from pgraft.net.channel import CallRefused, Channel, PeerLost
from pgraft.net.channel import PeerError as ChannelError
from pgraft.node import Node, ProposalUnknown, ReadFailed
from ramd.domain.consensus import GroupStatus, Handler, MemberChange, ReleaseEvidence
from ramd.domain.decision import LeaseView, Voting
from ramd.domain.errors import (
    OutcomeUnknown,
    PeerError,
    RamdError,
    Refused,
    Unavailable,
)
from ramd.domain.model import ClusterState
from ramd.link.facts import Facts
from ramd.link.lease import LeaseKeeper
from ramd.link.state_copy import StateCopy

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """`ttl_ns`: of the leases that this node grants; `grace_ns`: how long the group may be between
    two coordinators and still have a quorum."""

    ttl_ns: int
    grace_ns: int


@dataclass(slots=True, kw_only=True)
class _Reach:
    """Whether a majority is in reach, as far as this node can tell, and since when it coordinates.

    Between two coordinators there is none for a moment, also when one hands over to the next on
    purpose. That is no loss of the quorum before an election has had its time.
    """

    grace_ns: int
    leading_since_ns: int = 0
    _known: bool = False
    _lost_ns: int | None = None

    def note(self, coordinator: int, now_ns: int, *, is_me: bool) -> None:
        """The coordinator is this one now; 0: none is known."""
        if is_me:
            self.leading_since_ns = now_ns
        if self._known and not coordinator:
            self._lost_ns = now_ns
        self._known = bool(coordinator)

    def lost(self) -> None:
        """This node stopped coordinating because it heard of no majority: that is known at once."""
        self._known, self._lost_ns = False, None

    def has_quorum(self, now_ns: int) -> bool:
        """A coordinator is known, or was a moment ago."""
        if self._known:
            return True
        return self._lost_ns is not None and now_ns - self._lost_ns < self.grace_ns


class Link:
    """One member's handle on the group: `ramd.domain.consensus.Consensus`, and casts received.

    Every call from the control loop's thread. Made by `ramd.link.join`.
    """

    def __init__(
        self,
        node: Node,
        channel: Channel,
        copy: StateCopy,
        facts: Facts,
        *,
        times: Times,
        clock: Callable[[], int],
    ) -> None:
        self._node = node
        self._channel = channel
        self._copy = copy
        self._ttl_ns = times.ttl_ns
        self._clock = clock
        self._keeper = LeaseKeeper(node)
        self._facts = facts
        self._reach = _Reach(grace_ns=times.grace_ns)

    def on_coordinator(self, node_id: int, *, lost: bool = False) -> None:
        """The group's coordinator is another one: note since when it is this node, and renew.
        `lost`: this node was it, and hears of no majority."""
        if lost:
            self._reach.lost()
        self._reach.note(node_id, self._clock(), is_me=node_id == int(self._node.node))
        self._keeper.turn()

    def renew(self) -> None:
        """See LeaseKeeper.turn."""
        self._keeper.turn()

    # --- domain.consensus.Consensus ----------------------------------------------------------

    def status(self) -> GroupStatus:
        status = self._node.status()
        leading = status.role is Role.LEADER  # Raft's word
        committed = status.committed_config
        return GroupStatus(
            me=int(self._node.node),
            coordinator=int(status.leader) or None,  # Raft's word
            is_coordinator=leading,
            ready=leading and self._copy.term == status.term,
            term=int(status.term),
            commit_index=int(status.commit),
            applied_index=int(status.applied),
            has_quorum=self._reach.has_quorum(self._clock()),
            coordinator_since_ns=self._reach.leading_since_ns if leading else 0,
            loop_lag_ms=self._node.loop_lag.last_ns // NS_PER_MS,
            raft_role=status.role.value,
            messages_taken=status.messages_taken,
            heartbeats_sent=status.heartbeats_sent,
            elections_begun=status.elections_begun,
            raft=self._facts.of(status, self._node.loop_lag),
            voting=Voting(
                voters=tuple(sorted(int(n) for n in committed.voters)),
                learners=tuple(sorted(int(n) for n in committed.learners)),
                settled=committed == status.config and not committed.outgoing,
            ),
            removed=self._facts.removed(committed),
            in_flight=status.last_index != status.applied,
        )

    def state(self) -> ClusterState:
        return self._copy.state

    async def propose(self, command: bytes, *, timeout_s: float) -> None:
        try:
            await self._node.propose(command, timeout_s)
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
            ttl_ns=self._ttl_ns,
            payload=payload,
        )
        try:
            self._node.append_grant(grant)
        except ProposalRefused as refused:
            raise _refusal(refused) from refused

    async def read_barrier(self, *, timeout_s: float) -> None:
        try:
            await self._node.read_barrier(timeout_s)
        except ReadFailed as failed:
            raise Unavailable(str(failed), code="no_quorum") from failed

    async def change(self, change: MemberChange, *, timeout_s: float) -> None:
        wanted = Change(
            promote=frozenset(NodeId(n) for n in change.promote),
            remove=frozenset(NodeId(n) for n in change.remove),
        )
        try:
            await self._node.change(wanted, timeout_s)
        except ProposalRefused as refused:
            raise _refusal(refused) from refused
        except ProposalUnknown as unknown:
            raise OutcomeUnknown(
                f"the change is not confirmed: {unknown}", hint="look at /api/v1/nodes"
            ) from unknown

    def transfer(self, node_id: int) -> None:
        try:
            self._node.transfer(NodeId(node_id))
        except ProposalRefused as refused:
            raise _refusal(refused) from refused

    def lease(self) -> tuple[int, int]:
        holder = self._node.holder
        return holder.epoch, holder.deadline_ns

    def release(self, epoch: int, evidence: bytes) -> None:
        self._keeper.release(epoch, evidence)

    def lease_view(self) -> LeaseView:
        epoch = self._copy.state.epoch
        granter = self._node.granter
        movable_ns = granter.may_move_at()
        if movable_ns is None and epoch:
            # It cannot be told yet: a deadline that keeps running away is not reached.
            movable_ns = self._clock() + self._ttl_ns
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
            release_timeline=evidence.end.timeline if evidence.end else None,
            release_reason=evidence.reason,
            holders=evidence.holders,
            stands_by=evidence.stands_by,
            spent=evidence.spent,
        )

    def seal(self, epoch: int) -> None:
        self._node.granter.seal(epoch)

    def unseal(self) -> None:
        self._node.granter.unseal()

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


_NOBODY = frozenset({"no_leader", "not_leader", "no_connection", "transferring", "stopped"})  # Raft


_LATER = frozenset({"not_ready", "change_in_flight", "overloaded", "overwritten"})
_WHY = {
    "learner_behind": "the learner is behind: it has not read enough of the group's log yet",
    "last_voter": "nobody who votes would be left",
    "too_many_voters": "there are as many voters as there can be",
    "not_a_learner": "it is no learner of the group",
    "unknown_member": "it is not in the group",
}


def _refusal(refused: ProposalRefused) -> RamdError:
    if refused.reason in _LATER:
        return Unavailable(f"not now: {refused.reason.replace('_', ' ')}")
    if refused.reason in _NOBODY:
        return Unavailable(
            "no coordinator takes it: a majority of members must be reachable",
            code="no_quorum",
        )
    why = _WHY.get(refused.reason, refused.reason.replace("_", " "))
    return Refused(f"the group refuses it: {why}")
