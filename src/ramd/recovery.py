"""Going on alone after the majority was lost for good: what has to hold, and the way to do it.

A person says that the other voters are off and stay off; no machine can know that. From then on
this member is a group of its own, with a new id, and the old members are refused for ever. Nothing
is decided here about PostgreSQL: the ordinary coordinator of the new group compares positions and
promotes by the ordinary rules.

Must not live here: how the group's log is made anew (`ramd.link`, pgraft). Start at `Recovery`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ramd import events
from ramd.assembly import address
from ramd.domain.consensus import PROPOSE_TIMEOUT_S
from ramd.domain.errors import OutcomeUnknown, Refused, Unavailable
from ramd.domain.model import ClusterState
from ramd.domain.observation import Heard, Position, ServerRole
from ramd.domain.quorum import LostNode, RecoverPlan, RecoverRequest, RecoverResult
from ramd.domain.raft import RaftFacts
from ramd.domain.service import Snapshot
from ramd.host import Host, stamp
from ramd.link import Survival, recover_alone
from ramd.membership import own_member
from ramd.runtime import Runtime
from ramd.state.commands import encode
from ramd.state.recovery import RecordRecovery

NS_PER_MS = 1_000_000
LOOK_S = 0.2
TTL_PERCENT = 110
"""Clocks of two hosts may differ by this much of a lease, which is what a holder may rely on."""
SCHEDULING_MS = 100


class Recovery:
    """One daemon's recovery; one at a time. All calls from the control loop's thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._under_way = False

    async def recover(self, request: RecoverRequest, *, timeout_s: float) -> RecoverResult:
        """The plan; and if the request says so, what became of it.

        Raises Refused with what stands against it, before anything is touched; OutcomeUnknown when
        the new group has not come to its feet in time.
        """
        plan = self._plan(request)
        if not request.apply:
            return RecoverResult(plan=plan)
        if self._under_way:
            raise Refused("a recovery is under way already", code="busy")
        _require_confirmation(request, plan)
        _require_silence(plan)
        self._under_way = True
        begun_ns = self._host.now_ns()
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._apply(request, plan)
        except TimeoutError:
            raise OutcomeUnknown(
                f"the new group did not stand within {timeout_s:g} s",
                hint="look at /api/v1/quorum/status and at the daemon's log",
            ) from None
        finally:
            self._under_way = False
        took_ms = (self._host.now_ns() - begun_ns) // NS_PER_MS
        return RecoverResult(
            plan=plan,
            done=True,
            cluster_id=result.state.cluster_id,
            primary=result.state.reign.node_id if _serves(result) and result.state.reign else None,
            epoch=result.state.epoch,
            took_ms=took_ms,
        )

    def _plan(self, request: RecoverRequest) -> RecoverPlan:
        picture = self._host.picture
        raft = _member_of(self._host.runtime, picture)
        _require_lost(picture, raft)
        plan = plan_of(picture, raft, self._host.now_ns())
        if not plan.voter and not request.learner:
            raise Refused(
                "this node has no vote: what was committed may never have reached it",
                code="conflict",
                hint="recover on a voter; if none is left, --force recovers from this one",
            )
        return plan

    async def _apply(self, request: RecoverRequest, plan: RecoverPlan) -> Snapshot:
        await self._wait_out(plan)
        lost = ", ".join(node.name for node in plan.lost)
        events.emit(events.QuorumRecovery(actor=request.actor, lost=lost))
        survival = await self._host.reform(self._make_group)
        events.emit(
            events.QuorumRecovered(
                group_id=survival.group_id,
                last_index=survival.index,
                term=survival.term,
                uncommitted=survival.uncommitted,
                aside=str(survival.aside),
            )
        )
        await self._until(lambda: self._coordinates() or None)
        await self._record(request)
        return await self._until(self._settled)

    def _make_group(self) -> Survival:
        """In a thread, while the member does not run."""
        config = self._host.daemon.config
        own = own_member(config)
        return recover_alone(
            config.state_dir,
            node_id=config.node_id,
            cluster_name=config.cluster_name,
            address=address(own.hostname, own.raft_port),
            stamp=stamp(),
        )

    async def _wait_out(self, plan: RecoverPlan) -> None:
        """Until no lease of the old group is left. Raises Refused if a coordinator turns up."""
        until_ns = self._host.now_ns() + plan.wait_ms * NS_PER_MS
        while (left_ns := until_ns - self._host.now_ns()) > 0:
            await asyncio.sleep(min(LOOK_S, left_ns / 1e9))
            picture = self._host.picture
            _require_lost(picture, _member_of(self._host.runtime, picture))

    def _coordinates(self) -> bool:
        group = self._host.picture.group
        return group is not None and group.is_coordinator and group.ready

    async def _record(self, request: RecoverRequest) -> None:
        """The new group's first entry: its id, that nobody else is left, and who wanted it so."""
        runtime, group = self._host.runtime, self._host.picture.group
        assert runtime is not None
        assert group is not None
        assert group.raft is not None
        command = RecordRecovery(
            cluster_id=group.raft.group_id,
            survivor=self._host.daemon.config.node_id,
            requested_by=request.actor,
            at_unix_ms=self._host.unix_ms(),
        )
        await runtime.link.propose(encode(command), timeout_s=PROPOSE_TIMEOUT_S)

    def _settled(self) -> Snapshot | None:
        """The record is applied, and the server serves or the coordinator says why it does not."""
        picture = self._host.picture
        alone = [member.node_id for member in picture.state.members]
        if alone != [self._host.daemon.config.node_id]:
            return None
        nobody = [d for d in picture.state.decisions[-1:] if d.rule == "nobody_eligible"]
        return picture if _serves(picture) or nobody else None

    async def _until(self, check: Callable[[], Snapshot | bool | None]) -> Snapshot:
        """Look after every beat; bounded by the caller. Returns the picture of that moment."""
        while not check():
            self._host.changed.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._host.changed.wait()
            except TimeoutError:
                continue
        return self._host.picture


