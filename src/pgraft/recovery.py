"""The last way out: one survivor of a group that lost its majority goes on alone, as a new group.

Lives here: making the survivor's directory over into that of a group of one. Must not live here:
who decides that the others are gone for good (an operator, and nobody else). Start reading at
`recover_alone`.

This is unsafe by its nature, in two ways that no program can repair:

- What the others had committed and this member had not yet heard of is lost. What this member holds
  counts as committed, all of it, whether it was or not.
- If the others are not gone but only out of reach, there are two groups. They never mix: the new
  one has an id of its own, and no member of the old one is let in but with an empty directory.

So: end every other member for good first, fence what they ran, and choose the survivor with the
longest log (highest last term, then highest last index).

The new directory is made beside the old one and takes its name in two renames; the old one is kept.
A crash before the first rename changes nothing; between the two the directory is missing, and
`resume`, which is to be called before a directory is opened, does the second.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pgraft.core.applied import Applied
from pgraft.core.limits import REMOVED_MAX, SNAPSHOT_BYTES_MAX
from pgraft.core.types import HardState, Index, NodeId, Snapshot, Term
from pgraft.identity import FoundingMember, FoundingRecord, Identity, Stage
from pgraft.node.shell import Hooks, owner_of
from pgraft.storage import identity_file, snapshot, wal
from pgraft.storage.batches import Base
from pgraft.storage.disk import DirectoryLock, OsDisk, StorageError, sync_directory
from pgraft.storage.replay import Recovery, recover

_UNDER_WAY: Final = ".recovering"
_COMPLETE: Final = ".recovered"
_ASIDES_MAX: Final = 100


class RecoveryRefused(StorageError):
    """This directory cannot be made over; nothing was changed. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """What came of it: the member's new identity, and where its old directory is now.

    The log went up to `index`; `uncommitted` of its entries were not known to be committed.
    """

    identity: Identity
    aside: Path
    index: Index
    term: Term
    uncommitted: int
    epoch: int


def recover_alone(
    directory: Path, *, node: NodeId, cluster_name: str, address: str, hooks: Hooks, stamp: str
) -> Survivor:
    """The member in `directory` is the only voter of a new group on return, at `address`.

    `hooks` are those of a host whose state is blank: `restore`, `apply` and `snapshot` are called
    to learn what the log has made. `stamp` names the old directory, which is renamed aside. Raises
    DirectoryLocked while the member runs, RecoveryRefused for what is no member of a group,
    StorageError (WalCorrupt, …) for a log that cannot be read. A crash leaves either the old
    directory or, once `resume` was called, the new one.
    """
    if resume(directory):
        raise RecoveryRefused(
            f"{directory}: an earlier recovery was interrupted and is complete now; start the node"
        )
    if not directory.is_dir():
        raise RecoveryRefused(f"{directory} is no directory of a member")
    lock = DirectoryLock(directory)
    try:
        old = identity_file.load(OsDisk(directory), cluster_name, ())
        if old is None or old.node != node or old.stage is not Stage.STARTED:
            raise RecoveryRefused(
                f"{directory} does not hold node {node} of a group that was formed"
            )
        return _recover(directory, old, address=address, hooks=hooks, stamp=stamp)
    finally:
        lock.release()


def resume(directory: Path) -> bool:
    """Complete a recovery that a crash interrupted between its two renames; whether there was one.

    To be called before `directory` is opened or made. Anything else is left alone.
    """
    complete = _beside(directory, _COMPLETE)
    if directory.exists() or not complete.is_dir():
        return False
    _rename(complete, directory)
    return True


