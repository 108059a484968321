"""One member of a group on a table, letters between members, changes of membership by number.

Lives here: plain values. Must not live here: what happens with them (see `raft_lab`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pgraft.core.raft import Raft
from pgraft.core.types import (
    Change,
    Config,
    CoreEvent,
    Entry,
    Message,
    NodeId,
    PeerRecord,
    ReadDone,
    Ready,
    Snapshot,
)
from tests.support.raft_show import show_message
from tests.support.raft_store import Image


@dataclass(frozen=True, slots=True)
class Letter:
    """A message on its way."""

    sender: NodeId
    to: NodeId
    message: Message

    def __str__(self) -> str:
        return f"{self.sender}->{self.to} {show_message(self.message)}"


@dataclass(slots=True, kw_only=True)
class Member:
    """One node: its core, its disk, and what came out."""

    raft: Raft
    disk: Image
    boot: int
    unsynced: list[Ready] = field(default_factory=list)
    applied: list[Entry] = field(default_factory=list)
    reads: list[ReadDone] = field(default_factory=list)
    events: list[CoreEvent] = field(default_factory=list)
    released_epoch: int = 0
    state: list[bytes] = field(default_factory=list)

    def apply(self, entry: Entry) -> None:
        """The host's state: the commands, in order."""
        self.applied.append(entry)
        if entry.data:
            self.state.append(entry.data)

    def restore(self, snapshot: Snapshot) -> None:
        """The host's state is what the snapshot says."""
        self.state = snapshot.data.split(b"\n") if snapshot.data else []


def record(node: int, uuid: str = "") -> PeerRecord:
    """A new member as a change names it."""
    return PeerRecord(node=NodeId(node), uuid=uuid or f"uuid-{node}", address=f"host{node}:1")


def changed(
    *,
    add: Iterable[int] = (),
    promote: Iterable[int] = (),
    demote: Iterable[int] = (),
    remove: Iterable[int] = (),
) -> Change:
    """A change of membership by node numbers."""
    return Change(
        add_learners=tuple(record(node) for node in add),
        promote=_ids(promote),
        demote=_ids(demote),
        remove=_ids(remove),
    )


def halves(config: Config) -> tuple[set[int], set[int]]:
    """Voters, and those before a joint change."""
    return set(config.voters), set(config.outgoing)


def learning(config: Config) -> tuple[set[int], set[int]]:
    """Learners now, and once a joint change is left."""
    return set(config.learners), set(config.learners_next)


def _ids(nodes: Iterable[int]) -> frozenset[NodeId]:
    return frozenset(NodeId(node) for node in nodes)
