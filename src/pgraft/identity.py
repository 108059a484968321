"""Who a member is: values and their comparison, no files and no network.

Lives here: the member list of a founding, the founding record, a member's identity and stage, the
request to join and its answer.
Must not live here: where it is stored (`pgraft.storage.identity_file`), how it is proved
(`pgraft.net.handshake`), how a group comes to be (`pgraft.forming`). Start reading at `Identity`.

A member uuid stands for one state directory. A wiped directory comes back with another uuid and is
therefore another member, whatever its node id: its promises of votes and acknowledgements are gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pgraft.core.types import Config, Index, NodeId, PeerRecord


class Stage(StrEnum):
    """How far a member has come. It only ever goes forward."""

    BLANK = "blank"
    """Knows itself and the list it was configured with; has promised nothing."""
    RECORDED = "recorded"
    """Holds the founding record; does not vote yet."""
    STARTED = "started"
    """Belongs to a group and votes. Its log must exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Founder:
    """One listed member: node id and the address ("host:port") its peers dial."""

    node: NodeId
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundingMember:
    """One member as a record fixes it; `since` and `voter` as in `PeerRecord` and `Config`."""

    node: NodeId
    address: str
    uuid: str
    since: Index = Index(0)
    voter: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundingRecord:
    """Who belongs to the group as this member first knew it.

    Every founding member has stored the same one before anybody votes. A member that joined later
    stores the membership by which it was admitted.
    """

    cluster_id: str
    cluster_name: str
    members: tuple[FoundingMember, ...]

    @staticmethod
    def of(config: Config, *, cluster_id: str, cluster_name: str) -> FoundingRecord:
        """The record for a member that this configuration admits."""
        return FoundingRecord(
            cluster_id=cluster_id,
            cluster_name=cluster_name,
            members=tuple(
                FoundingMember(
                    node=peer.node,
                    address=peer.address,
                    uuid=peer.uuid,
                    since=peer.since,
                    voter=peer.node in config.voters,
                )
                for peer in sorted(config.peers, key=lambda peer: peer.node)
            ),
        )

    def founders(self) -> tuple[Founder, ...]:
        """The member list without the uuids: what configuration files are compared by."""
        return tuple(Founder(node=m.node, address=m.address) for m in self.members)

    def peers(self) -> tuple[PeerRecord, ...]:
        """The members as a configuration names them."""
        return tuple(
            PeerRecord(node=m.node, uuid=m.uuid, address=m.address, since=m.since)
            for m in self.members
        )

    def uuid_of(self, node: NodeId) -> str | None:
        """The uuid recorded for `node`, None if it is no member here."""
        return next((m.uuid for m in self.members if m.node == node), None)

    def config(self) -> Config:
        """The configuration before the first entry that is known: a founding member votes."""
        return Config(
            voters=frozenset(m.node for m in self.members if m.voter),
            learners=frozenset(m.node for m in self.members if not m.voter),
            peers=self.peers(),
        )


def list_text(founders: Iterable[Founder]) -> str:
    """The member list as people read it and as it is compared: `1@host:port 2@host:port`, by id."""
    return " ".join(f"{f.node}@{f.address}" for f in sorted(founders, key=lambda f: f.node))


def list_digest(founders: Iterable[Founder]) -> str:
    """SHA-256 of `list_text`, hex."""
    return hashlib.sha256(list_text(founders).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A member as it presents itself. `record` is None exactly while it is blank."""

    node: NodeId
    uuid: str
    cluster_name: str
    founders: tuple[Founder, ...]
    stage: Stage = Stage.BLANK
    record: FoundingRecord | None = None

    def __post_init__(self) -> None:
        if (self.record is None) != (self.stage is Stage.BLANK):
            raise ValueError(f"a member at stage {self.stage} with record {self.record}")

    @property
    def cluster_id(self) -> str:
        """Empty while blank."""
        return "" if self.record is None else self.record.cluster_id

    @property
    def since(self) -> Index:
        """Index of the entry that admitted this member; 0 for a founder, and while blank."""
        members = () if self.record is None else self.record.members
        return next((m.since for m in members if m.uuid == self.uuid), Index(0))

    @property
    def list_text(self) -> str:
        """The founding list: the recorded one once there is a record, else the configured one."""
        return list_text(self.founders if self.record is None else self.record.founders())

    @property
    def list_digest(self) -> str:
        """SHA-256 of `list_text`."""
        return hashlib.sha256(self.list_text.encode()).hexdigest()

    def known_nodes(self) -> frozenset[NodeId]:
        """Node ids this member accepts as peers or as itself."""
        members = self.founders if self.record is None else self.record.founders()
        return frozenset(m.node for m in members)


TOKEN_BYTES_MAX = 256
"""Longest token of an invitation."""
ADDRESS_CHARS_MAX = 255
"""Longest "host:port" of a member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """A blank member asks to be admitted: who it is, where its peers dial it, who invited it.

    `token` is the invitation; what it means is the host's. The sender has proven that it knows the
    cluster secret. Raises ValueError for what is longer than any honest request.
    """

    node: NodeId
    uuid: str
    address: str
    token: bytes

    def __post_init__(self) -> None:
        if self.node < 1 or len(self.token) > TOKEN_BYTES_MAX:
            raise ValueError(f"node {self.node} with a token of {len(self.token)} bytes")
        if not 0 < len(self.address) <= ADDRESS_CHARS_MAX:
            raise ValueError(f"an address of {len(self.address)} characters")


class JoinState(StrEnum):
    """What came of a request to join."""

    PENDING = "pending"
    """Not decided yet, or this member cannot decide: ask again."""
    REFUSED = "refused"
    """Not this way, however often it asks."""
    ADMITTED = "admitted"
    """The configuration that names it is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAnswer:
    """The answer to a JoinRequest; make it by `pending`, `refused` or `admitted`.

    A member that was admitted and asks again (the answer was lost) must be told so again.
    """

    state: JoinState
    code: str = ""
    text: str = ""
    record: FoundingRecord | None = None

    @staticmethod
    def pending(text: str) -> JoinAnswer:
        """Ask again; `text` says for people what is being waited for."""
        return JoinAnswer(state=JoinState.PENDING, text=text)

    @staticmethod
    def refused(code: str, text: str) -> JoinAnswer:
        """For good: one stable word, and a sentence for people."""
        return JoinAnswer(state=JoinState.REFUSED, code=code, text=text)

    @staticmethod
    def admitted(record: FoundingRecord) -> JoinAnswer:
        """`record` names the asker, with the index of the entry that admitted it."""
        return JoinAnswer(state=JoinState.ADMITTED, record=record)
