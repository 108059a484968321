"""How a blank member becomes one of a group that exists: asked until admitted, stored in order.

Lives here: the joiner's side. Must not live here: the decision (the host's, `Listeners.join`), the
proof of identity (`pgraft.net.handshake`), how a first group comes to be (`pgraft.forming`).
Start reading at `Joining.join`.

    blank        asks a member of the group, again and again, with one uuid
    admitted     the configuration that names this uuid is committed; the answer is the record
    recorded     the record is stored
    started      the log is made, then "started" is stored

A crash before "recorded" asks again and is told again: the uuid is the same, so it is not admitted
twice. A crash after it needs nobody. The log is empty: a new member has promised nothing, and is no
voter before the group promotes it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from typing import Final

from pgraft.core.types import Index
from pgraft.identity import FoundingRecord, Identity, JoinAnswer, JoinRequest, JoinState, Stage
from pgraft.net.address import Address
from pgraft.net.asking import Asker
from pgraft.storage import identity_file
from pgraft.storage.disk import Disk

_LOG = logging.getLogger("pgraft.joining")
_PAUSE_MIN_S: Final = 0.1
_PAUSE_MAX_S: Final = 1.0
_PAUSE_GROWTH: Final = 1.5

REMEDIES: Final = {
    "bad_token": "invite this node again and give it the new token",
    "not_invited": "invite this node on a member of the cluster first",
    "cluster_name": "set the cluster's name, or ask a member of the right cluster",
    "used_id": "give this node an id that is free, with a state directory of its own",
    "used_address": "give this node an address of its own",
    "secret": "give this node the secret of the cluster",
    "tls": "set up TLS on this node as on the members of the cluster",
    "certificate": "give this node a certificate made for it",
    "protocol": "install the version that the cluster runs",
    "removed": "move the state directory aside, then invite the node again",
}
"""What to do about a refusal, by its code. Codes that the host invents say it in their text."""


class JoinRefused(Exception):
    """This node cannot join as it is. `code` is one stable word; the text says what to do."""

    def __init__(self, code: str, text: str) -> None:
        remedy = REMEDIES.get(code, "")
        super().__init__(f"{text}: {remedy}" if remedy else text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTarget:
    """Whom to ask, and what with: `address` is where peers dial this node, `token` its invitation.

    Any member will do as a seed, also one that does not lead; they are asked in turn.
    """

    seeds: tuple[Address, ...]
    address: str
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JoiningStatus:
    """How far it has come. `waiting`: what the last one that was asked said, or why none could be.

    `refused` is not empty when this node cannot join as it is.
    """

    stage: Stage
    cluster_id: str
    waiting: str
    refused: str = ""

    def text(self) -> str:
        """One line for people."""
        if self.refused:
            return f"refused: {self.refused}"
        if self.stage is Stage.STARTED:
            return "joined"
        return f"joining, waiting: {self.waiting}" if self.waiting else "joining"


def is_joining(identity: Identity) -> bool:
    """Whether this identity has been admitted and has only to finish: no founder ever is."""
    return identity.stage is Stage.RECORDED and identity.since > 0


class Joining:
    """The way of one member into a group. The caller holds the lock of the directory.

    `identity` is what `identity_file.load_or_create` gave. Raises ValueError for a target that no
    honest request can name.
    """

    def __init__(
        self, disk: Disk, identity: Identity, target: JoinTarget, asker: Asker, rng: random.Random
    ) -> None:
        if not target.seeds:
            raise ValueError("nobody to ask")
        self._disk = disk
        self._identity = identity
        self._seeds = target.seeds
        self._request = JoinRequest(
            node=identity.node, uuid=identity.uuid, address=target.address, token=target.token
        )
        self._asker = asker
        self._rng = rng
        self._status = JoiningStatus(
            stage=identity.stage, cluster_id=identity.cluster_id, waiting=""
        )

    async def join(self) -> Identity:
        """This member's identity at stage STARTED, stored; at once if it was admitted before.

        Asks for as long as it takes: see `status`; cancel it to give up. Raises JoinRefused when
        asking again is no use, StorageError when the disk refuses, ValueError for a member that is
        forming a group of its own.
        """
        if self._identity.stage is Stage.BLANK:
            self._store(replace(self._identity, stage=Stage.RECORDED, record=await self._ask()))
        if is_joining(self._identity):
            self._store(identity_file.started(self._disk, self._identity))
            _LOG.info(
                "joined cluster %s, id %s", self._identity.cluster_name, self._identity.cluster_id
            )
        if self._identity.stage is not Stage.STARTED:
            raise ValueError(f"node {self._identity.node} is forming a group of its own")
        return self._identity

    def status(self) -> JoiningStatus:
        """How far it has come."""
        return self._status

    async def _ask(self) -> FoundingRecord:
        pause_s = _PAUSE_MIN_S
        turn = 0
        while True:  # ends by cancellation; paced below
            answer = await self._asker.ask(
                self._identity, self._request, self._seeds[turn % len(self._seeds)]
            )
            record = self._judge(answer)
            if record is not None:
                return record
            self._status = replace(self._status, waiting=answer.text)
            turn += 1
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(pause_s * _PAUSE_GROWTH, _PAUSE_MAX_S)

    def _judge(self, answer: JoinAnswer) -> FoundingRecord | None:
        """The record, None while it is not decided. Raises JoinRefused."""
        if answer.state is JoinState.PENDING:
            return None
        code, text = answer.code, answer.text
        if answer.state is JoinState.ADMITTED and answer.record is not None:
            fault = self._fault(answer.record)
            if not fault:
                return answer.record
            code, text = "bad_record", f"the record of the group {fault}"
        refused = JoinRefused(code, text)
        self._status = replace(self._status, refused=str(refused))
        raise refused

    def _fault(self, record: FoundingRecord) -> str:
        """Why this record must not be stored, or ""."""
        own = next((m for m in record.members if m.node == self._identity.node), None)
        if record.cluster_name != self._identity.cluster_name:
            return f"is that of cluster '{record.cluster_name}'"
        if own is None or own.uuid != self._identity.uuid or own.since <= Index(0):
            return "does not name this node"
        if own.voter or not any(member.voter for member in record.members):
            return "does not say who votes: not this node, but some other"
        return ""

    def _store(self, identity: Identity) -> None:
        """Stored first, said after."""
        identity_file.save(self._disk, identity)
        self._identity = identity
        self._status = replace(
            self._status, stage=identity.stage, cluster_id=identity.cluster_id, waiting=""
        )