def _member_of(runtime: Runtime | None, picture: Snapshot) -> RaftFacts:
    """This node's member. Raises Refused, Unavailable."""
    if runtime is None or picture.group is None:
        raise Refused("this daemon is in no cluster", code="no_cluster")
    if not picture.state.formed or picture.group.raft is None:
        raise Unavailable("this daemon has not read the state of its cluster yet")
    return picture.group.raft


def _require_lost(picture: Snapshot, raft: RaftFacts) -> None:
    """Raises Refused while there is a majority, or may be one in a moment."""
    group = picture.group
    assert group is not None
    if group.coordinator is not None:
        raise Refused(
            f"there is a quorum: node {group.coordinator} coordinates",
            code="conflict",
            hint="recovery is for a majority that is lost for good; nodes that are gone are taken "
            "out by: ramctrl nodes remove",
        )
    answering = [p.node_id for p in raft.peers if p.connected and p.node_id in raft.voters]
    if len(answering) + (picture.daemon.node_id in raft.voters) >= raft.majority:
        nodes = ", ".join(str(node) for node in answering)
        raise Refused(
            f"a majority answers (node {nodes}): it is about to find a coordinator",
            code="conflict",
            hint="wait a moment and look at: ramctrl quorum status",
        )


def _require_confirmation(request: RecoverRequest, plan: RecoverPlan) -> None:
    """Raises Refused unless the person has named the cluster and every other voter."""
    if request.cluster_name != plan.cluster_name:
        raise Refused(
            f"this cluster is {plan.cluster_name}, not {request.cluster_name or 'named'}",
            code="invalid_field",
            field="cluster_name",
        )
    voters = {node.node_id: node.name for node in plan.lost if node.voter}
    if set(request.confirmed_off) != set(voters) or len(request.confirmed_off) != len(voters):
        named = ",".join(voters[node] for node in sorted(voters))
        raise Refused(
            "the hosts confirmed to be off must be exactly the other voters",
            code="invalid_field",
            field="confirmed_off",
            hint=f"switch them off, or cut them off for good, then name them: {named}",
        )


