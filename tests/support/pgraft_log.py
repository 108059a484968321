"""Values that tests of the log write: an owner, entries, hard states, snapshots.

Lives here: makers of values. Must not live here: disks (see `pgraft_disk`).
"""

from pgraft.core.types import Config, Entry, EntryKind, HardState, Index, NodeId, Snapshot, Term
from pgraft.storage.segment import Owner

OWNER = Owner(cluster_id="c" * 32, node=1, uuid="a" * 32)
SMALL = 4096
CONFIG = Config(voters=frozenset({NodeId(1)}))


def entry(index: int, term: int = 1, size: int = 10) -> Entry:
    data = bytes([index % 251]) * size
    return Entry(term=Term(term), index=Index(index), kind=EntryKind.COMMAND, data=data)


def state(term: int, commit: int = 0) -> HardState:
    return HardState(term=Term(term), vote=NodeId(term % 3 + 1), commit=Index(commit))


def snap(index: int, term: int = 1) -> Snapshot:
    return Snapshot(index=Index(index), term=Term(term), config=CONFIG, data=b"%d" % index)