def _recover(directory: Path, old: Identity, *, address: str, hooks: Hooks, stamp: str) -> Survivor:
    log, recovery = recover(OsDisk(directory), owner_of(old))
    log.close()
    identity = _alone(old, address)
    taken = _everything(recovery, identity, hooks)
    taken = replace(taken, config=replace(taken.config, removed=_given_up(old, recovery)))
    _make(directory, identity, taken, recovery.hard_state)
    aside = _aside(directory, stamp)
    _rename(directory, aside)
    _rename(_beside(directory, _COMPLETE), directory)
    return Survivor(
        identity=identity,
        aside=aside,
        index=taken.index,
        term=taken.term,
        uncommitted=taken.index - recovery.hard_state.commit,
        epoch=taken.lease.grant.epoch if taken.lease.grant is not None else 0,
    )


def _given_up(old: Identity, recovery: Recovery) -> tuple[str, ...]:
    """The uuids of every member of the old group: whoever comes back is told that it is none."""
    assert old.record is not None
    config = old.record.config() if recovery.snapshot is None else recovery.snapshot.config
    for entry in recovery.entries:
        config = entry.config or config
    uuids = (*config.removed, *(peer.uuid for peer in config.peers))
    return tuple(dict.fromkeys(uuids))[-REMOVED_MAX:]


def _alone(old: Identity, address: str) -> Identity:
    """A new member of a new group: what the old one had promised binds nobody any more."""
    own = uuid.uuid4().hex
    member = FoundingMember(node=old.node, address=address, uuid=own)
    return Identity(
        node=old.node,
        uuid=own,
        cluster_name=old.cluster_name,
        founders=(),
        stage=Stage.STARTED,
        record=FoundingRecord(
            cluster_id=uuid.uuid4().hex, cluster_name=old.cluster_name, members=(member,)
        ),
    )


def _everything(recovery: Recovery, identity: Identity, hooks: Hooks) -> Snapshot:
    """The state after the whole log, the end that was not known to be committed included."""
    if hooks.snapshot is None or hooks.restore is None:
        raise RecoveryRefused("the host cannot say what its state is")
    assert identity.record is not None
    before = recovery.snapshot
    applied = Applied(before)
    term = Term(0) if before is None else before.term
    if before is not None:
        hooks.restore(before)
    for entry in recovery.entries:
        hooks.apply(applied.apply(entry))
        term = entry.term
    if applied.index == 0:
        raise RecoveryRefused("this member holds nothing at all: it has never heard of a leader")
    data = hooks.snapshot()
    if len(data) > SNAPSHOT_BYTES_MAX:
        raise RecoveryRefused(f"a state of {len(data)} bytes does not fit a snapshot")
    return Snapshot(
        index=applied.index,
        term=term,
        config=identity.record.config(),
        lease=applied.lease,
        sessions=applied.sessions,
        data=data,
    )


def _make(directory: Path, identity: Identity, taken: Snapshot, old: HardState) -> None:
    """The new directory, complete and durable, under the name that `resume` looks for."""
    under_way, complete = _beside(directory, _UNDER_WAY), _beside(directory, _COMPLETE)
    for leftover in (under_way, complete):
        if leftover.exists():
            shutil.rmtree(leftover)
    disk, owner = OsDisk(under_way), owner_of(identity)
    try:
        snapshot.save(disk, owner, taken)
        hard_state = HardState(term=max(old.term, taken.term), commit=taken.index)
        base = Base(index=taken.index, term=taken.term, hard_state=hard_state, restart=True)
        wal.create(disk, owner, base)
        identity_file.save(disk, identity)
        _rename(under_way, complete)
    except OSError as error:
        raise StorageError(f"{under_way} cannot be written: {error}") from error


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)


def _aside(directory: Path, stamp: str) -> Path:
    for number in range(_ASIDES_MAX):
        path = _beside(directory, f".before-{stamp}" + (f"-{number}" if number else ""))
        if not path.exists():
            return path
    raise RecoveryRefused(f"{directory} was set aside {_ASIDES_MAX} times at {stamp}")


def _rename(path: Path, new: Path) -> None:
    path.rename(new)
    sync_directory(new.parent)