def _require_silence(plan: RecoverPlan) -> None:
    """Raises Refused if a node of the old group answers that is said to be off."""
    answering = [node.name for node in plan.lost if node.answers]
    if answering:
        raise Refused(
            f"{', '.join(answering)} answers: it is not off",
            code="conflict",
            hint="stop its daemon and its server for good, or recover on it instead",
        )


def plan_of(picture: Snapshot, raft: RaftFacts, now_ns: int) -> RecoverPlan:
    """What a recovery on this node would start from. Pure."""
    me = picture.daemon.node_id
    everybody = sorted({*raft.voters, *raft.outgoing, *raft.learners} - {me})
    lost = tuple(_lost(picture, raft, node, now_ns) for node in everybody)
    contacts = [n.contact_age_ms for n in lost if n.voter and n.contact_age_ms is not None]
    own = picture.of(me)
    position = own.observation.position if own is not None else None
    reign = picture.state.reign
    ttl_ms = max(picture.daemon.lease_ttl_ms, raft.longest_ttl_ms)
    since_ms = min(contacts) if len(contacts) == sum(n.voter for n in lost) else 0
    return RecoverPlan(
        node_id=me,
        voter=me in raft.voters,
        cluster_name=picture.state.cluster_name,
        epoch=picture.state.epoch,
        primary=reign.node_id if reign is not None else None,
        term=raft.term,
        last_index=raft.last_index,
        commit_index=raft.commit_index,
        contact_age_ms=min(contacts, default=None),
        wait_ms=max(0, ttl_ms * TTL_PERCENT // 100 + SCHEDULING_MS - since_ms),
        position=position,
        best=_best(lost, position),
        lost=lost,
    )


def _lost(picture: Snapshot, raft: RaftFacts, node_id: int, now_ns: int) -> LostNode:
    member, heard, peer = picture.state.member(node_id), picture.of(node_id), raft.peer(node_id)
    contact_ns = peer.contact_ns if peer is not None else None
    return LostNode(
        node_id=node_id,
        name=member.name if member is not None else f"node{node_id}",
        voter=node_id in raft.voters or node_id in raft.outgoing,
        answers=peer is not None and peer.connected,
        contact_age_ms=_age_ms(contact_ns, now_ns),
        seen_age_ms=_age_ms(heard.received_ns if heard is not None else None, now_ns),
        position=_position(picture.state, heard),
    )


def _position(state: ClusterState, heard: Heard | None) -> Position | None:
    """The last known end of its WAL, if it was on the line of the present epoch."""
    position = heard.observation.position if heard is not None else None
    reign = state.reign
    if position is None or reign is None or position.timeline > reign.timeline:
        return None
    return position


def _best(lost: tuple[LostNode, ...], own: Position | None) -> LostNode | None:
    known = [(n.position.timeline, n.position.lsn, n) for n in lost if n.position is not None]
    if not known:
        return None
    timeline, lsn, best = max(known, key=lambda item: item[:2])
    if own is not None and (own.timeline, own.lsn) >= (timeline, lsn):
        return None
    return best


def _age_ms(at_ns: int | None, now_ns: int) -> int | None:
    return None if at_ns is None else max(0, now_ns - at_ns) // NS_PER_MS


def _serves(picture: Snapshot) -> bool:
    """This node accepts writes as the primary of the present epoch."""
    me, reign = picture.daemon.node_id, picture.state.reign
    own = picture.of(me)
    if own is None or reign is None or reign.node_id != me:
        return False
    seen = own.observation
    opened = seen.epoch_opened == reign.epoch and seen.role is ServerRole.PRIMARY
    return opened and seen.accepting and not seen.fenced
