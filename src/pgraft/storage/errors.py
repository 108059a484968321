"""What can go wrong with a member's log and snapshots, by what has to be done about it.

Lives here: the errors of this room and the one remedy they share. Must not live here: who raises
them.
"""

from __future__ import annotations

import errno
from typing import Final

from pgraft.storage.disk import StorageError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
REMEDY: Final = (
    "This member must not vote on what is left: move its state directory aside and add the node "
    "to the group again, or restore this file from an exact copy of this very disk"
)


class WalFailed(StorageError):
    """A write or sync failed, so nothing since the last good sync may be trusted. Stop the node."""


class WalCorrupt(StorageError):
    """Something that was once durable is damaged or missing. The member must not start."""


class WalForeign(StorageError):
    """The log or snapshot belongs to another cluster, node or member."""


class DiskFull(StorageError):
    """No room. Nothing of what was asked is durable, and nothing before it is lost: the same may be
    asked again once there is room."""

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(
            f"no room for {where}: {error}. This node neither votes nor confirms anything until "
            "there is: free some space on this disk"
        )
