"""How a group comes to be: from blank members with one list to a group that may vote, once.

Lives here: the founding, step by step, safe against a crash of any member at any step. Must not
live here: Raft, the proof of identity (`pgraft.net.handshake`), what is founded on top of the
group, how a member joins later (`pgraft.joining`). Start reading at `Forming.form`.

    lowest node id                                 every other
    blank, linked to all, all blank                blank
    draws the cluster id, stores the record
    sends it to each                         ->    stores it, acknowledges
    has every acknowledgement: makes its log,
    stores "started"                         ->    meets a started member: makes its log,
                                                   stores "started"

Nobody votes before every member has stored who belongs to the group, so no second group can form
from the same list: a blank member is refused by everyone who is started, and a member that holds
the record takes no other. "Started" is not a message but something each hello says, so it cannot
be missed. The log is made before "started" is stored: a started member without a log has lost it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pgraft.core.types import NodeId
from pgraft.identity import FoundingMember, FoundingRecord, Identity, Stage, list_digest
from pgraft.net.channel import CallRefused, Channel, PeerError
from pgraft.net.transport import Peer, Refusal
from pgraft.storage import identity_file
from pgraft.storage.disk import Disk, StorageError

_LOG = logging.getLogger("pgraft.forming")
_FOUND: Final = "pgraft.found"
_CALL_TIMEOUT_S: Final = 0.5
_LOOK_AGAIN_S: Final = 0.25
_RECORD: Final = msgspec.msgpack.Decoder(FoundingRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormingStatus:
    """How far the founding has come. `waiting` says for which members, and why for each.

    `refused` is not empty when this member can never take part as it is, and says what to do.
    """

    stage: Stage
    cluster_id: str
    waiting: dict[NodeId, str]
    refused: str = ""

    def text(self) -> str:
        """One line for people."""
        if self.refused:
            return f"refused: {self.refused}"
        if self.stage is Stage.STARTED:
            return "formed"
        if not self.waiting:
            return "forming"
        reasons = "; ".join(f"node {node}: {why}" for node, why in sorted(self.waiting.items()))
        return f"forming, waiting for {reasons}"


class _Change:
    """Something happened that `form` must look at; what failed outside of it is raised inside."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._error: StorageError | None = None

    def set(self) -> None:
        self._event.set()

    def fail(self, error: StorageError) -> None:
        self._error = error
        self._event.set()

    def take(self) -> None:
        """Look from now on for the next change. Raises what failed."""
        self._event.clear()
        if self._error is not None:
            raise self._error

    async def wait(self) -> None:
        await self._event.wait()


