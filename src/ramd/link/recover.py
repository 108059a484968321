"""This member alone becomes a group of its own: what `ramd.recovery` asks of pgraft.

Must not live here: whether that may be (`ramd.recovery`). The member must not run. Start reading at
`recover_alone`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pgraft import recovery
from pgraft.core.types import NodeId
from pgraft.node import Hooks
from pgraft.storage.disk import DirectoryLocked, StorageError
from ramd.domain.errors import ConfigError, Refused
from ramd.link.join import RAFT_DIR
from ramd.link.state_copy import StateCopy


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """The new group, and how far the log went that it begins with."""

    group_id: str
    index: int
    term: int
    uncommitted: int
    """Entries at its end that were not known to be committed; they count now."""
    aside: Path
    """The old member's directory."""


def recover_alone(
    state_dir: Path, *, node_id: int, cluster_name: str, address: str, stamp: str
) -> Survival:
    """The member stored in `state_dir` is the only one of a new group on return. Blocks.

    `address` is where peers would dial it, `stamp` names the old directory. Raises Refused with
    nothing changed, ConfigError for a log that cannot be read.
    """
    copy = StateCopy(lambda _granted: None)
    hooks = Hooks(apply=copy.apply, snapshot=copy.snapshot, restore=copy.restore)
    try:
        survivor = recovery.recover_alone(
            state_dir / RAFT_DIR,
            node=NodeId(node_id),
            cluster_name=cluster_name,
            address=address,
            hooks=hooks,
            stamp=stamp,
        )
    except (recovery.RecoveryRefused, DirectoryLocked) as refused:
        raise Refused(str(refused)) from refused
    except StorageError as error:
        raise ConfigError(str(error)) from error
    return Survival(
        group_id=survivor.identity.cluster_id,
        index=int(survivor.index),
        term=int(survivor.term),
        uncommitted=int(survivor.uncommitted),
        aside=survivor.aside,
    )


def resume(state_dir: Path) -> bool:
    """Complete a recovery that a crash interrupted; whether there was one. Before anything else
    looks at the directory."""
    return recovery.resume(state_dir / RAFT_DIR)
