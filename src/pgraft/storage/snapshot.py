"""Snapshots of one member as files: each whole or absent, the two newest kept.

Lives here: the format of a snapshot file, saving, and finding the newest that can be read. Must not
live here: when one is taken, what its state means. Start reading at `save` and `load_newest`.

A file `<index in 16 hex digits>.snap` is one frame

    magic 8 | format u32 | crc32 u32 | node u64 | cluster id 32 | member uuid 32 | msgpack

(little endian), whose checksum covers everything behind itself. `Disk.replace` gives it its name
only when it is durable, so a file that cannot be read is rot, never a torn write. The log is kept
back to the older of the two, so that rot in the newer costs nothing but time.
"""

from __future__ import annotations

import logging
import zlib
from struct import Struct
from typing import Final

import msgspec

from pgraft.core.types import Index, Snapshot
from pgraft.storage.disk import Disk
from pgraft.storage.errors import FULL, REMEDY, DiskFull, WalCorrupt, WalFailed, WalForeign
from pgraft.storage.segment import Owner, describe

_LOG = logging.getLogger("pgraft.storage")
FORMAT: Final = 1
MAGIC: Final = b"PGRAFTSN"
KEPT: Final = 2
_SUFFIX: Final = ".snap"
_HEAD: Final = Struct("<8sII")
_OWNER: Final = Struct("<Q32s32s")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Snapshot)


class _Damaged(Exception):
    """This file is no snapshot that this version can read; the text says why."""


def _name(index: Index) -> str:
    return f"{index:016x}{_SUFFIX}"


def _names(disk: Disk) -> list[str]:
    return [name for name in disk.names() if name.endswith(_SUFFIX)]


def save(disk: Disk, owner: Owner, snapshot: Snapshot) -> Index:
    """`snapshot` is durable on return, and only the two newest are left.

    Returns the index up to which no snapshot that is kept needs the log: the older one's, 0 while
    there is one only. Raises DiskFull and WalFailed; the ones before are then still there.
    """
    ids = _OWNER.pack(owner.node, owner.cluster_id.encode("ascii"), owner.uuid.encode("ascii"))
    body = ids + _ENCODER.encode(snapshot)
    name = _name(snapshot.index)
    try:
        disk.replace(name, _HEAD.pack(MAGIC, FORMAT, zlib.crc32(body)) + body)
        names = _names(disk)
        for old in names[:-KEPT]:
            disk.remove(old)
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"the snapshot {disk.where(name)}", error) from error
        raise WalFailed(f"the snapshot {disk.where(name)} cannot be written: {error}") from error
    kept = names[-KEPT:]
    return Index(int(kept[0].removesuffix(_SUFFIX), 16)) if len(kept) == KEPT else Index(0)


def load_newest(disk: Disk, owner: Owner, first: Index = Index(1)) -> Snapshot | None:
    """The newest snapshot that can be read, None if there is no file of one.

    `first` is the first entry that the log still holds: what ends before the one before it has a
    gap behind it and is no help. Raises WalCorrupt (which file, and what to do) when none that is
    left reaches the log, WalForeign when one is another member's, OSError.
    """
    faults: list[str] = []
    for name in reversed(_names(disk)):
        try:
            snapshot = _unpack(disk, name, owner)
        except _Damaged as damage:
            faults.append(f"{disk.where(name)}: {damage}")
            continue
        if snapshot.index + 1 < first:
            faults.append(f"{disk.where(name)} ends at {snapshot.index}, the log begins at {first}")
            break
        for fault in faults:
            _LOG.error("%s; going on with the snapshot before it", fault)
        return snapshot
    if faults and first > 1:
        raise WalCorrupt(f"no snapshot of this member can be used: {'; '.join(faults)}. {REMEDY}")
    for fault in faults:
        _LOG.error("%s; going on with the log, which holds everything", fault)
    return None


def _unpack(disk: Disk, name: str, owner: Owner) -> Snapshot:
    data = disk.read(name)
    if len(data) < _HEAD.size + _OWNER.size:
        raise _Damaged("shorter than its header")
    magic, version, crc = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise _Damaged("not a pgraft snapshot")
    if version != FORMAT:
        raise WalCorrupt(
            f"{disk.where(name)} has format {version}, this version reads {FORMAT}: start this "
            "node with the version that wrote it"
        )
    body = memoryview(data)[_HEAD.size :]
    if crc != zlib.crc32(body):
        raise _Damaged("checksum does not match")
    node, cluster_id, uuid = _OWNER.unpack_from(body)
    found = Owner(node=node, cluster_id=cluster_id.decode("ascii"), uuid=uuid.decode("ascii"))
    if found != owner:
        raise WalForeign(
            f"{disk.where(name)} is a snapshot of {describe(found)}, but this is "
            f"{describe(owner)}: it was copied or mixed up; point this node at its own directory"
        )
    try:
        snapshot = _DECODER.decode(body[_OWNER.size :])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise _Damaged(str(error)) from error
    if name != _name(snapshot.index):
        raise _Damaged(f"holds index {snapshot.index}: it was renamed")
    return snapshot