class Forming:
    """The founding as one member goes through it. Make it before the channel is started.

    `identity` is what `identity_file.load_or_create` gave; the caller holds the directory's lock.
    """

    def __init__(self, disk: Disk, identity: Identity, channel: Channel) -> None:
        self._disk = disk
        self._identity = identity
        self._channel = channel
        self._others = sorted(identity.known_nodes() - {identity.node})
        self._met: dict[NodeId, Peer] = {}
        self._refused: dict[NodeId, Refusal] = {}
        self._stored_by: set[NodeId] = set()
        self._changed = _Change()
        channel.register(_FOUND, self._on_found)
        channel.listeners.peer.append(self._on_peer)
        channel.listeners.refused.append(self._on_refused)

    async def form(self) -> Identity:
        """This member's identity at stage STARTED, stored; at once if it had been started before.

        Waits for the other members for as long as it takes: see `status`. Raises StorageError.
        """
        if self._identity.node not in self._identity.known_nodes():
            raise ValueError(f"node {self._identity.node} is not in its own member list")
        while self._identity.stage is not Stage.STARTED:  # ends by cancellation; paced below
            self._changed.take()
            if self._leads():
                await self._lead()
            if self._may_start():
                self._start()
                break
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return self._identity

    def status(self) -> FormingStatus:
        """How far it has come, from what this member sees."""
        refusals = self._refused.values()
        formed = next((r for r in refusals if r.code == "formed_group"), None)
        blank = self._identity.stage is Stage.BLANK
        return FormingStatus(
            stage=self._identity.stage,
            cluster_id=self._identity.cluster_id,
            waiting=self._waiting(),
            refused=formed.text if formed is not None and blank else "",
        )

    def _waiting(self) -> dict[NodeId, str]:
        if self._identity.stage is Stage.STARTED:
            return {}
        reasons: dict[NodeId, str] = {}
        for node in self._others:
            refusal = self._refused.get(node)
            if refusal is not None:
                reasons[node] = refusal.text
            elif not self._channel.transport.linked(node):
                reasons[node] = "no connection"
            elif (
                self._identity.record is not None
                and self._leads()
                and (node not in self._stored_by)
            ):
                reasons[node] = "has not stored the founding record"
        if not reasons and not self._leads():
            reasons[self._others[0]] = "founds the group when every member is connected"
        return reasons

    def _leads(self) -> bool:
        return not self._others or self._identity.node < self._others[0]

    async def _lead(self) -> None:
        if self._identity.stage is Stage.BLANK:
            if not all(self._is_blank_and_linked(node) for node in self._others):
                return
            self._store_record(self._draw())
        assert self._identity.record is not None
        payload = msgspec.msgpack.encode(self._identity.record)
        missing = [node for node in self._others if node not in self._stored_by]
        await asyncio.gather(*(self._ask_to_store(node, payload) for node in missing))

    async def _ask_to_store(self, node: NodeId, payload: bytes) -> None:
        try:
            await self._channel.call(node, _FOUND, payload, _CALL_TIMEOUT_S)
        except CallRefused as refused:
            self._on_refused(
                Refusal(node=node, code=refused.code, text=refused.message, by_peer=True)
            )
        except PeerError as error:
            _LOG.debug("founding record not delivered to node %d: %s", node, error)
        else:
            self._stored_by.add(node)

    def _is_blank_and_linked(self, node: NodeId) -> bool:
        met = self._met.get(node)
        linked = self._channel.transport.linked(node)
        return linked and met is not None and met.stage is Stage.BLANK

    def _draw(self) -> FoundingRecord:
        uuids = {node: self._met[node].uuid for node in self._others}
        uuids[self._identity.node] = self._identity.uuid
        return FoundingRecord(
            cluster_id=uuid.uuid4().hex,
            cluster_name=self._identity.cluster_name,
            members=tuple(
                FoundingMember(node=f.node, address=f.address, uuid=uuids[f.node])
                for f in sorted(self._identity.founders, key=lambda f: f.node)
            ),
        )

    def _may_start(self) -> bool:
        if self._identity.stage is not Stage.RECORDED:
            return False
        if self._leads() and self._stored_by.issuperset(self._others):
            return True
        return any(
            met.stage is Stage.STARTED and met.cluster_id == self._identity.cluster_id
            for met in self._met.values()
        )

    def _start(self) -> None:
        self._store(identity_file.started(self._disk, self._identity))
        identity = self._identity
        _LOG.info("cluster %s formed, id %s", identity.cluster_name, identity.cluster_id)

    def _store_record(self, record: FoundingRecord) -> None:
        self._store(replace(self._identity, stage=Stage.RECORDED, record=record))

    def _store(self, identity: Identity) -> None:
        """Stored first, shown to others after."""
        identity_file.save(self._disk, identity)
        self._identity = identity
        self._channel.transport.set_identity(identity)

    async def _on_found(self, sender: NodeId, payload: bytes) -> bytes:
        """The lowest node asks to store its founding record. Stored when this returns."""
        try:
            record = _RECORD.decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise CallRefused("garbage", f"no founding record: {error}") from error
        fault = self._fault(sender, record)
        if fault:
            raise CallRefused("founding", f"node {self._identity.node} {fault}")
        if self._identity.stage is Stage.BLANK:
            try:
                self._store_record(record)
            except StorageError as error:
                self._changed.fail(error)
                raise CallRefused("storage", f"node {self._identity.node}: {error}") from error
            self._changed.set()
        return b""

    def _fault(self, sender: NodeId, record: FoundingRecord) -> str:
        """Why this record must not be stored, or ""."""
        mine = self._identity
        if mine.record is not None:
            if mine.record == record:
                return ""
            return (
                f"already holds the founding record of cluster {mine.cluster_id}, and was sent "
                f"{record.cluster_id}: a member was wiped while the group formed; if it was never "
                "in use, move the state directories of all members aside and form it again"
            )
        if sender != min(mine.known_nodes()):
            return f"takes a founding record only from node {min(mine.known_nodes())}"
        if record.cluster_name != mine.cluster_name:
            return f"is of cluster '{mine.cluster_name}', not '{record.cluster_name}'"
        if list_digest(record.founders()) != mine.list_digest:
            return f"has another member list: {mine.list_text}"
        met = self._met.get(sender)
        if met is None or record.uuid_of(sender) != met.uuid:
            return f"knows node {sender} as another member than the record does"
        if record.uuid_of(mine.node) != mine.uuid:
            return "was wiped since the record was made"
        return ""

    def _on_peer(self, peer: Peer) -> None:
        self._met[peer.node] = peer
        self._refused.pop(peer.node, None)
        self._changed.set()

    def _on_refused(self, refusal: Refusal) -> None:
        if refusal.node in self._others and self._identity.stage is not Stage.STARTED:
            self._refused[refusal.node] = refusal
            self._changed.set()
