"""A member's identity as a file: read, judged against the configuration, replaced durably.

Lives here: the file `identity.json` of the member's directory. Must not live here: when a stage
is reached (`pgraft.forming`, `pgraft.joining`). Start reading at `load_or_create`.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pgraft.core.types import NodeId
from pgraft.identity import Founder, FoundingRecord, Identity, Stage
from pgraft.storage import wal
from pgraft.storage.disk import Disk, StorageError
from pgraft.storage.segment import Owner

NAME: Final = "identity.json"
_FORMAT: Final = 1


class IdentityError(StorageError):
    """The stored identity is unreadable, or is not the one the configuration asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    node: NodeId
    uuid: str
    stage: Stage
    record: FoundingRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    format: int
    crc32: int
    identity: msgspec.Raw


def save(disk: Disk, identity: Identity) -> None:
    """`identity` is durable on return. Raises StorageError when the disk refuses."""
    stored = _Stored(
        node=identity.node, uuid=identity.uuid, stage=identity.stage, record=identity.record
    )
    body = msgspec.json.encode(stored)
    whole = _File(format=_FORMAT, crc32=zlib.crc32(body), identity=msgspec.Raw(body))
    try:
        disk.replace(NAME, msgspec.json.encode(whole) + b"\n")
    except OSError as error:
        raise StorageError(f"{disk.where(NAME)} cannot be written: {error}") from error


def started(disk: Disk, identity: Identity) -> Identity:
    """`identity` at the stage STARTED, to be stored next: its log is durable on return.

    In this order, because a started member without a log has lost it and must not go on. There is
    a log already if a crash came between the two steps.
    """
    assert identity.stage is Stage.RECORDED
    if not wal.exists(disk):
        owner = Owner(cluster_id=identity.cluster_id, node=identity.node, uuid=identity.uuid)
        wal.create(disk, owner)
    return replace(identity, stage=Stage.STARTED)


def load(disk: Disk, cluster_name: str, founders: tuple[Founder, ...]) -> Identity | None:
    """The stored identity, None if there is none yet. Raises IdentityError.

    `cluster_name` and `founders` are the configuration's; a founding record takes their place.
    """
    try:
        data = disk.read(NAME)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(f"{disk.where(NAME)} cannot be read: {error}") from error
    stored = _parse(disk.where(NAME), data)
    record = stored.record
    if record is not None and record.cluster_name != cluster_name:
        raise IdentityError(
            f"{disk.where(NAME)} belongs to cluster '{record.cluster_name}', the configuration "
            f"names '{cluster_name}': point this node at its own state directory"
        )
    return Identity(
        node=stored.node,
        uuid=stored.uuid,
        cluster_name=cluster_name,
        founders=founders,
        stage=stored.stage,
        record=record,
    )


def _parse(where: str, data: bytes) -> _Stored:
    remedy = "restore it from a copy of this disk, or move the state directory aside and add the "
    remedy += "node to the group again"
    try:
        whole = msgspec.json.decode(data, type=_File)
        if whole.format != _FORMAT:
            raise IdentityError(f"{where} has format {whole.format}, this version reads {_FORMAT}")
        if whole.crc32 != zlib.crc32(bytes(whole.identity)):
            raise IdentityError(f"{where} is damaged (checksum): {remedy}")
        return msgspec.json.decode(whole.identity, type=_Stored)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise IdentityError(f"{where} is damaged ({error}): {remedy}") from error


def load_or_create(
    disk: Disk, node: NodeId, cluster_name: str, founders: tuple[Founder, ...]
) -> Identity:
    """This directory's identity; a fresh blank one, already durable, where there was none.

    Raises IdentityError when the directory is another node's or cluster's, is damaged, or holds a
    log without an identity: it never makes a second identity over existing promises.
    """
    identity = load(disk, cluster_name, founders)
    if identity is None:
        if wal.exists(disk):
            raise IdentityError(
                f"{disk.where(NAME)} is missing, but there is a log beside it: restore the file, "
                "or move the state directory aside and add the node to the group again"
            )
        identity = Identity(
            node=node, uuid=uuid.uuid4().hex, cluster_name=cluster_name, founders=founders
        )
        save(disk, identity)
    if identity.node != node:
        raise IdentityError(
            f"{disk.where(NAME)} belongs to node {identity.node}, the configuration says node "
            f"{node}: point this node at its own state directory"
        )
    return identity
