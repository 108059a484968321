"""The synchronous set: which copies of the data must confirm a commit (rule S4).

Lives here: frozen values. Changing them is `ramd.state.sync`'s business, judging them
`ramd.policy.syncset`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ramd.domain.lsn import Lsn

COPY = re.compile(r"[0-9a-f]{16}")
"""What the id of a copy looks like."""


class SyncMode(StrEnum):
    """Whether commits wait for replicas, as people ask for it."""

    AUTO = "auto"
    """If there are two replicas or more that may confirm."""
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMember:
    """One copy of the data: a node, and which data directory of it (attacks C7).

    `copy` is made anew whenever the directory is: by initdb, clone, restore or rewind. '' stands
    for a copy that nobody has named yet: it can confirm nothing.
    """

    node_id: int
    copy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSet:
    """A commit is acknowledged when any `k` of `members` have it on disk; the primary is never one.

    Without members nobody is waited for. `alone` then says that the primary went on by itself
    although others were wanted: nobody but it is known to have everything.
    """

    members: tuple[SyncMember, ...] = ()
    k: int = 0
    alone: bool = False

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(member.node_id for member in self.members)

    def text(self) -> str:
        """For people."""
        if self.members:
            return f"any {self.k} of node " + ", ".join(str(node) for node in self.nodes)
        return "nobody (the primary alone)" if self.alone else "nobody"


NO_SET = SyncSet()
ALONE = SyncSet(alone=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRecord:
    """The set as the group has recorded it.

    A promotion must satisfy every set that `rules`. While `target` is not None a change to it is
    under way: it begins by recording the target beside the old set, and ends when it is proven.
    """

    generation: int = 0
    """Number of the last change; the server is told it with the set."""
    rules: tuple[SyncSet, ...] = (NO_SET,)
    target: SyncSet | None = None
    primary_copy: str = ""
    """The primary's own copy when that was last recorded, '' if never."""

    @property
    def goal(self) -> SyncSet:
        """What the server shall go by."""
        return self.rules[-1] if self.target is None else self.target

    @property
    def asynchronous(self) -> bool:
        """No acknowledgement ever rested on a set that still counts."""
        return all(one == NO_SET for one in self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncGrant:
    """What a grant says of the set (attacks C9): with whom the new primary begins, and as what.

    `after_loss`: a person accepted that the new primary may lack acknowledged commits; what ruled
    before it rules no longer.
    """

    target: SyncSet
    primary_copy: str
    after_loss: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One replica as the primary sees it stream. `flushed`: the end of WAL it has confirmed.

    `counts`: the server counts it among those that may confirm a commit.
    """

    node_id: int
    copy: str
    flushed: Lsn
    counts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSeen:
    """What a primary says of its streams, and of the set it goes by, in its observation."""

    streams: tuple[Stream, ...] = ()
    generation: int = 0
    """Of the set that is proven on the running server; 0: none is."""
    waits_for: str = ""
    """Why the lease is not published, a change not finished, or no commit acknowledged; for
    people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFacts:
    """One look at a running primary."""

    flushed: Lsn
    """End of its own WAL on disk."""
    names: str
    """What it goes by: its synchronous_standby_names."""
    as_told: bool = True
    """That is what it was told last."""
    streams: tuple[Stream, ...] = ()
    behind: tuple[Stream, ...] = ()
    """Those that still catch up: nobody is released by them."""
    strangers: int = 0
    """Streams that it counts and that are no copy of a member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConf:
    """What a server's configuration says: its set, and the number under which that is recorded.

    `blocking`: of a replica, which acknowledges nothing: nobody can confirm.
    """

    target: SyncSet = NO_SET
    generation: int = 0
    blocking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOrder:
    """What a person wants of it. None and '' leave as it is."""

    mode: SyncMode | None = None
    num_sync_standbys: int | None = None
    enforce_sync_standbys: bool | None = None
    sync_replication_timeout_ms: int | None = None
    add: str = ""
    """Name or id of a node that may confirm from now on."""
    remove: str = ""


class SyncSettings:
    """Bounds of the settings of synchronous replication."""

    num_max = 8
    timeout_ms_min = 100
    timeout_ms_max = 3_600_000
