"""Blank members that ask to be admitted: judged by the leader, asked of any member.

Lives here: answering join requests, forwarding them to the leader. Must not live here: who may join
(the host's `admit`), what a changed configuration is (`pgraft.core`), the asker's side
(`pgraft.joining`). Start reading at `Admission.answer`.

A new member begins as a learner. It is told "admitted" once the configuration that names it is
committed, and again as often as it asks; until then it hears "pending".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from pgraft.core.types import NO_NODE, Change, Config, NodeId, PeerRecord, ProposalRefused
from pgraft.identity import FoundingRecord, JoinAnswer, JoinRequest
from pgraft.net.channel import CallRefused, Channel, PeerError
from pgraft.node.asking import KnownLeader
from pgraft.node.driver import Driver

_ADMIT: Final = "pgraft.admit"
_CALL_S: Final = 2.0
_ASKERS_MAX: Final = 16
"""Requests that this node forwards at once."""
_LATER: Final = frozenset(
    {"not_leader", "transferring", "not_ready", "change_in_flight", "overloaded", "stopped"}
)
"""Refusals of the core after which the same request may be granted."""
_REQUEST: Final = msgspec.msgpack.Decoder(JoinRequest)
_ANSWER: Final = msgspec.msgpack.Decoder(JoinAnswer)
_TEXTS: Final = {
    "used_id": "this node id belongs to another member: remove that one first",
    "used_address": "this address belongs to another member",
    "used_uuid": "this state directory is another member's",
    "too_many_members": "the group has as many members as it can have",
}


class Admission:
    """Answers the join requests that reach this member."""

    def __init__(
        self,
        channel: Channel,
        driver: Driver,
        known: KnownLeader,
        record: FoundingRecord,
        admit: Callable[[JoinRequest], str] | None,
    ) -> None:
        """`record` is this member's own; `admit` the host's judgement, see Hooks."""
        self._channel = channel
        self._driver = driver
        self._known = known
        self._record = record
        self._admit = admit
        self._asked: dict[JoinRequest, asyncio.Task[JoinAnswer]] = {}

    def serve(self) -> None:
        """Answer from now on."""
        self._channel.listeners.join = self.answer
        self._channel.register(_ADMIT, self._serve)

    def stop(self) -> None:
        """Answer nobody any more."""
        self._channel.listeners.join = None
        for task in self._asked.values():
            task.cancel()
        self._asked.clear()

    def answer(self, request: JoinRequest) -> JoinAnswer:
        """What to tell the asker now; see Listeners.join."""
        status = self._driver.raft.status()
        record = _named(request, status.committed_config)
        if record is not None:
            return self._admitted(status.committed_config)
        if request.uuid in status.committed_config.removed:
            return JoinAnswer.refused("removed", "this state directory was removed from the group")
        if not self._driver.running:
            return JoinAnswer.pending("the member that was asked has stopped")
        leader = self._known.node
        if leader == NO_NODE:
            return JoinAnswer.pending("the group has no leader at the moment")
        if leader != self._channel.node:
            return self._forward(leader, request)
        if _named(request, status.config) is not None:
            return JoinAnswer.pending("being admitted")
        return self._decide(request)

    def _admitted(self, config: Config) -> JoinAnswer:
        return JoinAnswer.admitted(
            FoundingRecord.of(
                config,
                cluster_id=self._record.cluster_id,
                cluster_name=self._record.cluster_name,
            )
        )

    def _decide(self, request: JoinRequest) -> JoinAnswer:
        """As the leader."""
        if self._admit is None:
            return JoinAnswer.refused("closed", "this group admits nobody")
        refusal = self._admit(request)
        if refusal:
            code, _, text = refusal.partition(": ")
            if code == "later":
                return JoinAnswer.pending(text)
            return JoinAnswer.refused(code, text or refusal)
        peer = PeerRecord(node=request.node, uuid=request.uuid, address=request.address)
        try:
            self._driver.raft.change(Change(add_learners=(peer,)), self._driver.clock())
        except ProposalRefused as refused:
            why = refused.reason
            if why in _LATER:
                return JoinAnswer.pending(f"not now: {why.replace('_', ' ')}")
            return JoinAnswer.refused(why, _TEXTS.get(why, why.replace("_", " ")))
        self._driver.wake()
        return JoinAnswer.pending("being admitted")

    def _forward(self, leader: NodeId, request: JoinRequest) -> JoinAnswer:
        """What the leader said since the asker asked before; it is asked meanwhile."""
        pending = JoinAnswer.pending(f"node {leader}, which decides, is being asked")
        task = self._asked.get(request)
        if task is not None and not task.done():
            return pending
        self._asked.pop(request, None)
        if task is None or task.cancelled():
            if len(self._asked) < _ASKERS_MAX or self._tidy():
                self._asked[request] = asyncio.ensure_future(self._ask(leader, request))
            return pending
        return task.result()

    def _tidy(self) -> bool:
        """Forget the answers that nobody has come back for; whether there is room."""
        self._asked = {key: task for key, task in self._asked.items() if not task.done()}
        return len(self._asked) < _ASKERS_MAX

    async def _ask(self, leader: NodeId, request: JoinRequest) -> JoinAnswer:
        try:
            payload = msgspec.msgpack.encode(request)
            answer = await self._channel.call(leader, _ADMIT, payload, _CALL_S)
            return _ANSWER.decode(answer)
        except (PeerError, msgspec.MsgspecError) as error:
            return JoinAnswer.pending(f"node {leader}, which decides, did not answer: {error}")

    async def _serve(self, sender: NodeId, payload: bytes) -> bytes:
        try:
            request = _REQUEST.decode(payload)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CallRefused("garbage", f"no join request: {error}") from error
        if self._known.node != self._channel.node:
            raise CallRefused("not_leader", f"leader: {self._known.node}")
        return msgspec.msgpack.encode(self.answer(request))


def _named(request: JoinRequest, config: Config) -> PeerRecord | None:
    return next((p for p in config.peers if (p.node, p.uuid) == (request.node, request.uuid)), None)
