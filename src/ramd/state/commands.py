"""The commands that change the replicated state, and their bytes in the log.

Lives here: one frozen dataclass per command, the payload of a grant, and one codec for both.
Must not live here: what a command does (`ramd.state.apply`). Start reading at `Command`.

On the log an entry is `[version, tag, body]` in msgpack. A reader refuses a version or tag that
it does not know; unknown keys in a body are ignored, missing ones take their defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import msgspec

from ramd.domain.lsn import Lsn
from ramd.domain.model import (
    DecisionRecord,
    Handover,
    Member,
    Reign,
    Removal,
    Settings,
)
from ramd.domain.sync import SyncGrant
from ramd.state.member_commands import (
    AdmitMember,
    DropMember,
    InviteMember,
    KeepMember,
    RemoveMember,
    WithdrawInvitation,
)
from ramd.state.phases import RecordPhases
from ramd.state.recovery import RecordRecovery
from ramd.state.reinit import EndReinit, OrderReinit
from ramd.state.sync import ChangeSync, RelaxSync, SettleSync

VERSION = 1
"""Version of the encoding; a reader refuses any other."""


class UndecodableError(ValueError):
    """The bytes are no message of this version. Says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitCluster:
    """Form the cluster. Accepted once, and only with a well-formed list of members."""

    cluster_id: str
    cluster_name: str
    members: tuple[Member, ...]
    settings: Settings
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSystem:
    """PostgreSQL's system identifier, from the first primary. Accepted once."""

    system_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFork:
    """Where the timeline of `epoch` left its parent, as the new primary's history file says."""

    epoch: int
    parent_timeline: int
    fork_lsn: Lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHandover:
    """A person wants another primary. Accepted for the present epoch, one at a time."""

    handover: Handover


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelHandover:
    """The handover of `epoch` does not take place, because of `reason`."""

    epoch: int
    reason: str
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDecision:
    """Keep a decision in the replicated history (rule S8)."""

    record: DecisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy:
    """The cluster ends. Accepted once; nothing undoes it."""

    removal: Removal


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
    """Replace the cluster-wide settings, if they are still those that the order was made from."""

    settings: Settings
    replaces: Settings | None = None
    """What `settings` were made from; None replaces whatever there is, as entries of earlier
    versions do."""
    operation: str = ""
    """Tells whoever asked that this very order took effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeMember:
    """What a node's own file says of it beyond its addresses, which never change this way."""

    node_id: int
    name: str
    priority: int
    nofailover: bool
    nosync: bool = False


Command: TypeAlias = (
    InitCluster
    | RecordSystem
    | RecordFork
    | RequestHandover
    | CancelHandover
    | RecordDecision
    | Destroy
    | ChangeSettings
    | DescribeMember
    | ChangeSync
    | SettleSync
    | RelaxSync
    | InviteMember
    | WithdrawInvitation
    | AdmitMember
    | RemoveMember
    | KeepMember
    | DropMember
    | RecordPhases
    | RecordRecovery
    | OrderReinit
    | EndReinit
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPayload:
    """What travels with a grant: the reign that it begins, and the decision that made it.

    Holder and epoch of the grant itself are what counts; the reign must agree with them.
    """

    reign: Reign
    record: DecisionRecord
    sync: SyncGrant | None = None
    """None: no set is recorded, and none begins."""


_TAGS: dict[str, type[Command]] = {
    "init": InitCluster,
    "system": RecordSystem,
    "fork": RecordFork,
    "handover": RequestHandover,
    "cancel_handover": CancelHandover,
    "decision": RecordDecision,
    "destroy": Destroy,
    "settings": ChangeSettings,
    "describe": DescribeMember,
    "sync_change": ChangeSync,
    "sync_settle": SettleSync,
    "sync_relax": RelaxSync,
    "invite": InviteMember,
    "withdraw": WithdrawInvitation,
    "admit": AdmitMember,
    "remove": RemoveMember,
    "keep": KeepMember,
    "drop": DropMember,
    "phases": RecordPhases,
    "recovery": RecordRecovery,
    "reinit": OrderReinit,
    "reinit_end": EndReinit,
}
_NAMES: dict[type[Command], str] = {kind: tag for tag, kind in _TAGS.items()}

_T = TypeVar("_T")


def encode(command: Command) -> bytes:
    """The bytes of `command` as they go into the log."""
    return seal_envelope(_NAMES[type(command)], command)


def decode(data: bytes) -> Command:
    """The command in `data`. Raises UndecodableError for bytes, versions, tags it does not know."""
    tag, body = open_envelope(data)
    kind = _TAGS.get(tag)
    if kind is None:
        raise UndecodableError(f"unknown command {tag!r}")
    return read_body(body, kind)


def encode_grant_payload(payload: GrantPayload) -> bytes:
    """The bytes that travel as the payload of a grant."""
    return seal_envelope("grant", payload)


def decode_grant_payload(data: bytes) -> GrantPayload:
    """Reverse of `encode_grant_payload`. Raises UndecodableError."""
    return decode_tagged(data, "grant", GrantPayload)


# --- the envelope, shared with `ramd.state.wire` ----------------------------------------------


def seal_envelope(tag: str, body: object) -> bytes:
    """`[VERSION, tag, body]` in msgpack."""
    return msgspec.msgpack.encode((VERSION, tag, body))


def open_envelope(data: bytes) -> tuple[str, msgspec.Raw]:
    """(tag, body not yet decoded). Raises UndecodableError."""
    try:
        version, tag, body = msgspec.msgpack.decode(data, type=tuple[int, str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UndecodableError(f"not a message: {error}") from error
    if version != VERSION:
        raise UndecodableError(f"version {version} is not {VERSION}")
    return tag, body


def read_body(body: msgspec.Raw, kind: type[_T]) -> _T:
    """`body` as a value of `kind`. Raises UndecodableError."""
    decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kind)
    try:
        value: _T = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UndecodableError(f"not a {kind.__name__}: {error}") from error
    return value


def decode_tagged(data: bytes, tag: str, kind: type[_T]) -> _T:
    """The value of `kind` in `data`, which must carry `tag`. Raises UndecodableError."""
    found, body = open_envelope(data)
    if found != tag:
        raise UndecodableError(f"expected {tag!r}, got {found!r}")
    return read_body(body, kind)
