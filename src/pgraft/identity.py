"""Who a member is: values and their comparison, no files and no network.

Lives here: the member list of a founding, the founding record, a member's identity and stage.
Must not live here: where it is stored (`pgraft.storage.identity_file`), how it is proved
(`pgraft.net.hello`), how a group comes to be (`pgraft.forming`). Start reading at `Identity`.

A member uuid stands for one state directory. A wiped directory comes back with another uuid and is
therefore another member, whatever its node id: its promises of votes and acknowledgements are gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pgraft.core.types import Config, NodeId


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
    """One member as the founding record fixes it."""

    node: NodeId
    address: str
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundingRecord:
    """What every founding member has stored before anybody votes."""

    cluster_id: str
    cluster_name: str
    members: tuple[FoundingMember, ...]

    def founders(self) -> tuple[Founder, ...]:
        """The member list without the uuids: what configuration files are compared by."""
        return tuple(Founder(node=m.node, address=m.address) for m in self.members)

    def uuid_of(self, node: NodeId) -> str | None:
        """The uuid recorded for `node`, None if it is no founding member."""
        return next((m.uuid for m in self.members if m.node == node), None)

    def config(self) -> Config:
        """The founding configuration: every founding member votes."""
        return Config(voters=frozenset(m.node for m in self.members))


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
